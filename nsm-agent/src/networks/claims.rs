//! What the devices of a pod's ResourceClaims are, for whoever makes networks of them: their drivers say it in ResourceSlices
//! (resource.k8s.io/v1).
//!
//! Guarantees: the API server is asked only about claims that the kubelet has prepared for the pod, and only for a pod that wants a device
//! which no device plugin gave it. Of slices are read those of the claims' drivers that are of this node or of none in particular, a page
//! of [`PAGE`] at a time; of them, two attributes of the claims' devices are kept until the plan is made. Every call has a bound.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use kube::{
    Api, Client,
    api::{ApiResource, GroupVersionKind, ListParams},
    core::{NotUsed, Object},
};
use serde::Deserialize;
use tokio::time::Instant;

use crate::kubernetes::{Failure, bounded};

/// Most claims of a pod that are asked about.
const MOST: usize = 32;
/// Slices of one page: each has up to 128 devices, and is as big as the API server keeps objects.
const PAGE: u32 = 5;

/// How a driver says which device plugins of networks are told.
pub(super) const DEVICE_ID: &str = "k8s.cni.cncf.io/deviceID";
/// The same for any device of that kind, by Kubernetes' own name.
pub(super) const PCI_BUS_ID: &str = "resource.kubernetes.io/pciBusID";
/// How a driver says which definitions' networks are made of a device.
pub(super) const RESOURCE_NAME: &str = "k8s.cni.cncf.io/resourceName";

/// A device as drivers name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Named {
    pub(super) driver: String,
    pub(super) pool: String,
    pub(super) device: String,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "device {:?} of pool {:?} of driver {}", self.device, self.pool, self.driver)
    }
}

/// A claim that the kubelet has prepared for a pod, with the devices that its driver has told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) devices: BTreeSet<Named>,
}

impl Claim {
    /// Whether a device that was allocated to the claim is one that was prepared: a driver may tell none, where containers need nothing
    /// of it.
    fn has(&self, named: &Named) -> bool {
        self.devices.contains(named) || self.devices.iter().all(|one| one.driver != named.driver)
    }
}

/// A device of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) claim: String,
    pub(super) request: String,
    pub(super) named: Named,
    pub(super) what: What,
}

/// What is said of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// No slice has it.
    Unknown,
    /// It is somebody else's: the claim is for administration.
    Others,
    /// What its slice says.
    Said(Said),
}

/// What a slice says of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// Which device plugins are told.
    pub(super) id: Option<String>,
    /// Which definitions it is for.
    pub(super) resource: Option<String>,
}

/// Who is asked. Clones share it.
#[derive(Clone)]
pub(super) struct Claims {
    client: Client,
    node: String,
}

impl Claims {
    /// About devices of this node.
    pub(super) fn new(client: Client, node: String) -> Self {
        Self { client, node }
    }

    /// The devices of these claims.
    pub(super) async fn devices(&self, claims: &[Claim], until: Instant) -> Result<Vec<Claimed>, String> {
        let asked = tokio::time::timeout_at(until, self.all(claims)).await;
        asked.unwrap_or_else(|_| Err("the API server has not told the devices of the pod's claims in time".to_owned()))
    }

    async fn all(&self, claims: &[Claim]) -> Result<Vec<Claimed>, String> {
        if claims.len() > MOST {
            return Err(format!("the pod has {} ResourceClaims: expected at most {MOST}", claims.len()));
        }
        let mut all = Vec::new();
        for claim in claims {
            all.extend(self.of_claim(claim).await?);
        }
        let wanted: BTreeSet<&Named> = all.iter().map(|one| &one.named).collect();
        let mut said = HashMap::new();
        let drivers: BTreeSet<&str> = wanted.iter().map(|named| named.driver.as_str()).collect();
        for driver in drivers {
            // Devices that any node reaches are in slices of no node.
            for node in [self.node.as_str(), ""] {
                if wanted.iter().any(|named| named.driver == driver && !said.contains_key(*named)) {
                    self.read(driver, node, &wanted, &mut said).await?;
                }
            }
        }
        for one in &mut all {
            if let (What::Unknown, Some((_, said))) = (&one.what, said.get(&one.named)) {
                one.what = What::Said(said.clone());
            }
        }
        Ok(all)
    }

    /// The devices that were allocated to a claim.
    async fn of_claim(&self, claim: &Claim) -> Result<Vec<Claimed>, String> {
        let Claim { namespace, name, .. } = claim;
        let api: Api<Object<NotUsed, ClaimStatus>> =
            Api::namespaced_with(self.client.clone(), namespace, &kind("ResourceClaim", "resourceclaims"));
        let object = bounded(api.get(name)).await;
        let object = object.map_err(|error| unread(&format!("ResourceClaim \"{namespace}/{name}\""), &error))?;
        let allocated = object.status.and_then(|status| status.allocation).unwrap_or_default().devices.results;
        let claimed = allocated.into_iter().map(|one| {
            let Allocated { request, driver, pool, device, admin } = one;
            let what = if admin == Some(true) { What::Others } else { What::Unknown };
            Claimed { claim: name.clone(), request, named: Named { driver, pool, device }, what }
        });
        Ok(claimed.filter(|one| claim.has(&one.named)).collect())
    }

    /// Reads the slices of a driver and a node, and keeps what they say of the wanted devices: the newest generation of a pool counts.
    async fn read(
        &self,
        driver: &str,
        node: &str,
        wanted: &BTreeSet<&Named>,
        said: &mut HashMap<Named, (i64, Said)>,
    ) -> Result<(), String> {
        let api: Api<Object<SliceSpec, NotUsed>> =
            Api::all_with(self.client.clone(), &kind("ResourceSlice", "resourceslices"));
        let mut page = ListParams::default().fields(&format!("spec.driver={driver},spec.nodeName={node}")).limit(PAGE);
        loop {
            let list = bounded(api.list(&page)).await;
            let list = list.map_err(|error| unread(&format!("ResourceSlices of driver {driver}"), &error))?;
            for SliceSpec { pool, devices } in list.items.into_iter().map(|slice| slice.spec) {
                for Device { name, attributes } in devices.unwrap_or_default() {
                    let named = Named { driver: driver.to_owned(), pool: pool.name.clone(), device: name };
                    let is_newer = said.get(&named).is_none_or(|(generation, _)| *generation < pool.generation);
                    if wanted.contains(&named) && is_newer {
                        said.insert(named, (pool.generation, attributes.said()));
                    }
                }
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

fn kind(kind: &str, plural: &str) -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("resource.k8s.io", "v1", kind), plural)
}

fn unread(what: &str, error: &Failure) -> String {
    let fix = match error {
        Failure::Missing(_) => "; expected resource.k8s.io/v1, which Kubernetes has from 1.34 on, and the claim in it",
        Failure::Forbidden(_) => "; expected the rights of deploy/rbac.yaml",
        Failure::Away(_) | Failure::Conflict(_) | Failure::Invalid(_) => "",
    };
    format!("{what} cannot be read: {error}{fix}")
}

/// What of a claim is read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct ClaimStatus {
    allocation: Option<Allocation>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Allocation {
    devices: Results,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Results {
    results: Vec<Allocated>,
}

#[derive(Debug, Clone, Deserialize)]
struct Allocated {
    request: String,
    driver: String,
    pool: String,
    device: String,
    #[serde(rename = "adminAccess")]
    admin: Option<bool>,
}

/// What of a slice is read.
#[derive(Debug, Clone, Deserialize)]
struct SliceSpec {
    pool: Pool,
    devices: Option<Vec<Device>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Pool {
    name: String,
    generation: i64,
}

#[derive(Debug, Clone, Deserialize)]
struct Device {
    name: String,
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    #[serde(rename = "k8s.cni.cncf.io/deviceID")]
    id: Option<Text>,
    #[serde(rename = "resource.kubernetes.io/pciBusID")]
    bus: Option<Text>,
    #[serde(rename = "k8s.cni.cncf.io/resourceName")]
    resource: Option<Text>,
}

/// An attribute, if it is a text.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Text {
    string: Option<String>,
}

impl Attributes {
    fn said(self) -> Said {
        let text = |attribute: Option<Text>| attribute?.string.filter(|text| !text.is_empty());
        Said { id: text(self.id).or_else(|| text(self.bus)), resource: text(self.resource) }
    }
}

#[cfg(test)]
mod tests;
