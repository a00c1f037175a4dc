//! Agents that end while they change the networks of running pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kube::definitions::{NETWORK_STATUS, NETWORKS, definition};
use nsm_kube::{Cluster, Member};
use nsm_lab::{Call, Node, Pod, eventually};
use nsm_netlink::{IfIndex, Netns, NetnsSocket};
use serde_json::{Value, json};

use crate::SOON;
use crate::asking::with_log;
use crate::networks::define;

/// For a change, and a plugin that is killed with all that it has started: longer than the longest pause after a failure, and a try.
const CHANGED: Duration = Duration::from_secs(90);

/// A pod whose first network is `ptp`'s, on a node of its own, and two networks that it may ask for, `a` with its default route.
struct Setting {
    cluster: Cluster,
    member: Member,
    sandbox: Pod,
    uid: String,
}

impl Setting {
    fn make(of_a: impl FnOnce(&Node) -> Vec<Value>) -> anyhow::Result<Self> {
        let cluster = Cluster::start()?;
        define(&cluster)?;
        let member = cluster.started("node-a")?;
        let node = &member.node;
        let list = |name: &str, plugins: Vec<Value>| {
            let list = json!({ "cniVersion": "1.0.0", "name": name, "plugins": plugins });
            cluster.create(&definition("default", name, &list))?.map_err(anyhow::Error::msg)
        };
        list("a", [vec![bridge(node, "a", 1)], of_a(node)].concat())?;
        list("b", vec![bridge(node, "b", 2)])?;
        let object = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "nodeName": "node-a", "containers": [{ "name": "c", "image": "none" }] },
        });
        let made = cluster.create(&object)?.map_err(anyhow::Error::msg)?;
        let uid = made["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        let sandbox = node.pod("web")?;
        let setting = Self { cluster, member, sandbox, uid };
        setting.call("ADD")?;
        with_log(&setting.member.node, setting.comes_to(&["own eth0"]))?;
        Ok(setting)
    }

    fn call(&self, command: &str) -> anyhow::Result<()> {
        let node = &self.member.node;
        let own = json!({ "name": "own", "type": "ptp", "ipam": ipam(node, 0, &json!([{ "dst": "0.0.0.0/0" }])) });
        let conf = json!({
            "cniVersion": "1.0.0", "name": "cluster", "type": "nsm-cni", "binDir": bin_dir()?,
            "cniDir": node.dir().join("cni"), "cniSocket": node.cni_socket(), "delegates": [own],
            "capabilities": { "io.kubernetes.cri.pod-annotations": true },
            "runtimeConfig": { "io.kubernetes.cri.pod-annotations": {} },
        });
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID={}", self.uid);
        let call = Call {
            command,
            container: self.sandbox.container(),
            netns: Some(self.sandbox.namespace().path().to_owned()),
            ifname: "eth0",
            args: &args,
            stdin: conf.to_string(),
        };
        with_log(node, node.cni().call(&call)?.ok()).map(drop)
    }

    fn edit(&self, asks: Option<&str>) -> anyhow::Result<()> {
        let change = json!({ "metadata": { "annotations": { NETWORKS: asks } } });
        self.cluster.patch("/api/v1/namespaces/default/pods/web", &change).map(drop)
    }

    /// Starts another agent, which ends at that failpoint if there is one.
    fn start(&mut self, failpoint: &str) -> anyhow::Result<()> {
        self.member.node.set("NSM_FAILPOINT", failpoint).start_agent()
    }

    /// Waits until the pod has these networks, by status, interfaces, addresses and default route.
    fn comes_to(&self, networks: &[&str]) -> anyhow::Result<()> {
        let mut expected: Vec<String> = networks.iter().map(|one| format!("status {one}")).collect();
        for network in networks {
            let (name, ifname) = network.split_once(' ').context("NAME INTERFACE")?;
            expected.push(format!("link {ifname}"));
            expected.push(format!("address of {}", name.trim_start_matches("default/")));
        }
        let has_a = networks.iter().any(|network| network.starts_with("default/a "));
        expected.push(format!("default via {}", if has_a { "10.78.1.1" } else { "10.78.0.1" }));
        expected.sort();
        eventually("what the annotation selects", CHANGED, || self.seen(), |seen| *seen == expected).map(drop)
    }

    fn seen(&self) -> anyhow::Result<Vec<String>> {
        let pod = self.cluster.get("/api/v1/namespaces/default/pods/web")?;
        let status = pod["metadata"]["annotations"][NETWORK_STATUS].as_str().unwrap_or("[]");
        let status: Vec<Value> = serde_json::from_str(status)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut seen: Vec<String> =
            status.iter().map(|one| format!("status {} {}", text(&one["name"]), text(&one["interface"]))).collect();
        let mut socket = NetnsSocket::open(&Netns::open(self.sandbox.namespace().path())?)?;
        let links = socket.links()?.into_iter().map(|link| link.name.as_str().to_owned());
        seen.extend(links.filter(|name| name != "lo").map(|name| format!("link {name}")));
        for hop in socket.default_routes()?.iter().flat_map(|route| &route.hops) {
            seen.push(format!("default via {}", hop.gateway.map(|gateway| gateway.to_string()).unwrap_or_default()));
        }
        for network in ["own", "a", "b"] {
            let given = fs::read_dir(self.member.node.dir().join("ipam").join(network)).into_iter().flatten().flatten();
            let names = given.filter_map(|entry| entry.file_name().into_string().ok());
            let given = names.filter(|name| name.contains('.') && !name.starts_with("last_"));
            seen.extend(given.map(|_| format!("address of {network}")));
        }
        seen.sort();
        Ok(seen)
    }

    /// The number of one of the pod's interfaces.
    fn index(&self, name: &str) -> anyhow::Result<Option<IfIndex>> {
        let links = NetnsSocket::open(&Netns::open(self.sandbox.namespace().path())?)?.links()?;
        Ok(links.into_iter().find(|link| link.name.as_str() == name).map(|link| link.index))
    }

    /// What the agent has written down of the pod's networks.
    fn known(&self) -> anyhow::Result<String> {
        let files = fs::read_dir(self.member.node.run_dir().join("networks"))?;
        let texts = files.map(|file| Ok(fs::read_to_string(file?.path())?));
        texts.collect()
    }

    /// Tells the agent to end, and waits until it has begun to.
    fn stops(&mut self) -> anyhow::Result<()> {
        self.member.node.agent()?.signal(Signal::SIGTERM)?;
        let log = || Ok(self.member.node.agent_log());
        eventually("an agent that ends", SOON, log, |log| log.contains("stopping")).map(drop)
    }

    /// What the recorder was called with.
    fn calls(&self) -> anyhow::Result<Vec<Value>> {
        let text = fs::read_to_string(log(&self.member.node)).unwrap_or_default();
        Ok(text.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
    }

    /// The recorder's call of that command, once it runs.
    fn called(&self, command: &str) -> anyhow::Result<Value> {
        let is_it = |call: &Value| call["command"] == command;
        let all = || self.calls();
        let calls = with_log(&self.member.node, eventually(command, SOON, all, |calls| calls.iter().any(is_it)))?;
        calls.into_iter().rfind(is_it).context("just found")
    }
}

fn bin_dir() -> anyhow::Result<PathBuf> {
    let bridge = nsm_peers::tools::tool("bridge")?;
    Ok(bridge.parent().context("no folder")?.to_owned())
}

fn ipam(node: &Node, third: u8, routes: &Value) -> Value {
    json!({
        "type": "host-local", "dataDir": node.dir().join("ipam"), "routes": routes,
        "ranges": [[{ "subnet": format!("10.78.{third}.0/24") }]],
    })
}

fn bridge(node: &Node, network: &str, third: u8) -> Value {
    json!({
        "type": "bridge", "bridge": format!("br-{network}"), "isGateway": true,
        "ipam": ipam(node, third, &json!([])),
    })
}

fn log(node: &Node) -> PathBuf {
    node.dir().join("calls")
}

/// A plugin that writes down its calls.
fn recorder(node: &Node, says: &Value) -> Vec<Value> {
    vec![json!({ "type": "nsm-delegate", "log": log(node), "says": says })]
}

const A: &str = r#"[{"name": "a", "default-route": ["10.78.1.1"]}]"#;
const A_AND_B: &str = r#"[{"name": "a", "default-route": ["10.78.1.1"]}, {"name": "b"}]"#;
const B_AND_A: &str = r#"[{"name": "b"}, {"name": "a", "default-route": ["10.78.1.1"]}]"#;

/// Killed at a step of a change, and whatever the annotation says by the time of the next agent: the pod comes to have that, and nothing
/// else.
fn killed_at(step: &str, before: Option<&str>, edit: Option<&str>) -> anyhow::Result<()> {
    let mut setting = Setting::make(|_| Vec::new())?;
    let (nothing, a, b) = (&["own eth0"][..], &["own eth0", "default/a net1"][..], &["own eth0", "default/b net1"][..]);
    for (after, expected) in [(None, nothing), (Some("b"), b), (Some(A), a)] {
        setting.edit(before)?;
        let now = if before.is_some() { a } else { nothing };
        with_log(&setting.member.node, setting.comes_to(now))?;
        let had = setting.index("net1")?;
        setting.member.node.kill_agent()?;
        setting.start(step)?;
        setting.edit(edit)?;
        setting.member.node.agent_ended(SOON).with_context(|| step.to_owned())?;
        setting.edit(after)?;
        setting.start("")?;
        let done = setting.comes_to(expected).with_context(|| format!("killed at {step}, then {after:?}"));
        with_log(&setting.member.node, done)?;
        if step == "detach.recorded" && after == before {
            ensure!(setting.index("net1")? == had, "the plugin had begun nothing: the interface is the same");
        }
    }
    setting.call("DEL")?;
    let left = || Ok(setting.seen()?.into_iter().filter(|line| !line.starts_with("status ")).collect::<Vec<_>>());
    eventually("nothing left", SOON, left, Vec::is_empty).map(drop)
}

pub(crate) fn killed_before_it_attaches() -> anyhow::Result<()> {
    killed_at("attach.recorded", None, Some(A))
}

pub(crate) fn killed_when_it_has_attached() -> anyhow::Result<()> {
    killed_at("attach.answered", None, Some(A))
}

pub(crate) fn killed_before_it_detaches() -> anyhow::Result<()> {
    killed_at("detach.recorded", Some(A), None)
}

pub(crate) fn killed_when_it_has_detached() -> anyhow::Result<()> {
    killed_at("detach.answered", Some(A), None)
}

/// Killed with the plugin that works for it, as with its container.
pub(crate) fn killed_in_the_middle_of_a_call() -> anyhow::Result<()> {
    let hangs = json!({ "ADD": { "hang": true } });
    let mut setting = Setting::make(|node| recorder(node, &hangs))?;
    for (after, expected) in [("b", &["own eth0", "default/b net1"][..]), ("", &["own eth0"])] {
        fs::remove_file(log(&setting.member.node)).ok();
        setting.edit(Some(A))?;
        let call = setting.called("ADD")?;
        setting.member.node.kill_agent()?;
        kill(Pid::from_raw(parent(&call["pid"])?), Signal::SIGKILL)?;
        setting.edit(Some(after).filter(|after| !after.is_empty()))?;
        setting.start("")?;
        with_log(&setting.member.node, setting.comes_to(expected).with_context(|| format!("then {after:?}")))?;
    }
    setting.call("DEL")
}

/// Killed alone, as where it is no container: the plugin comes to its end without it, and what it made is found.
pub(crate) fn killed_while_the_plugin_goes_on() -> anyhow::Result<()> {
    let mut setting = Setting::make(|node| recorder(node, &json!({ "ADD": { "after": node.dir().join("go") } })))?;
    setting.edit(Some(A))?;
    setting.called("ADD")?;
    setting.member.node.kill_agent()?;
    setting.edit(Some("b"))?;
    setting.start("")?;
    fs::write(setting.member.node.dir().join("go"), "")?;
    with_log(&setting.member.node, setting.comes_to(&["own eth0", "default/b net1"]))?;
    setting.call("DEL")
}

/// An orderly end waits for the plugin that works, and the next agent knows what it made.
pub(crate) fn a_stop_waits_for_a_call() -> anyhow::Result<()> {
    let mut setting = Setting::make(|node| recorder(node, &json!({ "ADD": { "after": node.dir().join("go") } })))?;
    setting.member.node.kill_agent()?;
    setting.member.node.set("NSM_SHUTDOWN_SECONDS", "60");
    setting.start("")?;
    setting.edit(Some(A))?;
    setting.called("ADD")?;
    setting.stops()?;
    fs::write(setting.member.node.dir().join("go"), "")?;
    setting.member.node.agent_ended(SOON)?;
    setting.start("")?;
    with_log(&setting.member.node, setting.comes_to(&["own eth0", "default/a net1"]))?;
    let calls: Vec<String> = setting.calls()?.iter().map(|call| call["command"].to_string()).collect();
    ensure!(calls == ["\"ADD\""], "made once, and not undone: {calls:?}");
    setting.call("DEL")
}

/// But no longer than it is told to, and what the plugin makes without it is found.
pub(crate) fn a_stop_does_not_wait_for_a_call_that_hangs() -> anyhow::Result<()> {
    let mut setting = Setting::make(|node| recorder(node, &json!({ "ADD": { "after": node.dir().join("go") } })))?;
    setting.member.node.kill_agent()?;
    setting.member.node.set("NSM_SHUTDOWN_SECONDS", "1");
    setting.start("")?;
    setting.edit(Some(A))?;
    setting.called("ADD")?;
    setting.stops()?;
    // Some steps of a second, where the plugin has 50 of them.
    setting.member.node.agent_ended(SOON)?;
    fs::write(setting.member.node.dir().join("go"), "")?;
    setting.start("")?;
    with_log(&setting.member.node, setting.comes_to(&["own eth0", "default/a net1"]))?;
    setting.call("DEL")
}

/// Where the plugin cannot be called nothing is written down: an edit that is taken back is as if it had not been.
pub(crate) fn an_edit_that_was_not_carried_out_is_taken_back() -> anyhow::Result<()> {
    let mut setting = Setting::make(|node| recorder(node, &json!({})))?;
    setting.edit(Some(A))?;
    let a = &["own eth0", "default/a net1"];
    with_log(&setting.member.node, setting.comes_to(a))?;
    let (had, known) = (setting.index("net1")?, setting.known()?);
    setting.member.node.kill_agent()?;
    setting.member.node.set("NSM_HOST_MOUNT_NAMESPACE", "/nowhere/ns/mnt");
    setting.start("")?;
    for (asks, told) in
        [(None, "interface net1 is not detached yet"), (Some(A_AND_B), "\"default/b\" is not attached yet")]
    {
        setting.edit(asks)?;
        let log = || Ok(setting.member.node.agent_log());
        with_log(&setting.member.node, eventually(told, SOON, log, |log| log.contains(told)))?;
        ensure!(setting.known()? == known, "{}", setting.known()?);
        setting.edit(Some(A))?;
    }
    setting.member.node.kill_agent()?;
    setting.member.node.set("NSM_HOST_MOUNT_NAMESPACE", "");
    setting.start("")?;
    // Done after whatever there was to do.
    setting.edit(Some(A_AND_B))?;
    with_log(&setting.member.node, setting.comes_to(&["own eth0", "default/a net1", "default/b net2"]))?;
    ensure!(setting.index("net1")? == had && setting.calls()?.len() == 1, "never touched: {:?}", setting.calls()?);
    setting.call("DEL")
}

/// An agent that has lost what it knew takes no network for another's.
pub(crate) fn what_it_does_not_know_any_more_is_told_by_the_plugin() -> anyhow::Result<()> {
    let mut setting = Setting::make(|node| recorder(node, &json!({})))?;
    setting.edit(Some(A))?;
    with_log(&setting.member.node, setting.comes_to(&["own eth0", "default/a net1"]))?;
    let had = setting.index("net1")?;
    setting.member.node.kill_agent()?;
    fs::remove_dir_all(setting.member.node.run_dir().join("networks"))?;
    // It is to be `net1`, as far as the next agent knows.
    setting.edit(Some(B_AND_A))?;
    setting.start("")?;
    with_log(&setting.member.node, setting.comes_to(&["own eth0", "default/a net1", "default/b net2"]))?;
    ensure!(setting.index("net1")? == had && setting.calls()?.len() == 1, "never touched: {:?}", setting.calls()?);
    setting.call("DEL")
}

/// Who has started a process.
fn parent(pid: &Value) -> anyhow::Result<i32> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:")).context("no PPid")?;
    Ok(line.trim().parse()?)
}
