//! What Multus left about the pods that it made: `<cniDir>/<container>`, its list of delegates, and the CNI library's cache
//! `<cniDir>/results/<network>-<container>-<interface>`, which has each delegate's exact configuration, arguments and result.
//!
//! Guarantees: a file that is not Multus's is left alone; of a delegate that is in the cache the cache is believed, as the list
//! lacks keys of lists' plugins. What is ended is forgotten: nobody else knows of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nsm_cni_types::Version;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::network::{Conflist, Network};

/// What every entry of the cache says of itself.
const KIND: &str = "cniCacheV1";
/// Longest file that is read, in bytes.
const LONGEST: u64 = 4 << 20;

/// A pod that Multus made.
#[derive(Debug, Default)]
pub(crate) struct Pod {
    /// Its networks, in order.
    pub(crate) networks: Vec<Network>,
    /// Their results, by interface.
    pub(crate) results: Map<String, Value>,
    files: Vec<PathBuf>,
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
    cni_args: Option<Vec<[String; 2]>>,
    #[serde(default)]
    capability_args: Option<Map<String, Value>>,
    #[serde(default)]
    result: Option<Value>,
}

/// The pod of a container, if Multus made it. `ifname` is the first network's interface, `version` that of networks without one.
pub(crate) fn pod(cni_dir: &Path, container: &str, ifname: &str, version: Version) -> Option<Pod> {
    let list = cni_dir.join(container);
    let cached = cached(cni_dir, |cached| cached.container_id == container);
    let delegates = read(&list).and_then(|text| serde_json::from_slice::<Vec<Delegate>>(&text).ok());
    let mut pod = Pod::default();
    if let Some(delegates) = delegates {
        pod.files.push(list);
        for (place, delegate) in delegates.into_iter().enumerate() {
            pod.add(delegate, (place, ifname), &cached, version);
        }
    } else {
        // The cache alone tells, the first network first.
        let (first, others): (Vec<_>, Vec<_>) = cached.iter().partition(|(_, cached)| cached.if_name == ifname);
        for (file, cached) in first.into_iter().chain(others) {
            pod.add_cached(cached.network_name.clone(), file, cached, version);
        }
    }
    (!pod.networks.is_empty()).then_some(pod)
}

/// The containers of all pods that Multus made, with the first interface's name where it is known.
pub(crate) fn containers(cni_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(cni_dir).into_iter().flatten().flatten();
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let of_multus = |path: &Path| read(path).is_some_and(|text| serde_json::from_slice::<Vec<Delegate>>(&text).is_ok());
    let files = entries.filter(is_file).filter(|entry| of_multus(&entry.path()));
    let mut all: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    all.extend(cached(cni_dir, |_| true).into_iter().map(|(_, cached)| cached.container_id));
    all.sort();
    all.dedup();
    all
}

impl Pod {
    /// Removes what Multus wrote.
    pub(crate) fn forget(&self) {
        for file in &self.files {
            if let Err(error) = fs::remove_file(file) {
                eprintln!("nsm-cni: {} of Multus stays: {error}", file.display());
            }
        }
    }

    fn add(&mut self, of_list: Delegate, first: (usize, &str), cached: &[(PathBuf, Cached)], version: Version) {
        let own = if of_list.conf.name.is_empty() { of_list.conf_list.name } else { of_list.conf.name };
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
            self.networks.push(Network {
                name,
                ifname,
                args: String::new(),
                capability_args,
                list,
                follows_nothing: false,
            });
        }
    }

    fn add_cached(&mut self, name: String, file: &Path, cached: &Cached, version: Version) {
        let Some(list) = conflist(&cached.config, version) else { return };
        let args = cached.cni_args.iter().flatten().map(|[key, value]| format!("{key}={value}"));
        let ifname = cached.if_name.clone();
        if let Some(result) = cached.result.clone().filter(Value::is_object) {
            self.results.insert(ifname.clone(), result);
        }
        self.networks.push(Network {
            name,
            ifname,
            args: args.collect::<Vec<_>>().join(";"),
            capability_args: cached.capability_args.clone().unwrap_or_default(),
            list,
            follows_nothing: false,
        });
        self.files.push(file.to_owned());
    }
}

fn cached(cni_dir: &Path, wanted: impl Fn(&Cached) -> bool) -> Vec<(PathBuf, Cached)> {
    let entries = fs::read_dir(cni_dir.join("results")).into_iter().flatten().flatten();
    let mut all: Vec<(PathBuf, Cached)> = entries
        .filter_map(|entry| {
            let cached: Cached = serde_json::from_slice(&read(&entry.path())?).ok()?;
            (cached.kind == KIND && wanted(&cached)).then(|| (entry.path(), cached))
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
        assert_eq!(containers(dir.path()), ["c1"]);
        assert!(super::pod(dir.path(), "c2", "eth0", Version::V0_4_0).is_none());
        // The list is lost.
        fs::remove_file(dir.path().join("c1")).unwrap();
        let pod = super::pod(dir.path(), "c1", "eth0", Version::V0_4_0).unwrap();
        assert_eq!((pod.networks.len(), containers(dir.path())), (1, vec!["c1".to_owned()]));
        pod.forget();
        assert!(containers(dir.path()).is_empty());
    }
}
