//! What plugin and agent tell each other about pods on the host: annotations, the record of a sandbox, the namespaces that ask.
//!
//! Guarantees: names of files are functions of what they are about, the same for plugin and agent in all versions; a record of
//! a newer format is not read.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Attachment, Error, code};

/// The annotation of NSM v1: `kernel://service/interface?label=value`, separated by commas.
pub const ANNOTATION: &str = "networkservicemesh.io";
/// The annotation of 2019: `service?label=value`, separated by commas.
pub const ANNOTATION_2019: &str = "ns.networkservicemesh.io";
/// The label by which network services of one pod are a group whose endpoints may give it the same addresses and routes.
pub const AWARENESS_GROUP: &str = "awarenessGroup";
/// What became of what a pod asks for, as the agent writes it on the pod.
pub const STATUS: &str = "networkservicemesh.io/status";
/// The interfaces of a pod, as all CNI meta-plugins write them on the pod.
pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";
/// Begins the names of the agent's entries in [`NETWORK_STATUS`]; the service's name follows.
pub const NETWORK_STATUS_PREFIX: &str = "networkservicemesh.io/";
/// The capability by which a runtime passes the pod's annotations.
pub const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

/// Newest format of a [`PodRecord`] that this version reads and the one that it writes.
const FORMAT: u32 = 1;

/// The annotations that ask for network services, as somebody wrote them. Blank ones ask for nothing and are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotations {
    /// [`ANNOTATION`].
    #[serde(rename = "networkservicemesh.io", default, skip_serializing_if = "Option::is_none")]
    pub services: Option<String>,
    /// [`ANNOTATION_2019`].
    #[serde(rename = "ns.networkservicemesh.io", default, skip_serializing_if = "Option::is_none")]
    pub services_2019: Option<String>,
}

impl Annotations {
    /// Those that `get` finds.
    pub fn of<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |key: &str| get(key).filter(|text| !text.trim().is_empty()).map(str::to_owned);
        Self { services: text(ANNOTATION), services_2019: text(ANNOTATION_2019) }
    }

    /// Whether they ask for nothing.
    pub fn is_empty(&self) -> bool {
        self.services.is_none() && self.services_2019.is_none()
    }
}

/// A pod's sandbox as its ADD saw it, left for its DEL and for the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own in the file")]
pub struct PodRecord {
    format: u32,
    /// CNI_CONTAINERID.
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
    /// `name` of the network configuration.
    pub network: String,
    /// CNI_NETNS.
    pub netns: PathBuf,
    /// K8S_POD_NAME.
    #[serde(default)]
    pub pod_name: String,
    /// K8S_POD_NAMESPACE.
    #[serde(default)]
    pub pod_namespace: String,
    /// K8S_POD_UID.
    #[serde(default)]
    pub pod_uid: String,
    /// Whether the agent has, or may have, something to end with the pod.
    pub asked: bool,
    /// What the pod's namespace asks for was not known at its ADD, as far as the plugin could see.
    #[serde(default)]
    pub namespace_unknown: bool,
    /// Interfaces that other plugins made.
    #[serde(default)]
    pub taken: Vec<String>,
    /// `allowDefaultRoute`.
    #[serde(default)]
    pub allow_default_route: bool,
    /// `allowRouteOverlap`.
    #[serde(default)]
    pub allow_route_overlap: bool,
    /// How the meta-plugin was called for the pod, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub meta: Option<MetaCall>,
    /// What the meta-plugin has made for a pod that the agent was not asked about, for the pod's status.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<MadeNetwork>,
}

/// A network of a pod, as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MadeNetwork {
    /// As the status names it.
    pub name: String,
    /// CNI_IFNAME of its plugins.
    pub ifname: String,
    /// Their result, in the network's own version.
    pub result: Value,
    /// Whether it is the pod's default network.
    #[serde(default)]
    pub default: bool,
    /// What the device's file says, in JSON; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device_info: String,
    /// The agent's own word on it, as its plan had it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How the meta-plugin was called for a pod: with that the agent has it called again for a pod that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MetaCall {
    /// Its configuration, in JSON, without `prevResult` and `runtimeConfig`.
    pub configuration: String,
    /// CNI_PATH.
    pub cni_path: String,
    /// CNI_ARGS.
    pub cni_args: String,
    /// The path of its program on the host.
    pub plugin: PathBuf,
}

impl PodRecord {
    /// The record of a sandbox of which nothing but this is known.
    pub fn new(sandbox: Attachment, network: String, netns: PathBuf) -> Self {
        Self {
            format: FORMAT,
            container_id: sandbox.container_id,
            ifname: sandbox.ifname,
            network,
            netns,
            pod_name: String::new(),
            pod_namespace: String::new(),
            pod_uid: String::new(),
            asked: false,
            namespace_unknown: false,
            taken: Vec::new(),
            allow_default_route: false,
            allow_route_overlap: false,
            meta: None,
            networks: Vec::new(),
        }
    }

    /// Reads a record.
    ///
    /// # Errors
    /// Code 6: no record, or one of a newer format.
    pub fn parse(text: &[u8]) -> Result<Self, Error> {
        let decoding = |why: String| Error::new(code::DECODING, format!("record of a sandbox: {why}"));
        let value: Value = serde_json::from_slice(text).map_err(|error| decoding(error.to_string()))?;
        if let Some(format) = value["format"].as_u64().filter(|format| *format > u64::from(FORMAT)) {
            return Err(decoding(format!("format {format}, this version knows up to {FORMAT}")));
        }
        serde_json::from_value(value).map_err(|error| decoding(error.to_string()))
    }

    /// As it is written.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists: nothing that JSON cannot say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it is about this sandbox.
    pub fn is_of(&self, container_id: &str, ifname: &str) -> bool {
        self.container_id == container_id && self.ifname == ifname
    }
}

/// Where the records of sandboxes are.
pub fn folder(socket: &Path) -> PathBuf {
    beside(socket, ".pods")
}

/// Where the agent says which namespaces' annotations ask: a file for each, [`Annotations`] as JSON.
pub fn namespaces_folder(socket: &Path) -> PathBuf {
    beside(socket, ".namespaces")
}

/// A file there that says: these are all of them. Without it a namespace that has no file is one of which nothing is known.
pub const COMPLETE: &str = ".complete";

/// The name of the record of a sandbox, by its network namespace.
pub fn file_name(dev: u64, ino: u64) -> String {
    format!("{dev}-{ino}")
}

/// The name of a link to the record, which says that the agent has something to end with the pod whatever the record says.
pub fn mark_name(dev: u64, ino: u64) -> String {
    format!("{dev}-{ino}.attached")
}

/// The network namespace of a record, told from its file's name.
pub fn of_file_name(name: &str) -> Option<(u64, u64)> {
    let (dev, ino) = name.split_once('-')?;
    let (dev, ino) = (dev.parse().ok()?, ino.parse().ok()?);
    (file_name(dev, ino) == name).then_some((dev, ino))
}

/// The name of a namespace's file; none for what cannot be a namespace's name.
pub fn namespace_file(namespace: &str) -> Option<&str> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    ((1..=63).contains(&namespace.len()) && namespace.chars().all(plain)).then_some(namespace)
}

fn beside(socket: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(suffix);
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let sandbox = Attachment { container_id: "c".into(), ifname: "eth0".into() };
        let mut record = PodRecord::new(sandbox, "n".into(), "/run/netns/x".into());
        record.asked = true;
        record.pod_uid = "u".into();
        let result = serde_json::json!({"cniVersion": "1.0.0", "ips": []});
        let (name, ifname, note) = ("n".into(), "eth0".into(), "mine".into());
        record.networks = vec![MadeNetwork { name, ifname, result, default: true, device_info: String::new(), note }];
        assert_eq!(PodRecord::parse(record.to_json().as_bytes()), Ok(record.clone()));
        assert!(record.is_of("c", "eth0") && !record.is_of("c", "eth1"));
        let newer = record.to_json().replace("\"format\":1", "\"format\":2");
        assert!(PodRecord::parse(newer.as_bytes()).unwrap_err().msg.contains("format 2, this version knows up to 1"));
        assert_eq!(PodRecord::parse(b"{}").unwrap_err().code, code::DECODING);
    }

    #[test]
    fn a_file_says_whose_it_is() {
        assert_eq!(of_file_name(&file_name(4, 4_026_531_840)), Some((4, 4_026_531_840)));
        for other in ["4-", ".4-5.7.tmp", &mark_name(4, 5), "+4-5", "04-5", "x"] {
            assert_eq!(of_file_name(other), None, "{other}");
        }
        assert_eq!(namespace_file("kube-system"), Some("kube-system"));
        for other in ["", "..", "a/b", "A"] {
            assert_eq!(namespace_file(other), None, "{other}");
        }
    }

    #[test]
    fn a_blank_annotation_asks_for_nothing() {
        assert!(Annotations::of(|_| Some(" ")).is_empty());
        let asked = Annotations::of(|key| (key == ANNOTATION_2019).then_some("svc"));
        assert_eq!((asked.services, asked.services_2019.as_deref()), (None, Some("svc")));
    }
}
