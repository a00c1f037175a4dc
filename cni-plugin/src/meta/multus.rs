//! What Multus left about the pods that it made: `<cniDir>/<container>`, its list of delegates, and the CNI library's cache
//! `<cniDir>/results/<network>-<container>-<interface>`, which has each delegate's exact configuration, arguments and result.
//!
//! Guarantees: a file that is not Multus's is left alone; of a delegate that is in the cache the cache is believed. Of one that is not,
//! the list has a plugin's whole configuration in one of two places, and of what was asked all but ports and bandwidth. What the cache
//! alone has was attached to a running pod and is the pod's too. What is ended is forgotten: nobody else knows of it; not where a
//! delegate cannot be read, which is told instead. A delegate that is a meta-plugin is never called, as it would call itself.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nsm_cni_types::{Environment, Error, Version, code};
use nsm_npwg::Meta;
use serde::Deserialize;
use serde_json::{Map, Value, json};

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
    #[serde(flatten)]
    asked: Asked,
    /// Of a list's plugins without most of their keys, since 4.2.
    #[serde(rename = "Bytes")]
    bytes: String,
    /// Since 4.2 a list's plugins as ADD got them.
    #[serde(rename = "CNINetworkConfigList")]
    whole: Whole,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
}

/// A list as the CNI library keeps it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Whole {
    #[serde(rename = "CNIVersion")]
    cni_version: String,
    disable_check: bool,
    #[serde(rename = "DisableGC")]
    disable_gc: bool,
    plugins: Option<Vec<Plugin>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Plugin {
    bytes: String,
}

/// What the pod's annotation asked of a delegate.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    #[serde(rename = "macRequest")]
    mac: Option<String>,
    #[serde(rename = "ipRequest")]
    ips: Option<Vec<String>>,
    #[serde(rename = "infinibandGUIDRequest")]
    infiniband_guid: Option<String>,
    #[serde(rename = "deviceID")]
    device_id: Option<String>,
}

/// An entry of the cache.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cached {
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

/// The pod that a call is about, if Multus made it. `version` is that of networks without one.
pub(crate) fn pod(cni_dir: &Path, env: &Environment, version: Version) -> Option<Pod> {
    let container = env.container_id.as_str();
    // Its name has the container's.
    let mut cached = cached(cni_dir, |file| file.contains(container));
    cached.retain(|(_, cached)| cached.container_id == container);
    of(cni_dir, container, Some(env), &cached.iter().collect::<Vec<_>>(), version)
}

/// All pods that Multus made.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    pub(crate) pods: Vec<Pod>,
    /// There is something of Multus that cannot be read, and may be about a pod.
    pub(crate) unread: bool,
}

/// All pods that Multus made.
pub(crate) fn pods(cni_dir: &Path, version: Version) -> Pods {
    let (cached, mut unread) = entries(cni_dir, |_| true);
    let of_it = |container: &str| -> Vec<&(PathBuf, Cached)> {
        cached.iter().filter(|(_, cached)| cached.container_id == container).collect()
    };
    let containers = containers(cni_dir, &cached, &mut unread);
    let pods: Vec<Pod> =
        containers.iter().filter_map(|container| of(cni_dir, container, None, &of_it(container), version)).collect();
    unread |= pods.iter().any(|pod| !pod.unread.is_empty());
    Pods { pods, unread }
}

fn of(
    cni_dir: &Path,
    container: &str,
    env: Option<&Environment>,
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
    let ifname = env.map(|env| env.ifname.as_str()).or_else(cached_first).unwrap_or(FIRST);
    let args = env.map(|env| env.args.as_str()).unwrap_or_default();
    let mut pod = Pod {
        container_id: container.to_owned(),
        ifname: ifname.to_owned(),
        netns: cached.iter().find_map(|(_, cached)| cached.netns.clone()),
        ..Pod::default()
    };
    let mut left = cached.to_vec();
    if let Some(delegates) = delegates {
        pod.files.push(list);
        for (place, delegate) in delegates.into_iter().enumerate() {
            let ifname = delegate.ifname((place, ifname));
            let own = delegate.own_name();
            match left.iter().position(|(_, cached)| cached.if_name == ifname && cached.network_name == own) {
                Some(entry) => {
                    let (file, cached) = left.remove(entry);
                    pod.add_cached(delegate.shown_name(), file, cached, version);
                }
                None => pod.add_listed(&delegate, ifname, args, version),
            }
        }
    }
    // The cache alone tells, the first network first.
    let (first, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, cached)| cached.if_name == ifname);
    for (file, cached) in first.into_iter().chain(others) {
        pod.add_cached(cached.network_name.clone(), file, cached, version);
    }
    (!pod.networks.is_empty() || !pod.unread.is_empty()).then_some(pod)
}

/// The containers of all pods that Multus made.
fn containers(cni_dir: &Path, cached: &[(PathBuf, Cached)], unread: &mut bool) -> Vec<String> {
    let entries = listed(cni_dir, unread);
    let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
    let mut of_multus = |entry: &fs::DirEntry| {
        let is_list = read(&entry.path()).is_some_and(|text| serde_json::from_slice::<Vec<Delegate>>(&text).is_ok());
        // Runtimes name containers so, and others their files otherwise.
        *unread |= !is_list && entry.file_name().to_str().is_some_and(is_id);
        is_list
    };
    let files: Vec<fs::DirEntry> = entries.into_iter().filter(is_file).collect();
    let files = files.into_iter().filter(|entry| of_multus(entry));
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

    /// As the network's status calls it.
    fn shown_name(&self) -> String {
        if self.name.is_empty() { self.own_name().to_owned() } else { self.name.clone() }
    }

    /// The interface of the delegate at that place; the first one's is the pod's.
    fn ifname(&self, (place, first): (usize, &str)) -> String {
        match place {
            _ if !self.ifname.is_empty() => self.ifname.clone(),
            0 => first.to_owned(),
            place => format!("net{place}"),
        }
    }

    /// Its plugins, without the cache.
    fn list(&self, version: Version) -> Option<Conflist> {
        let Some(plugins) = self.whole.plugins.as_ref().filter(|plugins| !plugins.is_empty()) else {
            return conflist(&self.bytes, version);
        };
        let plugins: Option<Vec<Map<String, Value>>> = plugins.iter().map(|plugin| object(&plugin.bytes)).collect();
        let keys = json!({
            "name": self.own_name(), "cniVersion": self.whole.cni_version, "plugins": plugins?,
            "disableCheck": self.whole.disable_check, "disableGC": self.whole.disable_gc,
        });
        Conflist::of(keys.as_object()?.clone(), version)
    }
}

impl Asked {
    /// Capability arguments, and what is added to the call's arguments.
    fn told(&self) -> (Map<String, Value>, Vec<String>) {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (mac, ips) = (text(&self.mac), self.ips.clone().filter(|ips| !ips.is_empty()));
        let mut args: Vec<String> = mac.iter().map(|mac| format!("MAC={mac}")).collect();
        args.extend(ips.iter().map(|ips| format!("IP={}", ips.join(","))));
        let told = [
            ("mac", mac.map(Value::from)),
            ("ips", ips.map(Value::from)),
            ("infinibandGUID", text(&self.infiniband_guid).map(Value::from)),
            ("deviceID", text(&self.device_id).map(Value::from)),
        ];
        (told.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(), args)
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

    fn add_listed(&mut self, delegate: &Delegate, ifname: String, args: &str, version: Version) {
        let name = delegate.shown_name();
        let Some(list) = delegate.list(version) else {
            self.unread.push(format!("network {name:?}"));
            return;
        };
        let (capability_args, more) = delegate.asked.told();
        let args = std::iter::once(args.to_owned()).filter(|args| !args.is_empty()).chain(more);
        let args = args.collect::<Vec<_>>().join(";");
        let note = String::new();
        self.push(Network { name, ifname, args, capability_args, list, follows_nothing: false, note });
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
            note: String::new(),
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
    entries(cni_dir, wanted).0
}

/// The same, and whether there is something else that may be one.
fn entries(cni_dir: &Path, wanted: impl Fn(&str) -> bool) -> (Vec<(PathBuf, Cached)>, bool) {
    let mut unread = false;
    let mut all = Vec::new();
    for entry in listed(&cni_dir.join("results"), &mut unread) {
        if !entry.file_name().to_str().is_some_and(&wanted) {
            continue;
        }
        let found = read(&entry.path()).and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let found = found.filter(|found| found["kind"] == KIND).map(serde_json::from_value::<Cached>);
        match found {
            Some(Ok(cached)) => all.push((entry.path(), cached)),
            Some(Err(_)) | None => unread = true,
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    (all, unread)
}

/// What a folder has. One that is not there has nothing.
fn listed(folder: &Path, unread: &mut bool) -> Vec<fs::DirEntry> {
    match fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
        Ok(entries) => entries,
        Err(error) => {
            *unread |= error.kind() != io::ErrorKind::NotFound;
            Vec::new()
        }
    }
}

/// Whether a file's name is a container's id, as runtimes make them.
fn is_id(name: &str) -> bool {
    name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let found = fs::symlink_metadata(path).ok()?;
    if found.is_file() && found.len() <= LONGEST { fs::read(path).ok() } else { None }
}

/// A configuration as Go programs write bytes.
fn conflist(base64: &str, version: Version) -> Option<Conflist> {
    Conflist::of(object(base64)?, version)
}

fn object(base64: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&STANDARD.decode(base64).ok()?).ok()
}

#[cfg(test)]
mod tests;
