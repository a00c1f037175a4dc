//! The meta-plugin: several networks of a pod by other plugins, without a cluster.

mod agents;
mod alone;
mod delegates;
mod endings;
mod failures;
mod hanging;
mod reference;
mod routes;
mod running;
mod services;
mod vectors;
mod whole;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use nsm_lab::{Call, Node, Outcome, Pod, runner};
use serde_json::{Value, json};

pub(crate) use agents::*;
pub(crate) use alone::*;
pub(crate) use delegates::*;
pub(crate) use endings::*;
pub(crate) use failures::*;
pub(crate) use hanging::*;
pub(crate) use reference::*;
pub(crate) use routes::*;
pub(crate) use running::*;
pub(crate) use services::*;
pub(crate) use vectors::*;
pub(crate) use whole::*;

/// Where the plugins of the CNI project are: where they were built for the tests, if they were, else where a distribution has them.
fn bin_dir() -> anyhow::Result<PathBuf> {
    let plugins = ["ptp", "bridge", "host-local", "tuning", "macvlan"];
    let missing = |folder: &PathBuf| plugins.into_iter().filter(|plugin| !folder.join(plugin).is_file()).collect();
    if let Some(tools) = std::env::var_os("NSM_LAB_TOOLS").map(PathBuf::from) {
        let missing: Vec<&str> = missing(&tools);
        ensure!(
            missing.is_empty(),
            "NSM_LAB_TOOLS: {} lacks {}: `cargo xtask test lab` builds them",
            tools.display(),
            missing.join(", ")
        );
        return Ok(tools);
    }
    let mut complete = ["/usr/lib/cni", "/opt/cni/bin"].map(PathBuf::from).into_iter().filter(|folder| {
        let missing: Vec<&str> = missing(folder);
        missing.is_empty()
    });
    complete.next().ok_or_else(|| {
        runner::Skip(format!(
            "{} are nowhere: `cargo xtask test lab` builds them, containernetworking-plugins brings them",
            plugins.join(", ")
        ))
        .into()
    })
}

/// A pod whose runtime runs the meta-plugin.
struct Sandbox<'a> {
    node: &'a Node,
    pod: &'a Pod,
    conf: Value,
    args: String,
    netns: Option<PathBuf>,
}

impl<'a> Sandbox<'a> {
    /// With these keys in the configuration, and no annotation.
    fn of(node: &'a Node, pod: &'a Pod, keys: &Value) -> anyhow::Result<Self> {
        let mut conf = json!({
            "cniVersion": "1.0.0", "name": "cluster", "type": "nsm-cni",
            "binDir": bin_dir()?, "cniDir": node.dir().join("cni"), "cniSocket": node.cni_socket(),
            "capabilities": {"io.kubernetes.cri.pod-annotations": true, "portMappings": true},
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": {}},
        });
        for (key, value) in keys.as_object().context("keys")? {
            conf[key] = value.clone();
        }
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=team;K8S_POD_NAME={0};K8S_POD_UID={0}", pod.container());
        Ok(Self { node, pod, conf, args, netns: Some(pod.namespace().path().to_owned()) })
    }

    fn call_with(&self, command: &'static str, conf: &Value) -> Call<'_> {
        Call {
            command,
            container: self.pod.container(),
            netns: self.netns.clone(),
            ifname: "eth0",
            args: &self.args,
            stdin: conf.to_string(),
        }
    }

    fn add(&self) -> anyhow::Result<Outcome> {
        self.node.cni().call(&self.call_with("ADD", &self.conf))
    }

    fn check(&self, added: &Value) -> anyhow::Result<Outcome> {
        let mut conf = self.conf.clone();
        conf["prevResult"] = added.clone();
        self.node.cni().call(&self.call_with("CHECK", &conf))
    }

    fn del(&self) -> anyhow::Result<Outcome> {
        self.node.cni().call(&self.call_with("DEL", &self.conf))
    }

    /// As after a reboot: the namespace is gone, and what is not on disk.
    fn rebooted(&mut self) -> anyhow::Result<()> {
        self.netns = None;
        for name in records(self.node).into_iter().filter(|name| name.ends_with(".results")) {
            fs::remove_file(self.node.dir().join("cni/nsm-cni").join(name))?;
        }
        Ok(())
    }
}

/// The files of records. That of networks' locks is there for good.
fn records(node: &Node) -> Vec<String> {
    let entries = fs::read_dir(node.dir().join("cni/nsm-cni")).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<String> = names.filter(|name| name != ".gates").collect();
    names.sort();
    names
}

/// Addresses of an IPAM store of `host-local`.
fn held(node: &Node, network: &str) -> Vec<String> {
    let entries = fs::read_dir(node.dir().join("ipam").join(network)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.contains('.') && !name.starts_with("last_")).collect()
}

fn ipam(node: &Node, third: u8, routes: &Value) -> Value {
    json!({
        "type": "host-local", "dataDir": node.dir().join("ipam"), "routes": routes,
        "ranges": [[{"subnet": format!("10.77.{third}.0/24")}]],
    })
}

/// `ptp`, with a default route.
fn ptp(node: &Node) -> Value {
    json!({"type": "ptp", "ipam": ipam(node, 0, &json!([{"dst": "0.0.0.0/0"}]))})
}

/// `bridge`, whose bridge is the default gateway.
fn bridge(node: &Node) -> Value {
    json!({"type": "bridge", "bridge": "br-lab", "isDefaultGateway": true, "ipam": ipam(node, 1, &json!([]))})
}

/// A plugin that writes down its calls in the node's folder.
fn recorder(node: &Node) -> Value {
    json!({"type": "nsm-delegate", "log": log(node)})
}

fn log(node: &Node) -> PathBuf {
    node.dir().join("calls")
}

/// What the recorders were called with so far.
fn calls(node: &Node) -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(log(node)).unwrap_or_default();
    Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}

fn list(name: &str, plugins: &[Value]) -> Value {
    json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins})
}

fn write(path: &Path, json: &Value) -> anyhow::Result<()> {
    fs::create_dir_all(path.parent().context("no folder")?)?;
    fs::write(path, json.to_string()).with_context(|| path.display().to_string())
}

/// Names of a pod's interfaces but the loopback.
fn links(pod: &Pod) -> anyhow::Result<Vec<String>> {
    let mut socket = nsm_netlink::NetnsSocket::open(&nsm_netlink::Netns::open(pod.namespace().path())?)?;
    let names = socket.links()?.into_iter().map(|link| link.name.as_str().to_owned());
    let mut names: Vec<String> = names.filter(|name| name != "lo").collect();
    names.sort();
    Ok(names)
}

/// Nothing of networks is left on the node, except what its plugins keep for good.
fn nothing_left(node: &Node, pods: &[&Pod]) -> anyhow::Result<()> {
    ensure!(records(node).is_empty(), "{:?}", records(node));
    for network in ["ptp", "bridge"] {
        ensure!(held(node, network).is_empty(), "{network} holds {:?}", held(node, network));
    }
    for pod in pods {
        ensure!(links(pod)?.is_empty(), "{:?}", links(pod)?);
    }
    Ok(())
}
