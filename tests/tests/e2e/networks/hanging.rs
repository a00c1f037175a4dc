//! Plugins that hang, and what they leave: others neither wait for them nor go without.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_lab::{Node, eventually};
use serde_json::{Value, json};

use super::{Sandbox, calls, held, list, nothing_left, ptp, recorder, write};

const SOON: Duration = Duration::from_secs(10);
/// A call of the runtime's that goes on for this long has waited for somebody.
const QUICK: Duration = Duration::from_secs(5);

fn newest(name: &str, plugin: Value) -> Value {
    let mut newest = list(name, &[plugin]);
    newest["cniVersion"] = "1.1.0".into();
    newest
}

/// How often a network's plugin was called with a command.
fn asked<'a>(network: &'a str, command: &'a str) -> impl Fn(&Vec<Value>) -> usize + 'a {
    move |calls| calls.iter().filter(|call| call["conf"]["name"] == network && call["command"] == command).count()
}

/// One network's plugin hangs in GC: the others' are told, an ADD of another network ends meanwhile, one of that network after a while.
pub(crate) fn gc_of_one_network_holds_up_no_other() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let [pod, other, same] = [node.pod("client")?, node.pod("other")?, node.pod("same")?];
    let mut slow = recorder(&node);
    slow["says"] = json!({"GC": {"hang": true}});
    let keys = json!({"delegates": [newest("slow", slow), newest("seen", recorder(&node))], "cniVersion": "1.1.0"});
    let running = Sandbox::of(&node, &pod, &keys)?;
    running.add()?.ok()?;
    let mut conf = running.conf.clone();
    conf["cni.dev/valid-attachments"] = json!([{"containerID": "client", "ifname": "eth0"}]);
    let mut gc = node.cni().start(&running.call_with("GC", &conf))?;
    eventually("GC of the network that hangs", SOON, || calls(&node), |calls| asked("slow", "GC")(calls) == 1)?;
    let beside = Sandbox::of(&node, &other, &json!({"delegates": [list("ptp", &[ptp(&node)])]}))?;
    let took = beside.add()?.ok()?.took;
    ensure!(asked("seen", "GC")(&calls(&node)?) == 0, "GC went on before the ADD came");
    ensure!(took < QUICK, "an ADD of another network took {took:?}");
    // Its own network's GC is in its way, for as long as one network may take.
    let took = Sandbox::of(&node, &same, &keys)?.add()?.ok()?.took;
    ensure!(took < Duration::from_secs(20), "an ADD of that network took {took:?}");
    eventually("GC of the other network", SOON, || calls(&node), |calls| asked("seen", "GC")(calls) == 1)?;
    ensure!(gc.wait()?.code() == Some(1), "what hung is told");
    beside.del()?.ok()?;
    ensure!(held(&node, "ptp").is_empty());
    Ok(())
}

/// One pod's end hangs: the networks' plugins are told of GC none the less.
pub(crate) fn gc_of_one_pod_leaves_networks_their_time() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pods = [node.pod("one")?, node.pod("two")?, node.pod("three")?];
    let mut slow = recorder(&node);
    slow["says"] = json!({"DEL": {"hang": true}});
    let keys = json!({"delegates": [newest("slow", slow)], "cniVersion": "1.1.0"});
    for pod in &pods {
        Sandbox::of(&node, pod, &keys)?.add()?.ok()?;
    }
    let pod = node.pod("client")?;
    let running = Sandbox::of(&node, &pod, &keys)?;
    let told = node.cni().gc(&running.conf, Some(&[]))?.refused(106)?;
    ensure!(told.contains("was killed") && told.contains("left for the next GC"), "{told}");
    let calls = calls(&node)?;
    ensure!(asked("slow", "DEL")(&calls) == 2 && asked("slow", "GC")(&calls) == 1, "{calls:?}");
    Ok(())
}

/// While a network is being made, its plugins are told of it; and of what hangs while it is made nobody waits for ever.
pub(crate) fn gc_counts_in_what_is_made() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let [pod, new, next] = [node.pod("client")?, node.pod("new")?, node.pod("next")?];
    let seen = newest("seen", recorder(&node));
    let mut slow = seen.clone();
    slow["plugins"][0]["says"] = json!({"ADD": {"hang": true}});
    let of = |pod, list| Sandbox::of(&node, pod, &json!({"delegates": [list], "cniVersion": "1.1.0"}));
    let running = of(&pod, seen.clone())?;
    running.add()?.ok()?;
    let beginning = of(&new, slow)?;
    let mut child = node.cni().start(&beginning.call_with("ADD", &beginning.conf))?;
    let is_new = |calls: &Vec<Value>| calls.iter().any(|call| call["container"] == "new");
    eventually("the network that is made", SOON, || calls(&node), is_new)?;
    // The runtime does not know of it yet.
    let told = node.cni().gc(&running.conf, Some(&[("client", "eth0")]))?;
    ensure!(told.stderr.contains("beside an ADD that takes long"), "{}", told.stderr);
    let gc = calls(&node)?.into_iter().rfind(|call| call["command"] == "GC").context("no GC")?;
    let mut valid = gc["conf"]["cni.dev/valid-attachments"].as_array().cloned().context("attachments")?;
    valid.sort_by_key(ToString::to_string);
    let known = |container: &str| json!({"containerID": container, "ifname": "eth0"});
    ensure!(valid == [known("client"), known("new")], "{gc}");
    let began = Instant::now();
    of(&next, seen)?.add()?.ok()?;
    ensure!(began.elapsed() < QUICK, "{:?}", began.elapsed());
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// A daemon that a plugin left has the lock of a call that was killed: DEL goes on beside it, and says so.
pub(crate) fn a_daemon_keeps_no_pod() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let plugin = node.dir().join("bin/leaves");
    write(&plugin, &Value::Null)?;
    // Its outputs are its own, what it has inherited besides stays open.
    let script = "#!/bin/sh\ncat > /dev/null\n[ \"$CNI_COMMAND\" = ADD ] || exit 0\n\
                  setsid sleep 1000 > /dev/null 2>&1 < /dev/null &\necho $! > \"$0.pid\"\n\
                  echo '{\"cniVersion\": \"1.0.0\", \"interfaces\": []}'\n";
    fs::write(&plugin, script)?;
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755))?;
    let mut slow = recorder(&node);
    slow["says"] = json!({"ADD": {"hang": true}});
    let delegates =
        json!([list("seen", &[recorder(&node)]), list("leaves", &[json!({"type": "leaves"})]), list("slow", &[slow])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates, "binDir": node.dir().join("bin")}))?;
    let mut add = node.cni().start(&sandbox.call_with("ADD", &sandbox.conf))?;
    eventually("the last network", SOON, || calls(&node), |calls| asked("slow", "ADD")(calls) == 1)?;
    add.kill()?;
    add.wait()?;
    let daemon = Pid::from_raw(fs::read_to_string(node.dir().join("bin/leaves.pid"))?.trim().parse()?);
    let lock = node.dir().join("cni/nsm-cni/.client@eth0.lock").canonicalize()?;
    let open = fs::read_dir(format!("/proc/{daemon}/fd"))?.flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
    ensure!(open.into_iter().any(|path| path == lock), "the daemon has no lock");
    let ended = sandbox.del()?.ok()?;
    ensure!(ended.took < Duration::from_secs(30), "DEL took {:?}", ended.took);
    ensure!(ended.stderr.contains("what its plugins have started runs on"), "{}", ended.stderr);
    ensure!(kill(daemon, None).is_ok(), "the daemon has ended by itself");
    let last = calls(&node)?.pop().context("no call")?;
    ensure!(last["command"] == "DEL" && last["conf"]["name"] == "seen", "{last}");
    nothing_left(&node, &[&pod])?;
    // Nobody waits for it any more.
    sandbox.del()?.ok()?;
    kill(daemon, Signal::SIGKILL)?;
    Ok(())
}
