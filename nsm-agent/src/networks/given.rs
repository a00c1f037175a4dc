//! Which of a pod's devices a network is made of: first those of device plugins, then those of claims, each in the order of their ids.
//!
//! Guarantee: a device is given once, whether by this plan or to a network that the pod has.

use std::collections::BTreeSet;

use nsm_npwg::Planned;

use super::{
    claims::{Claimed, DEVICE_ID, PCI_BUS_ID, RESOURCE_NAME, Said, What},
    devices::OfPod,
};

/// Most devices that an error names.
const NAMED: usize = 4;

/// A resource, and the id of one of its devices.
pub(super) type Device = (String, String);

/// What a network is made of.
pub(super) fn of(planned: &Planned) -> Option<Device> {
    Some((planned.resource_name.clone()?, planned.completion.device_id.clone()?))
}

/// What has to be asked before a device can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacking {
    /// What the kubelet has given the pod.
    OfPod,
    /// What the devices of its claims are.
    OfClaims,
}

/// The devices of a pod, as far as they are known.
#[derive(Debug, Default)]
pub(super) struct Given {
    of_pod: Option<Result<OfPod, String>>,
    of_claims: Option<Result<Vec<Claimed>, String>>,
    /// What the networks have that the pod has already.
    used: BTreeSet<Device>,
    /// What this plan has given.
    now: BTreeSet<Device>,
    lacking: Option<Lacking>,
}

impl Given {
    /// To a pod whose networks have these.
    pub(super) fn beside(used: BTreeSet<Device>) -> Self {
        Self { used, ..Self::default() }
    }

    /// What is to be asked before the plan is made anew, which begins: nothing is given yet.
    pub(super) fn begin(&mut self) -> Option<Lacking> {
        self.now.clear();
        self.lacking.take()
    }

    pub(super) fn put_pod(&mut self, of_pod: Result<OfPod, String>) {
        self.of_pod = Some(of_pod);
    }

    pub(super) fn put_claims(&mut self, of_claims: Result<Vec<Claimed>, String>) {
        self.of_claims = Some(of_claims);
    }

    pub(super) fn of_pod(&self) -> Option<&OfPod> {
        self.of_pod.as_ref()?.as_ref().ok()
    }

    /// A device of that resource: the named one, or the next.
    pub(super) fn next(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        let found = self.find(resource, named)?;
        self.now.insert((resource.to_owned(), found.clone()));
        Ok(found)
    }

    fn find(&mut self, resource: &str, named: Option<&str>) -> Result<String, String> {
        let Some(of_pod) = &self.of_pod else {
            self.lacking = Some(Lacking::OfPod);
            return Err("nobody knows the devices of this pod".to_owned());
        };
        let of_pod = of_pod.as_ref().map_err(Clone::clone)?;
        let is_free = |id: &&String| {
            let device = (resource.to_owned(), (*id).clone());
            named.is_none_or(|named| *named == **id) && !self.used.contains(&device) && !self.now.contains(&device)
        };
        let of_plugins = of_pod.by_resource.get(resource).map(Vec::as_slice).unwrap_or_default();
        if let Some(id) = of_plugins.iter().find(is_free) {
            return Ok(id.clone());
        }
        let mut ids: Vec<&String> = of_plugins.iter().collect();
        let mut claimed: &[Claimed] = &[];
        if !of_pod.claims.is_empty() {
            let Some(of_claims) = &self.of_claims else {
                self.lacking = Some(Lacking::OfClaims);
                return Err("nobody knows the devices of the pod's claims".to_owned());
            };
            claimed = of_claims.as_ref().map_err(Clone::clone)?;
            let before = ids.len();
            ids.extend(claimed.iter().filter_map(|one| one.id_for(resource)));
            ids[before..].sort();
            if let Some(id) = ids[before..].iter().copied().find(is_free) {
                return Ok(id.clone());
            }
        }
        let pod = &of_pod.pod;
        Err(match (named, ids.len()) {
            (_, 0) => format!("pod {pod} has none: {}", why_none(resource, claimed)),
            (Some(named), _) if ids.iter().all(|id| *id != named) => {
                let ids = few(ids.iter().map(|id| format!("{id:?}")), ", ");
                format!("deviceID {named:?} is none of pod {pod}'s, which are {ids}")
            }
            (Some(named), _) => {
                format!("device {named:?} of pod {pod} is another network's: name another one, or none")
            }
            (None, count) => format!(
                "pod {pod} has {count}, all of other networks: expected one for each network, in a container's resources.limits or in \
                 its claims"
            ),
        })
    }
}

impl Claimed {
    /// The id of the device, if it is one of that resource.
    fn id_for(&self, resource: &str) -> Option<&String> {
        let What::Said(said) = &self.what else { return None };
        said.id.as_ref().filter(|_| said.resource.as_deref() == Some(resource))
    }

    /// Why it serves no network of that resource.
    fn why_not(&self, resource: &str) -> String {
        let Self { claim, request, named, .. } = self;
        let why = match &self.what {
            What::Unknown => format!("which no ResourceSlice has: does driver {} run on this node?", named.driver),
            What::Others => "for administration: it is another pod's".to_owned(),
            What::Said(Said { resource: None, .. }) => format!("of which its driver says no {RESOURCE_NAME}"),
            What::Said(Said { resource: Some(other), .. }) if other != resource => {
                format!("of which its driver says {RESOURCE_NAME} {other:?}")
            }
            What::Said(_) => format!("of which its driver says neither {DEVICE_ID} nor {PCI_BUS_ID}"),
        };
        format!("request {request:?} of ResourceClaim {claim:?} has {named}, {why}")
    }
}

fn why_none(resource: &str, claimed: &[Claimed]) -> String {
    if claimed.is_empty() {
        return "expected a container that requests it in resources.limits, or, from Kubernetes 1.34 on, one that has a claim with such a \
                device in resources.claims"
            .to_owned();
    }
    let all = few(claimed.iter().map(|one| one.why_not(resource)), "; ");
    format!(
        "{all}; expected a device in resources.limits, or a claim with one of which its ResourceSlice says {RESOURCE_NAME} {resource:?} and \
         {DEVICE_ID}"
    )
}

/// As many as somebody reads.
fn few(all: impl ExactSizeIterator<Item = String>, between: &str) -> String {
    let more = all.len().saturating_sub(NAMED);
    let text = all.take(NAMED).collect::<Vec<_>>().join(between);
    if more == 0 { text } else { format!("{text}{between}and {more} more") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::networks::claims::{Claim, Named};

    fn known(plugins: &[&str], claimed: Vec<Claimed>) -> Given {
        let ids = plugins.iter().map(ToString::to_string).collect();
        let claims = claimed.iter().map(|one| Claim {
            namespace: "n".into(),
            name: one.claim.clone(),
            devices: BTreeSet::from([one.named.clone()]),
        });
        let of_pod =
            OfPod { pod: "\"n/p\"".into(), by_resource: [("r".to_owned(), ids)].into(), claims: claims.collect() };
        Given { of_pod: Some(Ok(of_pod)), of_claims: Some(Ok(claimed)), ..Given::default() }
    }

    fn claimed(device: &str, what: What) -> Claimed {
        let named = Named { driver: "x.com".into(), pool: "p".into(), device: device.into() };
        Claimed { claim: "c".into(), request: "vf".into(), named, what }
    }

    fn said(id: Option<&str>, resource: Option<&str>) -> What {
        What::Said(Said { id: id.map(str::to_owned), resource: resource.map(str::to_owned) })
    }

    #[test]
    fn each_once_and_plugins_first() {
        let of_claims = || vec![claimed("b", said(Some("2"), Some("r"))), claimed("a", said(Some("1"), Some("r")))];
        let mut given = known(&["8", "9"], of_claims());
        let all: Vec<String> = (0..4).map(|_| given.next("r", None).unwrap()).collect();
        assert_eq!(all, ["8", "9", "1", "2"]);
        assert!(given.next("r", None).unwrap_err().contains("pod \"n/p\" has 4, all of other networks"));
        // A plan that is made anew gives the same.
        given.begin();
        assert_eq!(given.next("r", Some("1")), Ok("1".into()));
        assert!(given.next("r", Some("1")).unwrap_err().contains("\"1\" of pod \"n/p\" is another network's"));
        assert!(
            given
                .next("r", Some("7"))
                .unwrap_err()
                .contains("none of pod \"n/p\"'s, which are \"8\", \"9\", \"1\", \"2\"")
        );
        assert_eq!(given.next("r", None), Ok("8".into()), "what was not named is left");
    }

    #[test]
    fn what_the_pod_uses_is_not_given_again() {
        let mut given = known(&["8", "9"], Vec::new());
        given.used = BTreeSet::from([("r".to_owned(), "8".to_owned()), ("other".into(), "9".into())]);
        assert_eq!(given.next("r", None), Ok("9".into()));
        given.begin();
        assert!(given.next("r", Some("8")).unwrap_err().contains("another network's"));
    }

    #[test]
    fn what_is_not_known_is_asked_for_in_turn() {
        let mut given = Given::default();
        assert!(given.next("r", None).is_err());
        assert_eq!((given.begin(), given.begin()), (Some(Lacking::OfPod), None));
        given = known(&["8"], vec![claimed("a", said(Some("1"), Some("r")))]);
        given.of_claims = None;
        assert_eq!(given.next("r", None), Ok("8".into()));
        assert_eq!(given.begin(), None, "claims are not asked about where a plugin's device serves");
        assert!(given.next("r", None).is_ok() && given.next("r", None).is_err());
        assert_eq!(given.begin(), Some(Lacking::OfClaims));
        given.put_claims(Err("away".into()));
        assert!(given.next("r", None).is_ok());
        assert_eq!(given.next("r", None), Err("away".into()));
    }

    #[test]
    fn why_a_claim_does_not_serve() {
        for (what, why) in [
            (What::Unknown, "no ResourceSlice has: does driver x.com run on this node?"),
            (What::Others, "for administration"),
            (said(Some("1"), None), "says no k8s.cni.cncf.io/resourceName"),
            (said(Some("1"), Some("o")), "says k8s.cni.cncf.io/resourceName \"o\""),
            (said(None, Some("r")), "neither k8s.cni.cncf.io/deviceID nor resource.kubernetes.io/pciBusID"),
        ] {
            let told = known(&[], vec![claimed("a", what)]).next("r", None).unwrap_err();
            for word in [
                "pod \"n/p\"",
                "request \"vf\" of ResourceClaim \"c\"",
                "device \"a\" of pool \"p\"",
                why,
                "; expected ",
            ] {
                assert!(told.contains(word), "{word}: {told}");
            }
        }
        assert!(known(&[], Vec::new()).next("r", None).unwrap_err().contains("resources.claims"));
        let many = vec![claimed("a", said(Some("1"), Some("o"))); 1000];
        let told = known(&[], many).next("r", None).unwrap_err();
        assert!(told.contains("and 996 more") && told.len() < 1500, "{told}");
    }
}
