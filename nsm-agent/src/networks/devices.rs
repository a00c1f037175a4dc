//! Which devices the kubelet has given a pod, of device plugins and of claims: its pod-resources API, version 1, on a unix socket of the
//! node.
//!
//! Guarantees: asked only for a pod that wants a device, at most once for a plan; every call has a bound, and so has its answer.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use nsm_proto::podresources::{
    DynamicResource, ListPodResourcesRequest, PodResources, pod_resources_lister_client::PodResourcesListerClient,
};
use tokio::time::Instant;

use super::claims::{Claim, Named};
use crate::state::Pod;

/// Where the kubelet answers.
pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// Longest answer, in bytes: as much as other readers of it take.
const LONGEST: usize = 16 << 20;

/// The devices of one pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct OfPod {
    /// Whose they are, as errors name it.
    pub(super) pod: String,
    /// Those of device plugins by resource, in order.
    pub(super) by_resource: HashMap<String, Vec<String>>,
    /// Those of claims that its containers use.
    pub(super) claims: Vec<Claim>,
}

/// The kubelet's word on devices. Clones share it.
#[derive(Debug, Clone)]
pub struct Devices {
    socket: Arc<Path>,
}

impl Devices {
    /// Asks there.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket: socket.into() }
    }

    /// The devices of a pod.
    pub(super) async fn of_pod(&self, pod: &Pod, until: Instant) -> Result<OfPod, String> {
        let path = self.socket.display();
        let connected = nsm_fdpass::connect(&self.socket, until).await;
        let connected = connected.map_err(|error| {
            format!(
                "the kubelet's pod-resources API cannot be asked: {error}; mount its directory, or set --pod-resources"
            )
        })?;
        let mut kubelet = PodResourcesListerClient::new(connected.channel).max_decoding_message_size(LONGEST);
        let answer = tokio::time::timeout_at(until, kubelet.list(ListPodResourcesRequest {})).await;
        let all = match answer {
            Ok(Ok(answer)) => answer.into_inner().pod_resources,
            Ok(Err(status)) => {
                return Err(format!("the kubelet at {path} answered {:?}: {}", status.code(), status.message()));
            }
            Err(_) => return Err(format!("the kubelet at {path} did not answer in time")),
        };
        let of_pod = all.into_iter().find(|one| one.name == pod.name && one.namespace == pod.namespace);
        let pod = format!("\"{}/{}\"", pod.namespace, pod.name);
        Ok(OfPod { pod, ..of_pod.map(held).unwrap_or_default() })
    }
}

fn held(pod: PodResources) -> OfPod {
    let mut by_resource: HashMap<String, Vec<String>> = HashMap::new();
    let mut claims: BTreeMap<(String, String), Claim> = BTreeMap::new();
    for container in pod.containers {
        for devices in container.devices {
            by_resource.entry(devices.resource_name).or_default().extend(devices.device_ids);
        }
        for DynamicResource { claim_namespace: namespace, claim_name: name, claim_resources } in
            container.dynamic_resources
        {
            let devices = claim_resources.into_iter().map(|one| Named {
                driver: one.driver_name,
                pool: one.pool_name,
                device: one.device_name,
            });
            // Several containers may use it.
            let claim = claims.entry((namespace.clone(), name.clone()));
            claim.or_insert_with(|| Claim { namespace, name, devices: BTreeSet::new() }).devices.extend(devices);
        }
    }
    for devices in by_resource.values_mut() {
        devices.sort();
        devices.dedup();
    }
    OfPod { pod: String::new(), by_resource, claims: claims.into_values().collect() }
}

#[cfg(test)]
mod tests {
    use nsm_proto::podresources::{ClaimResource, ContainerDevices, ContainerResources};

    use super::*;

    #[test]
    fn devices_of_all_containers_in_order() {
        let devices = |resource: &str, ids: &[&str]| ContainerDevices {
            resource_name: resource.into(),
            device_ids: ids.iter().map(ToString::to_string).collect(),
        };
        let container = |devices| ContainerResources { devices, ..ContainerResources::default() };
        let pod = PodResources {
            containers: vec![
                container(vec![devices("x/a", &["2", "1"]), devices("x/b", &["9"])]),
                container(vec![devices("x/a", &["0"])]),
            ],
            ..PodResources::default()
        };
        let all = held(pod).by_resource;
        assert_eq!((all["x/a"].as_slice(), all["x/b"].len()), (&["0".to_owned(), "1".into(), "2".into()][..], 1));
    }

    #[test]
    fn claims_of_all_containers_once() {
        let claim = |name: &str, devices: &[&str]| DynamicResource {
            claim_name: name.into(),
            claim_namespace: "n".into(),
            claim_resources: devices
                .iter()
                .map(|device| ClaimResource {
                    driver_name: "d".into(),
                    pool_name: "p".into(),
                    device_name: (*device).into(),
                })
                .collect(),
        };
        let container = |dynamic_resources| ContainerResources { dynamic_resources, ..ContainerResources::default() };
        let containers =
            vec![container(vec![claim("b", &["2", "1"])]), container(vec![claim("b", &["1", "2"]), claim("a", &[])])];
        let all = held(PodResources { containers, ..PodResources::default() }).claims;
        let devices = |claim: &Claim| claim.devices.iter().map(|named| named.device.clone()).collect::<Vec<_>>();
        assert_eq!(
            all.iter().map(|claim| (&*claim.name, devices(claim))).collect::<Vec<_>>(),
            [("a", vec![]), ("b", vec!["1".to_owned(), "2".into()])]
        );
    }
}
