//! The node's pods and all namespaces as they were last seen: of each what decides, the rest is dropped when it is read.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use nsm_cni_types::pods::{Annotations, NETWORK_STATUS, STATUS};

use crate::{annotations::LONGEST, processes::PodUid, state::Pod};

/// Longest text of a status that is compared with what is to be there, in bytes: another one is not what this agent wrote.
const LONGEST_STATUS: usize = 128 << 10;
/// What runtimes know a static pod by, instead of its uid.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// What the kubelet marks the object of a static pod with. Nobody can add it to an object that there is.
const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Where a pod is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: Arc<str>,
    pub(super) name: Arc<str>,
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) uid: Box<str>,
    /// What a runtime calls the uid of a static pod.
    pub(super) hash: Option<Box<str>>,
    /// The object's version.
    pub(super) version: Box<str>,
    pub(super) annotations: Annotations,
    /// Those that select networks.
    pub(super) networks: nsm_npwg::Annotations,
    pub(super) status: Option<Box<str>>,
    pub(super) network_status: Option<Box<str>>,
    pub(super) host_network: bool,
    /// It is being deleted, or all its containers have ended for good.
    pub(super) ending: bool,
}

/// What annotations ask for, of a pod or a namespace, cut where it is too long to be followed.
pub(super) fn asked<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Annotations {
    Annotations::of(|key| get(key).map(|text| cut(text, LONGEST)))
}

/// One byte more than is allowed shows that there is more; a text of several values cut there is none of them.
fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest + 4)]
}

impl Found {
    /// With what the annotations say, as far as it is read.
    pub(super) fn annotated<'a>(self, get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |key: &str| get(key).map(|text| cut(text, LONGEST_STATUS).into());
        Self {
            annotations: asked(&get),
            networks: nsm_npwg::Annotations::of(|key| get(key).map(|text| cut(text, nsm_npwg::LONGEST))),
            status: text(STATUS),
            network_status: text(NETWORK_STATUS),
            // Anybody may write a hash on a pod of their own.
            hash: get(CONFIG_HASH).filter(|hash| !hash.is_empty() && get(CONFIG_MIRROR).is_some()).map(Into::into),
            ..self
        }
    }

    /// Versions of one object are numbers that grow.
    fn is_older_than(&self, other: &Self) -> bool {
        let number = |found: &Self| found.version.parse::<u64>().ok();
        self.uid == other.uid && matches!((number(self), number(other)), (Some(one), Some(other)) if one < other)
    }

    /// Whether a runtime means this pod: by its name, and by its uid or what it knows a static pod by. Names are given once,
    /// so that no annotation of another pod makes it this one.
    pub(super) fn is(&self, pod: &Pod) -> bool {
        let uid = &*pod.uid;
        *self.key.namespace == *pod.namespace
            && *self.key.name == *pod.name
            && !uid.is_empty()
            && (uid == &*self.uid || self.hash.as_deref() == Some(uid))
    }

    /// The same for a runtime that says no uid: the name must do.
    pub(super) fn may_be(&self, pod: &Pod) -> bool {
        let named = *self.key.namespace == *pod.namespace && *self.key.name == *pod.name;
        self.is(pod) || (named && pod.uid.is_empty())
    }
}

/// Namespaces that ask for something, and for what.
pub(super) type Asking = BTreeMap<Arc<str>, Annotations>;

/// What was seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pods: HashMap<Key, Arc<Found>>,
    namespaces: HashMap<Arc<str>, Annotations>,
    /// While a list is read: what it had.
    listed_pods: Option<HashSet<Key>>,
    listed_namespaces: Option<HashSet<Arc<str>>>,
    /// Whether all pods, and all namespaces, have been read once.
    pub(super) read: Read,
}

/// Which lists have been read once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) pods: bool,
    pub(super) namespaces: bool,
}

impl Seen {
    /// A list of pods begins: what it does not have is gone.
    pub(super) fn begin_pods(&mut self) {
        self.listed_pods = Some(HashSet::new());
    }

    /// The list has ended. Answers what was not in it.
    pub(super) fn end_pods(&mut self) -> Vec<Key> {
        self.read.pods = true;
        let listed = self.listed_pods.take().unwrap_or_default();
        let gone: Vec<Key> = self.pods.keys().filter(|key| !listed.contains(key)).cloned().collect();
        self.pods.retain(|key, _| listed.contains(key));
        gone
    }

    /// A pod as it is now; what is older than what is known changes nothing.
    pub(super) fn put_pod(&mut self, found: Found) {
        if let Some(listed) = &mut self.listed_pods {
            listed.insert(found.key.clone());
        }
        if !self.pods.get(&found.key).is_some_and(|known| found.is_older_than(known)) {
            self.pods.insert(found.key.clone(), Arc::new(found));
        }
    }

    /// An answer about a pod: it counts while the pod is there.
    pub(super) fn renew_pod(&mut self, found: Found) {
        let newer = |known: &Arc<Found>| known.uid == found.uid && !found.is_older_than(known);
        if self.pods.get(&found.key).is_some_and(newer) {
            self.pods.insert(found.key.clone(), Arc::new(found));
        }
    }

    /// A pod of that identity is gone.
    pub(super) fn remove_pod(&mut self, key: &Key, uid: &str) {
        if self.pods.get(key).is_some_and(|found| &*found.uid == uid) {
            self.pods.remove(key);
        }
    }

    /// The pod there.
    pub(super) fn pod(&self, key: &Key) -> Option<&Arc<Found>> {
        self.pods.get(key)
    }

    /// The pod that a kubelet knows by this uid. What a static pod is known by, others could claim with a copy of its annotations:
    /// of two that do, none is it.
    pub(super) fn known_by(&self, uid: PodUid) -> Option<&Arc<Found>> {
        let is = |text: &str| text.parse() == Ok(uid);
        self.pods().find(|found| is(&found.uid)).or_else(|| {
            let mut fixed = self.pods().filter(|found| found.hash.as_deref().is_some_and(is));
            fixed.next().filter(|_| fixed.next().is_none())
        })
    }

    /// All pods.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<Found>> {
        self.pods.values()
    }

    /// A list of namespaces begins: what it does not have is gone.
    pub(super) fn begin_namespaces(&mut self) {
        self.listed_namespaces = Some(HashSet::new());
    }

    /// The list has ended.
    pub(super) fn end_namespaces(&mut self) {
        self.read.namespaces = true;
        let listed = self.listed_namespaces.take().unwrap_or_default();
        self.namespaces.retain(|name, _| listed.contains(name));
    }

    /// A namespace as it is now.
    pub(super) fn put_namespace(&mut self, name: Arc<str>, annotations: Annotations) {
        if let Some(listed) = &mut self.listed_namespaces {
            listed.insert(name.clone());
        }
        self.namespaces.insert(name, annotations);
    }

    /// A namespace is gone.
    pub(super) fn remove_namespace(&mut self, name: &str) {
        self.namespaces.remove(name);
    }

    /// What a namespace asks for.
    pub(super) fn namespace(&self, name: &str) -> Option<&Annotations> {
        self.namespaces.get(name)
    }

    /// The namespaces that ask for something; none before all have been read.
    pub(super) fn asking(&self) -> Option<Asking> {
        let asking = self.namespaces.iter().filter(|(_, annotations)| !annotations.is_empty());
        self.read.namespaces.then(|| asking.map(|(name, asked)| (name.clone(), asked.clone())).collect())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::pods) fn found(name: &str, uid: &str) -> Found {
        Found {
            key: Key { namespace: "default".into(), name: name.into() },
            uid: uid.into(),
            hash: None,
            version: "1".into(),
            annotations: Annotations::default(),
            networks: nsm_npwg::Annotations::default(),
            status: None,
            network_status: None,
            host_network: false,
            ending: false,
        }
    }

    fn of_runtime(name: &str, uid: &str) -> Pod {
        Pod { name: name.into(), namespace: "default".into(), uid: uid.into() }
    }

    #[test]
    fn a_static_pod_is_known_by_its_hash_too() {
        let asks = (nsm_cni_types::pods::ANNOTATION, "kernel://s");
        let of = |annotations: &[(&str, &'static str)]| {
            let all: HashMap<&str, &str> = annotations.iter().copied().collect();
            found("p", "u").annotated(|key| all.get(key).copied())
        };
        let pod = of(&[(CONFIG_HASH, "abc"), (CONFIG_MIRROR, "abc"), asks]);
        assert!(pod.is(&of_runtime("p", "u")) && pod.is(&of_runtime("p", "abc")) && !pod.is(&of_runtime("p", "v")));
        assert_eq!(pod.annotations.services.as_deref(), Some("kernel://s"));
        // A hash that no kubelet wrote, and one that is none.
        assert!(!of(&[(CONFIG_HASH, "abc")]).is(&of_runtime("p", "abc")));
        assert!(!of(&[(CONFIG_HASH, ""), (CONFIG_MIRROR, "")]).is(&of_runtime("p", "")));
    }

    #[test]
    fn a_hash_makes_no_pod_another_one() {
        let all = HashMap::from([(CONFIG_HASH, "victims-uid"), (CONFIG_MIRROR, "x")]);
        let thief = found("thief", "u").annotated(|key| all.get(key).copied());
        assert!(!thief.is(&of_runtime("victim", "victims-uid")));
        assert!(!thief.is(&Pod { namespace: "other".into(), ..of_runtime("thief", "u") }));
        assert!(!thief.is(&of_runtime("thief", "")) && thief.may_be(&of_runtime("thief", "")));
        assert!(!thief.may_be(&of_runtime("victim", "")));
    }

    #[test]
    fn a_uid_is_one_pods_and_a_hash_that_two_claim_nobodys() {
        let (uid, hash) = ("11111111-2222-3333-4444-555555555555", "d8f7a1b2c3d4e5f60718293a4b5c6d7e");
        let mut seen = Seen::default();
        let known = |seen: &Seen, by: &str| seen.known_by(by.parse().unwrap()).map(|found| found.key.name.to_string());
        seen.put_pod(found("own", uid));
        let fixed = |name: &str, of: &str| Found { hash: Some(hash.into()), ..found(name, of) };
        seen.put_pod(fixed("fixed", "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"));
        seen.put_pod(Found { hash: Some(uid.into()), ..found("thief", "x") });
        assert_eq!(known(&seen, uid).as_deref(), Some("own"));
        assert_eq!(known(&seen, hash).as_deref(), Some("fixed"));
        seen.put_pod(fixed("copy", "y"));
        assert_eq!((known(&seen, hash), known(&seen, &"1".repeat(32))), (None, None));
    }

    #[test]
    fn what_is_late_changes_nothing() {
        let mut seen = Seen::default();
        let of = |uid: &str, version: &str| Found { version: version.into(), ..found("a", uid) };
        seen.put_pod(of("1", "10"));
        seen.put_pod(of("1", "9"));
        assert_eq!(&*seen.pod(&found("a", "1").key).unwrap().version, "10");
        seen.put_pod(of("2", "9"));
        assert_eq!(&*seen.pod(&found("a", "1").key).unwrap().uid, "2");
    }

    #[test]
    fn an_answer_makes_no_pod() {
        let mut seen = Seen::default();
        let of = |uid: &str, version: &str| Found { version: version.into(), ..found("a", uid) };
        let key = found("a", "1").key;
        seen.renew_pod(of("1", "10"));
        assert!(seen.pod(&key).is_none());
        seen.put_pod(of("2", "11"));
        seen.renew_pod(of("1", "12"));
        seen.renew_pod(of("2", "10"));
        assert_eq!((&*seen.pod(&key).unwrap().uid, &*seen.pod(&key).unwrap().version), ("2", "11"));
        seen.renew_pod(of("2", "12"));
        assert_eq!(&*seen.pod(&key).unwrap().version, "12");
    }

    #[test]
    fn no_more_is_kept_than_is_read() {
        let long = "é".repeat(1 << 20);
        let pod = found("p", "u").annotated(|_| Some(&long));
        let kept = pod.annotations.services.as_deref().unwrap().len();
        assert!(kept > LONGEST && kept < LONGEST + 8, "{kept}");
        assert!(pod.network_status.unwrap().len() < LONGEST_STATUS + 8);
    }

    #[test]
    fn what_a_list_lacks_is_gone() {
        let mut seen = Seen::default();
        seen.put_pod(found("a", "1"));
        seen.begin_pods();
        seen.put_pod(found("b", "2"));
        assert_eq!(seen.end_pods(), [found("a", "1").key]);
        seen.remove_pod(&found("b", "2").key, "another");
        assert!(seen.pod(&found("b", "2").key).is_some());
        let asks = Annotations { services: Some("kernel://s".into()), services_2019: None };
        seen.put_namespace("x".into(), asks.clone());
        assert_eq!(seen.asking(), None, "not all have been read");
        seen.begin_namespaces();
        seen.put_namespace("y".into(), asks.clone());
        seen.put_namespace("z".into(), Annotations::default());
        seen.end_namespaces();
        assert_eq!(seen.asking(), Some(BTreeMap::from([("y".into(), asks)])));
    }
}
