//! Pods that ask by annotation, through the plugin behind another one, as a runtime in a cluster calls it.

use std::fs;
use std::net::IpAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Call, Endpoint, Node, Outcome, Pod, eventually, runner};
use serde_json::{Value, json};

use crate::SERVICE;

const SOON: Duration = Duration::from_secs(5);
const SECOND: Duration = Duration::from_secs(1);

/// What containerd says of a pod.
struct Sandbox<'a> {
    node: &'a Node,
    pod: &'a Pod,
    uid: &'a str,
    annotations: Value,
    conf: Value,
}

impl<'a> Sandbox<'a> {
    fn of(node: &'a Node, pod: &'a Pod, annotations: Value) -> Self {
        let mut conf = node.conf("");
        conf.as_object_mut().map(|conf| conf.remove("networkService"));
        conf["capabilities"] = json!({"io.kubernetes.cri.pod-annotations": true});
        conf["prevResult"] = json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.namespace().path()}],
            "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0}],
        });
        Self { node, pod, uid: pod.container(), annotations, conf }
    }

    fn call(&self, command: &str) -> anyhow::Result<Outcome> {
        let mut conf = self.conf.clone();
        conf["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": self.annotations});
        let args = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE=team;K8S_POD_NAME={};K8S_POD_UID={}",
            self.pod.container(),
            self.uid
        );
        self.node.cni().call(&Call {
            command,
            container: self.pod.container(),
            netns: Some(self.pod.namespace().path().to_owned()),
            ifname: "eth0",
            args: &args,
            stdin: conf.to_string(),
        })
    }

    fn check(&self, added: &Outcome) -> anyhow::Result<Outcome> {
        let mut conf = self.conf.clone();
        conf["prevResult"] = added.json.clone();
        Sandbox { conf, annotations: self.annotations.clone(), ..*self }.call("CHECK")
    }
}

fn v1(text: &str) -> Value {
    json!({"networkservicemesh.io": text, "unrelated": "x"})
}

/// Two services whose endpoints would give the same addresses to whoever has none of them.
fn two_services(node: &Node) -> anyhow::Result<[Endpoint; 2]> {
    Ok([Endpoint::of(SERVICE).start(node)?, Endpoint::of("other").start(node)?])
}

fn names(added: &Outcome) -> Vec<&str> {
    let interfaces = added.json["interfaces"].as_array().into_iter().flatten();
    interfaces.filter_map(|interface| interface["name"].as_str()).collect()
}

/// The far ends of a result, in order.
fn peers(added: &Outcome) -> Vec<IpAddr> {
    let routes = added.json["routes"].as_array().into_iter().flatten();
    routes.filter_map(|route| route["dst"].as_str()?.strip_suffix("/32")?.parse().ok()).collect()
}

pub(crate) fn two_services_in_one_annotation() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoints = two_services(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let sandbox = Sandbox::of(&node, &pod, v1("kernel://icmp?app=x,kernel://other"));
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(names(&added) == ["eth0", "nsm-1", "nsm-2"], "{}", added.json);
    ensure!(added.json["ips"][0]["address"] == "10.0.0.2/24", "{}", added.json);
    let peers = peers(&added);
    ensure!(peers.len() == 2, "{}", added.json);
    for peer in peers {
        pod.ping(peer)?;
    }
    let mut connections = node.connections()?;
    connections.sort_by(|a, b| a.ifname.cmp(&b.ifname));
    ensure!(connections.iter().map(|one| one.ifname.as_str()).eq(["nsm-1", "nsm-2"]), "{connections:?}");
    let labels = connections[0].connection.clone().unwrap_or_default().labels;
    for (label, value) in [("podName", "client"), ("namespace", "team"), ("nodeName", "node-1"), ("app", "x")] {
        ensure!(labels.get(label).is_some_and(|found| found == value), "{label} of {labels:?}");
    }
    ensure!(connections[0].pod_name == "client" && connections[0].pod_namespace == "team");
    sandbox.check(&added)?.ok()?;
    ensure!(sandbox.call("ADD")?.refused(102)?.contains("exists"), "a second ADD");

    // The runtime knows of eth0 alone.
    let gc = |valid: &[(&str, &str)]| node.cni().gc(&sandbox.conf, Some(valid))?.ok();
    gc(&[(pod.container(), "eth0")])?;
    ensure!(node.connections()?.len() == 2);
    gc(&[])?;
    ensure!(node.connections()?.is_empty());
    for _ in 0..2 {
        sandbox.call("DEL")?.ok()?;
    }
    node.nothing_left(&before)
}

pub(crate) fn both_forms_and_the_namespaces() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoints = two_services(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let folder = node.dir().join("cni.sock.namespaces");
    fs::write(folder.join("team"), json!({"ns.networkservicemesh.io": "other,icmp?a=b"}).to_string())?;
    let annotations = json!({"networkservicemesh.io": "kernel://icmp/nsm-2", "ns.networkservicemesh.io": "icmp"});
    let sandbox = Sandbox::of(&node, &pod, annotations);
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(names(&added) == ["eth0", "nsm-2", "nsm-1", "nsm-3", "nsm-4"], "{}", added.json);
    for peer in peers(&added) {
        pod.ping(peer)?;
    }
    sandbox.call("DEL")?.ok()?;
    // A pod without annotations of its own.
    let sandbox = Sandbox::of(&node, &pod, json!({}));
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(names(&added) == ["eth0", "nsm-1", "nsm-2"], "{}", added.json);
    // What the running pod has of its namespace is not another call's to change.
    fs::write(folder.join("team"), json!({"ns.networkservicemesh.io": "icmp"}).to_string())?;
    ensure!(sandbox.call("ADD")?.refused(102)?.contains("exists"));
    let inherited = fs::read_dir(node.run_dir().join("inherited"))?.next().context("nothing is inherited")??;
    ensure!(fs::read_to_string(inherited.path())?.contains("other,icmp?a=b"));
    sandbox.call("DEL")?.ok()?;
    fs::remove_file(folder.join("team"))?;
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(names(&added) == ["eth0"], "{}", added.json);
    sandbox.call("DEL")?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn mistakes_fail_by_name_and_change_nothing() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoints = two_services(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    for (annotation, code, parts) in [
        ("kernel://icmp/x,kernel://other/x", 7, ["interface x is asked for twice", "\"other\""]),
        ("kernel://icmp/eth0", 7, ["interface eth0 of \"icmp\"", "name another one"]),
        ("icmp", 7, ["annotation networkservicemesh.io of the pod", "kernel://"]),
        ("kernel://icmp?podName=other", 7, ["label podName", "the agent gives"]),
        // The first is made, and undone.
        ("kernel://icmp,kernel://nowhere", 11, ["network service \"nowhere\", interface nsm-2", "nowhere"]),
    ] {
        let sandbox = Sandbox::of(&node, &pod, v1(annotation));
        let refused = sandbox.call("ADD")?.refused(code)?;
        for part in parts {
            ensure!(refused.contains(part), "{part:?} in {refused:?}");
        }
        ensure!(node.connections()?.is_empty(), "{annotation}");
        sandbox.call("DEL")?.ok()?;
        node.nothing_left(&before)?;
    }
    Ok(())
}

/// What the agent keeps of pods in its run directory, besides connections.
fn recorded(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut all = Vec::new();
    for folder in ["attachments", "inherited", "pod-adds"] {
        for entry in fs::read_dir(node.run_dir().join(folder)).with_context(|| folder.to_owned())? {
            all.push(format!("{folder}/{}", entry?.file_name().display()));
        }
    }
    Ok(all)
}

/// However a pod ends: nothing that was recorded of it waits for the agent's next start.
pub(crate) fn every_end_of_a_pod_ends_all_that_is_recorded_of_it() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoints = two_services(&node)?;
    fs::write(
        node.dir().join("cni.sock.namespaces/team"),
        json!({"networkservicemesh.io": "kernel://icmp"}).to_string(),
    )?;
    for way in ["GC with a list", "GC without a list", "the namespace's end"] {
        let pod = node.pod("client")?;
        let sandbox = Sandbox::of(&node, &pod, v1("kernel://other"));
        sandbox.call("ADD")?.ok()?;
        ensure!(
            recorded(&node)?.len() == 3,
            "two attachments, and what it has of its namespace: {:?}",
            recorded(&node)?
        );
        let conf = sandbox.conf.clone();
        match way {
            "GC with a list" => drop(node.cni().gc(&conf, Some(&[]))?.ok()?),
            "GC without a list" => {
                drop(pod);
                node.cni().gc(&conf, None)?.ok()?;
            }
            _ => drop(pod),
        }
        eventually(way, SOON, || recorded(&node), Vec::is_empty)?;
        ensure!(node.connections()?.is_empty(), "{way}");
    }
    Ok(())
}

pub(crate) fn who_asks_nothing_needs_no_agent() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    node.kill_agent()?;
    let sandbox = Sandbox::of(&node, &pod, json!({"unrelated": "x"}));
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(added.json == sandbox.conf["prevResult"] && added.took < SECOND, "{} in {:?}", added.json, added.took);
    sandbox.check(&added)?.ok()?;
    ensure!(sandbox.call("STATUS")?.ok()?.took < SECOND);
    ensure!(sandbox.call("GC")?.ok()?.took < SECOND);
    ensure!(sandbox.call("DEL")?.ok()?.took < SECOND);
    ensure!(sandbox.call("DEL")?.ok()?.took < SECOND);
    ensure!(fs::read_dir(node.dir().join("cni.sock.owed"))?.next().is_none(), "nothing is owed");
    // One that asks waits for it, and says so.
    let asking = Sandbox::of(&node, &pod, v1("kernel://icmp"));
    ensure!(asking.call("ADD")?.refused(11)?.contains("nsm-agent is not there"));
    asking.call("DEL")?.ok()?;
    node.start_agent()?;
    node.nothing_left(&before)
}

/// Of a pod that nobody knows anything of, the agent is asked, and never waited for long.
pub(crate) fn who_may_ask_starts_whatever_the_agent_does() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let hangs = node.dir().join("hangs.sock");
    let breaks = node.dir().join("breaks.sock");
    // One takes connections and says nothing, the other hangs up.
    let _hangs = UnixListener::bind(&hangs)?;
    let breaker = UnixListener::bind(&breaks)?;
    thread::spawn(move || breaker.incoming().for_each(drop));
    for (socket, nobody) in [(&hangs, false), (&breaks, false), (&node.dir().join("nobody.sock"), true)] {
        let mut sandbox = Sandbox::of(&node, &pod, json!({}));
        sandbox.conf["cniSocket"] = json!(socket);
        sandbox.conf["timeoutSeconds"] = 1.into();
        let added = sandbox.call("ADD")?.ok()?;
        ensure!(added.json == sandbox.conf["prevResult"] && added.took < 3 * SECOND, "{added:?}");
        ensure!(!nobody || added.took < SECOND, "{:?}", added.took);
        let mut folder = socket.clone().into_os_string();
        folder.push(".pods");
        let record = fs::read_dir(&folder)?.next().context("no record")??;
        let record: Value = serde_json::from_slice(&fs::read(record.path())?)?;
        ensure!(record["asked"] == false && record["namespaceUnknown"] == true, "{record}");
        ensure!(sandbox.call("DEL")?.ok()?.took < SECOND);
    }
    // Once the agent has said which namespaces ask nobody is asked.
    let sandbox = Sandbox::of(&node, &pod, json!({}));
    sandbox.call("ADD")?.ok()?;
    let record = fs::read_dir(node.dir().join("cni.sock.pods"))?.next().context("no record")??;
    let record: Value = serde_json::from_slice(&fs::read(record.path())?)?;
    ensure!(record["asked"] == false && record["namespaceUnknown"] == false, "{record}");
    sandbox.call("DEL")?.ok()?;
    Ok(())
}

pub(crate) fn an_owed_del_ends_all_of_a_pod() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoints = two_services(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let annotations = v1("kernel://icmp,kernel://other");
    let added = Sandbox::of(&node, &pod, annotations.clone()).call("ADD")?.ok()?;
    node.kill_agent()?;
    for peer in peers(&added) {
        pod.ping(peer)?;
    }
    let deleted = Sandbox::of(&node, &pod, annotations).call("DEL")?.ok()?;
    ensure!(deleted.took < SECOND, "DEL took {:?}", deleted.took);
    node.start_agent()?;
    eventually("freed", SECOND, || Ok(node.connections()?.len()), |count| *count == 0)?;
    node.nothing_left(&before)
}

pub(crate) fn a_default_route_and_dns_need_leave() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).program("nsm-generous").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut sandbox = Sandbox::of(&node, &pod, v1("kernel://icmp"));
    let refused = sandbox.call("ADD")?.refused(100)?;
    ensure!(refused.contains("network service \"icmp\", interface nsm-1"), "{refused}");
    ensure!(refused.contains("allowDefaultRoute"), "{refused}");
    sandbox.conf["allowDefaultRoute"] = true.into();
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(added.json["dns"]["nameservers"].as_array().is_none_or(Vec::is_empty), "{}", added.json);
    sandbox.call("DEL")?.ok()?;
    sandbox.conf["allowDns"] = true.into();
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(added.json["dns"]["nameservers"].as_array().is_some_and(|all| !all.is_empty()), "{}", added.json);
    sandbox.call("DEL")?.ok()?;
    node.nothing_left(&before)
}

/// One is made, the other's endpoint hangs.
pub(crate) fn a_del_calls_off_the_add() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let _hangs = Endpoint::of("other").program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut sandbox = Sandbox::of(&node, &pod, v1("kernel://icmp,kernel://other"));
    sandbox.conf["timeoutSeconds"] = 60.into();
    thread::scope(|scope| -> anyhow::Result<()> {
        let adding = scope.spawn(|| sandbox.call("ADD"));
        eventually("two records", SOON, || Ok(node.connections()?.len()), |count| *count == 2)?;
        // GC does not wait for what may take a minute.
        let collected = node.cni().gc(&sandbox.conf, Some(&[]))?;
        ensure!(collected.exit != 0 && collected.took < Duration::from_secs(9), "{collected:?}");
        let deleted = sandbox.call("DEL")?.ok()?;
        ensure!(deleted.took < SECOND, "DEL took {:?}", deleted.took);
        let added = adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(added.exit != 0, "ADD succeeded although it was deleted meanwhile: {}", added.json);
        Ok(())
    })?;
    node.nothing_left(&before)
}

/// What the endpoint was asked, in order: `request CLIENT` and `close CLIENT`, the client by its own id. No refreshes.
fn heard(endpoint: &mut Endpoint) -> Vec<String> {
    let log = endpoint.program().log();
    log.lines().filter(|line| line.starts_with("client ")).map(str::to_owned).collect()
}

/// The kubelet makes a sandbox again: the endpoint has one client throughout.
pub(crate) fn a_sandbox_made_again_is_one_client() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut endpoint = Endpoint::of(SERVICE).program("nsm-generous").start(&node)?;
    let [first, second, third] = [node.pod("first")?, node.pod("second")?, node.pod("third")?];
    let before = node.leftovers()?;
    let sandbox = |pod| -> Sandbox<'_> {
        let mut sandbox = Sandbox::of(&node, pod, v1("kernel://icmp"));
        sandbox.conf["allowDefaultRoute"] = true.into();
        sandbox.uid = "5d2a8c1e-0000-4000-8000-000000000001";
        sandbox
    };
    sandbox(&first).call("ADD")?.ok()?;
    sandbox(&first).call("DEL")?.ok()?;
    let added = sandbox(&second).call("ADD")?.ok()?;
    second.ping(added.peer(false)?)?;
    // A DEL of the one before that comes late finds nothing of its own, also when it was owed.
    sandbox(&first).call("DEL")?.ok()?;
    second.ping(added.peer(false)?)?;
    // No DEL at all: the newest sandbox is the pod.
    let again = sandbox(&third).call("ADD")?.ok()?;
    third.ping(again.peer(false)?)?;
    ensure!(node.connections()?.len() == 1, "{:?}", node.connections()?);
    sandbox(&second).call("DEL")?.ok()?;
    third.ping(again.peer(false)?)?;
    sandbox(&third).check(&again)?.ok()?;
    let all = eventually("three Requests and two Closes", SOON, || Ok(heard(&mut endpoint)), |all| all.len() == 5)?;
    let client = all[0].trim_start_matches("client ").trim_end_matches(" asks");
    let expected: Vec<String> =
        ["asks", "closes", "asks", "closes", "asks"].iter().map(|verb| format!("client {client} {verb}")).collect();
    ensure!(all == expected, "{all:?}");
    for pod in [&first, &second, &third] {
        sandbox(pod).call("DEL")?.ok()?;
    }
    node.nothing_left(&before)
}

/// Who an endpoint is, and what a pod has, is known of pods that ask nothing too; a running pod's link marks its record.
pub(crate) fn records_of_sandboxes() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let [here, gone] = [node.pod("here")?, node.pod("gone")?];
    let folder = node.dir().join("cni.sock.pods");
    let count = || -> anyhow::Result<usize> { Ok(fs::read_dir(&folder)?.count()) };
    Sandbox::of(&node, &here, json!({})).call("ADD")?.ok()?;
    Sandbox::of(&node, &gone, json!({})).call("ADD")?.ok()?;
    ensure!(count()? == 2);
    // Ended without DEL: the next agent sees that the namespace has gone.
    node.kill_agent()?;
    drop(gone);
    node.start_agent()?;
    eventually("one record", SOON, count, |count| *count == 1)?;
    Sandbox::of(&node, &here, json!({})).call("DEL")?.ok()?;
    ensure!(count()? == 0);
    Ok(())
}

/// Where distributions put the plugins of the CNI project.
fn reference(name: &str) -> anyhow::Result<PathBuf> {
    let tools = std::env::var_os("NSM_LAB_TOOLS").map(PathBuf::from);
    let folders = tools.into_iter().chain(["/usr/lib/cni".into(), "/opt/cni/bin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|plugin| plugin.is_file());
    found.ok_or_else(|| runner::Skip(format!("{name} is nowhere: install containernetworking-plugins")).into())
}

fn first_plugin(node: &Node, pod: &Pod, program: &Path, command: &str, conf: &Value) -> anyhow::Result<Value> {
    let mut plugin = Command::new(program);
    plugin
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", pod.container())
        .env("CNI_NETNS", pod.namespace().path())
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", program.parent().unwrap_or(Path::new("/")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let run = |plugin: &mut Command| -> std::io::Result<std::process::Output> {
        let mut child = plugin.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, conf.to_string().as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = node.namespace().run(|| run(&mut plugin))?.context("first plugin")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{command}: {text}");
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

pub(crate) fn behind_a_real_first_plugin() -> anyhow::Result<()> {
    let program = reference("ptp")?;
    reference("host-local")?;
    let node = Node::start("node-1")?;
    let _endpoints = two_services(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = json!({
        "cniVersion": "1.0.0", "name": "lab", "type": "ptp",
        "ipam": {"type": "host-local", "subnet": "10.77.0.0/24", "dataDir": node.dir().join("ipam"),
            "routes": [{"dst": "0.0.0.0/0"}]},
    });
    let first = first_plugin(&node, &pod, &program, "ADD", &conf)?;
    let mut sandbox = Sandbox::of(&node, &pod, v1("kernel://icmp,kernel://other/second"));
    sandbox.conf["cniVersion"] = "1.0.0".into();
    sandbox.conf["prevResult"] = first.clone();
    let added = sandbox.call("ADD")?.ok()?;
    ensure!(names(&added).ends_with(&["nsm-1", "second"]), "{}", added.json);
    ensure!(added.json["ips"][0] == first["ips"][0], "{}", added.json);
    for interface in ["nsm-1", "second"] {
        let all = added.json["interfaces"].as_array().context("interfaces")?;
        let place = all.iter().position(|one| one["name"] == interface);
        let ips = added.json["ips"].as_array().context("ips")?;
        ensure!(ips.iter().any(|ip| ip["interface"].as_u64() == place.map(|place| place as u64)), "{}", added.json);
    }
    for peer in peers(&added).into_iter().filter(|peer| peer.to_string().starts_with("172.16.")) {
        pod.ping(peer)?;
    }
    sandbox.check(&added)?.ok()?;
    sandbox.call("DEL")?.ok()?;
    first_plugin(&node, &pod, &program, "DEL", &conf)?;
    let left = before.difference(&node.leftovers()?);
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}
