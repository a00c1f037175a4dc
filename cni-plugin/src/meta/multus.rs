//! What Multus left about the pods that it made: `<cniDir>/<container>`, its list of delegates, and the CNI library's cache
//! `<cniDir>/results/<network>-<container>-<interface>`, which has each delegate's exact configuration, arguments and result.
//!
//! Guarantees: a file that is not Multus's is left alone; of a delegate that is in the cache the cache is believed, as the list
//! lacks keys of lists' plugins. What is ended is forgotten: nobody else knows of it; not where a delegate cannot be read, which is told
//! instead. A delegate that is a meta-plugin is never called, as it would call itself.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nsm_cni_types::{Error, Version, code};
use nsm_npwg::Meta;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    network::{Conflist, Network},
    record::is_gone,
};

/// What every entry of the cache says of itself.
const KIND: &str = "cniCacheV1";
/// The first interface of a pod where nothing else is known: what container runtimes call it.
const FIRST: &str = "eth0";
/// Longest file that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// A pod that Multus made.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    pub(crate) container_id: String,
    /// The first network's interface.
    pub(crate) ifname: String,
    /// Its namespace, where the cache has it.
    pub(crate) netns: Option<PathBuf>,
    /// Its networks, in order.
    pub(crate) networks: Vec<Network>,
    /// Their results, by interface.
    pub(crate) results: Map<String, Value>,
    files: Vec<PathBuf>,
    /// Delegates that cannot be read.
    unread: Vec<String>,
}

/// One delegate, as Multus writes it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Delegate {
    #[serde(rename = "Conf")]
    conf: Named,
    #[serde(rename = "ConfList")]
    conf_list: Named,
    #[serde(rename = "Name")]
    name: String,
    #[serde(rename = "ifnameRequest")]
    ifname: String,
    #[serde(rename = "Bytes")]
    bytes: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// An entry of the cache.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
    kind: String,
    container_id: String,
    config: String,
    if_name: String,
    network_name: String,
    #[serde(default)]
    netns: Option<PathBuf>,
    #[serde(default)]
    cni_args: Option<Vec<[String; 2]>>,
    #[serde(default)]
    capability_args: Option<Map<String, Value>>,
    #[serde(default)]
    result: Option<Value>,
}

/// The pod of a container, if Multus made it. `ifname` is the first network's interface, `version` that of networks without one.
pub(crate) fn pod(cni_dir: &Path, container: &str, ifname: &str, version: Version) -> Option<Pod> {
    // Its name has the container's.
    let mut cached = cached(cni_dir, |file| file.contains(container));
    cached.retain(|(_, cached)| cached.container_id == container);
    of(cni_dir, container, Some(ifname), &cached.iter().collect::<Vec<_>>(), version)
}

/// All pods that Multus made.
pub(crate) fn pods(cni_dir: &Path, version: Version) -> Vec<Pod> {
    let cached = cached(cni_dir, |_| true);
    let of_it = |container: &str| -> Vec<&(PathBuf, Cached)> {
        cached.iter().filter(|(_, cached)| cached.container_id == container).collect()
    };
    let containers = containers(cni_dir, &cached);
    containers.iter().filter_map(|container| of(cni_dir, container, None, &of_it(container), version)).collect()
}

fn of(
    cni_dir: &Path,
    container: &str,
    ifname: Option<&str>,
    cached: &[&(PathBuf, Cached)],
    version: Version,
) -> Option<Pod> {
    let list = cni_dir.join(container);
    let delegates = read(&list).and_then(|text| serde_json::from_slice::<Vec<Delegate>>(&text).ok());
    let first = delegates.as_ref().and_then(|delegates| delegates.first()).map(Delegate::own_name);
    let cached_first = || {
        let of_first = cached.iter().map(|(_, cached)| cached).filter(|one| Some(&*one.network_name) == first);
        of_first.map(|one| one.if_name.as_str()).find(|name| !name.starts_with("net"))
    };
    let ifname = ifname.or_else(cached_first).unwrap_or(FIRST);
    let mut pod = Pod {
        container_id: container.to_owned(),
        ifname: ifname.to_owned(),
        netns: cached.iter().find_map(|(_, cached)| cached.netns.clone()),
        ..Pod::default()
    };
    if let Some(delegates) = delegates {
        pod.files.push(list);
        for (place, delegate) in delegates.into_iter().enumerate() {
            pod.add(delegate, (place, ifname), cached, version);
        }
    } else {
        // The cache alone tells, the first network first.
        let (first, others): (Vec<_>, Vec<_>) =
            cached.iter().copied().partition(|(_, cached)| cached.if_name == ifname);
        for (file, cached) in first.into_iter().chain(others) {
            pod.add_cached(cached.network_name.clone(), file, cached, version);
        }
    }
    (!pod.networks.is_empty() || !pod.unread.is_empty()).then_some(pod)
}

/// The containers of all pods that Multus made.
fn containers(cni_dir: &Path, cached: &[(PathBuf, Cached)]) -> Vec<String> {
    let entries = fs::read_dir(cni_dir).into_iter().flatten().flatten();
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let of_multus = |path: &Path| read(path).is_some_and(|text| serde_json::from_slice::<Vec<Delegate>>(&text).is_ok());
    let files = entries.filter(is_file).filter(|entry| of_multus(&entry.path()));
    let mut all: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    all.extend(cached.iter().map(|(_, cached)| cached.container_id.clone()));
    all.sort();
    all.dedup();
    all
}

impl Delegate {
    /// Its configuration's name.
    fn own_name(&self) -> &str {
        if self.conf.name.is_empty() { &self.conf_list.name } else { &self.conf.name }
    }
}

impl Pod {
    /// Whether its namespace is gone for certain.
    pub(crate) fn has_lost_its_namespace(&self) -> bool {
        self.netns.as_deref().is_some_and(is_gone)
    }

    /// Removes what Multus wrote, once all of it is ended.
    ///
    /// # Errors
    /// A delegate cannot be read, and was not ended.
    pub(crate) fn forget(&self) -> Result<(), Error> {
        if !self.unread.is_empty() {
            let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
            let msg = format!(
                "container {}, which Multus made: {} cannot be read and may hold addresses: see {}, and remove that file when it holds none",
                self.container_id,
                self.unread.join(", "),
                files.join(", ")
            );
            return Err(Error::new(code::DECODING, msg));
        }
        for file in &self.files {
            if let Err(error) = fs::remove_file(file) {
                eprintln!("nsm-cni: {} of Multus stays: {error}", file.display());
            }
        }
        Ok(())
    }

    fn add(&mut self, of_list: Delegate, first: (usize, &str), cached: &[&(PathBuf, Cached)], version: Version) {
        let own = of_list.own_name().to_owned();
        let ifname = match first {
            _ if !of_list.ifname.is_empty() => of_list.ifname,
            (0, ifname) => ifname.to_owned(),
            (place, _) => format!("net{place}"),
        };
        let name = if of_list.name.is_empty() { own.clone() } else { of_list.name };
        let entry = cached.iter().find(|(_, cached)| cached.if_name == ifname && cached.network_name == own);
        if let Some((file, cached)) = entry {
            self.add_cached(name, file, cached, version);
        } else if let Some(list) = conflist(&of_list.bytes, version) {
            let capability_args = Map::new();
            self.push(Network { name, ifname, args: String::new(), capability_args, list, follows_nothing: false });
        } else {
            self.unread.push(format!("network {name:?}"));
        }
    }

    /// Adds what can be ended; false: it cannot.
    fn push(&mut self, network: Network) -> bool {
        if network.list.plugins.iter().any(Meta::is) {
            eprintln!("nsm-cni: network {:?}, which Multus made, is a meta-plugin's and is not called", network.name);
            return false;
        }
        self.networks.push(network);
        true
    }

    fn add_cached(&mut self, name: String, file: &Path, cached: &Cached, version: Version) {
        let Some(list) = conflist(&cached.config, version) else {
            self.files.push(file.to_owned());
            self.unread.push(format!("network {name:?}"));
            return;
        };
        let args = cached.cni_args.iter().flatten().map(|[key, value]| format!("{key}={value}"));
        let ifname = cached.if_name.clone();
        let is_ours = self.push(Network {
            name,
            ifname: ifname.clone(),
            args: args.collect::<Vec<_>>().join(";"),
            capability_args: cached.capability_args.clone().unwrap_or_default(),
            list,
            follows_nothing: false,
        });
        // The file of another is its own.
        if is_ours {
            self.files.push(file.to_owned());
            if let Some(result) = cached.result.clone().filter(Value::is_object) {
                self.results.insert(ifname, result);
            }
        }
    }
}

/// The entries of the cache whose file's name is wanted.
fn cached(cni_dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<(PathBuf, Cached)> {
    let entries = fs::read_dir(cni_dir.join("results")).into_iter().flatten().flatten();
    let mut all: Vec<(PathBuf, Cached)> = entries
        .filter_map(|entry| {
            entry.file_name().to_str().filter(|name| wanted(name))?;
            let cached: Cached = serde_json::from_slice(&read(&entry.path())?).ok()?;
            (cached.kind == KIND).then(|| (entry.path(), cached))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let found = fs::symlink_metadata(path).ok()?;
    if found.is_file() && found.len() <= LONGEST { fs::read(path).ok() } else { None }
}

/// A configuration as Go programs write bytes.
fn conflist(base64: &str, version: Version) -> Option<Conflist> {
    let keys: Map<String, Value> = serde_json::from_slice(&STANDARD.decode(base64).ok()?).ok()?;
    Conflist::of(keys, version)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn bytes(json: &Value) -> String {
        STANDARD.encode(json.to_string())
    }

    #[test]
    fn the_cache_is_believed_and_the_list_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let list = json!([
            {"Conf": {"name": "", "type": ""}, "ConfList": {"name": "a"}, "Name": "a",
             "Bytes": bytes(&json!({"name": "a", "plugins": [{"type": "ptp"}]}))},
            {"Conf": {"name": "b", "type": "bridge"}, "ConfList": {}, "Name": "team/b", "ifnameRequest": "x0",
             "Bytes": bytes(&json!({"cniVersion": "0.3.1", "name": "b", "type": "bridge"}))},
            {"Conf": {"name": "b", "type": "bridge"}, "Name": "team/b",
             "Bytes": bytes(&json!({"name": "b", "type": "bridge"}))},
        ]);
        fs::write(dir.path().join("c1"), list.to_string()).unwrap();
        fs::write(dir.path().join("other"), "no JSON").unwrap();
        fs::create_dir(dir.path().join("results")).unwrap();
        let whole =
            json!({"cniVersion": "1.0.0", "name": "a", "plugins": [{"type": "ptp", "ipam": {"type": "host-local"}}]});
        let cached = json!({"kind": KIND, "containerId": "c1", "config": bytes(&whole), "ifName": "eth0", "networkName": "a",
            "cniArgs": [["IgnoreUnknown", "true"], ["K8S_POD_NAME", "p"]], "capabilityArgs": {"mac": "x"}, "result": {"ips": []}});
        fs::write(dir.path().join("results/a-c1-eth0"), cached.to_string()).unwrap();
        let pod = pod(dir.path(), "c1", "eth0", Version::V0_4_0).unwrap();
        let told: Vec<_> = pod.networks.iter().map(|one| (one.name.as_str(), one.ifname.as_str())).collect();
        assert_eq!(told, [("a", "eth0"), ("team/b", "x0"), ("team/b", "net2")]);
        let versions: Vec<_> = pod.networks.iter().map(|one| one.list.cni_version.as_str()).collect();
        assert_eq!(versions, ["1.0.0", "0.3.1", "0.4.0"]);
        assert_eq!(pod.networks[0].list.plugins[0]["ipam"]["type"], "host-local");
        assert_eq!(pod.networks[0].args, "IgnoreUnknown=true;K8S_POD_NAME=p");
        assert_eq!(pod.results["eth0"], json!({"ips": []}));
        assert_eq!(known(dir.path()), ["c1"]);
        assert!(super::pod(dir.path(), "c2", "eth0", Version::V0_4_0).is_none());
        // The list is lost.
        fs::remove_file(dir.path().join("c1")).unwrap();
        let pod = super::pod(dir.path(), "c1", "eth0", Version::V0_4_0).unwrap();
        assert_eq!((pod.networks.len(), known(dir.path())), (1, vec!["c1".to_owned()]));
        pod.forget().unwrap();
        assert!(known(dir.path()).is_empty());
    }

    fn known(cni_dir: &Path) -> Vec<String> {
        pods(cni_dir, Version::V0_4_0).into_iter().map(|pod| pod.container_id).collect()
    }

    #[test]
    fn what_cannot_be_read_is_not_forgotten_and_what_would_call_itself_not_called() {
        let dir = tempfile::tempdir().unwrap();
        let list = json!([
            {"Conf": {"name": "a", "type": "ptp"}, "Bytes": bytes(&json!({"name": "a", "type": "ptp"}))},
            {"Conf": {"name": "m", "type": "multus"}, "Bytes": bytes(&json!({"name": "m", "type": "multus"}))},
            {"Conf": {"name": "b", "type": "bridge"}, "Bytes": "no base64"},
        ]);
        fs::write(dir.path().join("c1"), list.to_string()).unwrap();
        let pod = pod(dir.path(), "c1", "eth0", Version::V0_4_0).unwrap();
        assert_eq!(pod.networks.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["a"]);
        let error = pod.forget().unwrap_err();
        assert!(error.msg.contains("network \"b\" cannot be read"), "{}", error.msg);
        assert_eq!(known(dir.path()), ["c1"]);
        assert!(!pod.has_lost_its_namespace(), "nothing says where it was");
    }

    #[test]
    fn the_cache_says_which_interface_is_the_first_and_where_the_namespace_was() {
        let dir = tempfile::tempdir().unwrap();
        let conf = bytes(&json!({"name": "a", "type": "ptp"}));
        let list = json!([{"Conf": {"name": "a", "type": "ptp"}, "Bytes": conf}]);
        fs::write(dir.path().join("c1"), list.to_string()).unwrap();
        fs::create_dir(dir.path().join("results")).unwrap();
        let netns = dir.path().join("netns");
        let cached = json!({"kind": KIND, "containerId": "c1", "config": conf, "ifName": "ens3", "networkName": "a", "netns": netns});
        fs::write(dir.path().join("results/a-c1-ens3"), cached.to_string()).unwrap();
        let all = pods(dir.path(), Version::V0_4_0);
        assert_eq!((all.len(), all[0].ifname.as_str()), (1, "ens3"));
        assert!(all[0].has_lost_its_namespace());
        fs::write(&netns, "").unwrap();
        assert!(!all[0].has_lost_its_namespace());
    }
}
