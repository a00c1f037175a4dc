//! The agent is not there.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use nsm_lab::{Endpoint, Node, Pod, eventually};
use serde_json::json;

use crate::{IFNAME, SERVICE};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn add_says_try_again_later() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let added = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?;
    ensure!(added.took < SECOND, "it took {:?}", added.took);
    added.refused(11)?;
    Ok(())
}

pub(crate) fn add_waits_for_the_agent() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    node.kill_agent()?;
    let mut conf = node.conf(SERVICE);
    conf["agentWaitSeconds"] = 10.into();
    // The pod's runtime is another thread's affair: it borrows no node.
    let call = nsm_lab::Call {
        command: "ADD",
        container: pod.container(),
        netns: Some(pod.namespace().path().to_owned()),
        ifname: IFNAME,
        stdin: conf.to_string(),
        ..Default::default()
    };
    let runtime = Node::create("runtime")?;
    thread::scope(|scope| -> anyhow::Result<()> {
        let adding = scope.spawn(|| runtime.cni().call(&call));
        node.start_agent()?;
        let added = adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?.ok()?;
        pod.ping(added.peer(false)?)?;
        Ok(())
    })
}

pub(crate) fn del_is_owed_and_worked_off() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    node.kill_agent()?;

    let deleted = node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    ensure!(deleted.took < SECOND, "DEL took {:?}", deleted.took);
    ensure!(node.dir().join("cni.sock.owed").read_dir()?.count() == 1, "one note is owed");

    node.start_agent()?;
    let back = Instant::now();
    eventually("freed", SECOND, || Ok(node.connections()?.len()), |count| *count == 0)?;
    ensure!(back.elapsed() < SECOND, "freed after {:?}", back.elapsed());
    node.nothing_left(&before)
}

pub(crate) fn del_for_nothing_leaves_no_debt() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    node.kill_agent()?;
    node.cni().del(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    node.start_agent()?;
    node.nothing_left(&before)
}

pub(crate) fn a_hanging_one_is_not_waited_for() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["timeoutSeconds"] = 2.into();
    node.cni().add(&first, IFNAME, &conf)?.ok()?;

    node.agent()?.signal(Signal::SIGSTOP)?;
    let deleted = node.cni().del(&first, IFNAME, &conf)?.ok()?;
    ensure!(deleted.took < SECOND, "DEL took {:?}", deleted.took);
    let added = node.cni().add(&second, IFNAME, &conf)?;
    ensure!(added.took < 3 * SECOND, "ADD took {:?}", added.took);
    added.refused(11)?;
    node.cni().del(&second, IFNAME, &conf)?.ok()?;
    node.agent()?.signal(Signal::SIGCONT)?;
    node.nothing_left(&before)
}

/// A file system that says no: what the agent wants to remove from the folder stays.
struct ReadOnly(PathBuf);

impl ReadOnly {
    fn of(folder: PathBuf) -> anyhow::Result<Self> {
        let none = None::<&str>;
        mount(Some(&folder), &folder, none, MsFlags::MS_BIND, none)?;
        let guard = Self(folder);
        mount(none, &guard.0, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
        Ok(guard)
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

/// A note as `nsm-cni` writes it.
fn leave_note(node: &Node, name: &str, content: &serde_json::Value) -> anyhow::Result<()> {
    let folder = node.dir().join("cni.sock.owed");
    let fresh = folder.join(format!(".{name}.tmp"));
    std::fs::write(&fresh, content.to_string())?;
    Ok(std::fs::rename(fresh, folder.join(format!("{name}.json")))?)
}

fn note(pod: &Pod) -> serde_json::Value {
    json!({"format": 1, "containerId": pod.container(), "ifname": IFNAME, "network": "lab"})
}

fn failures(node: &Node) -> usize {
    node.agent_log().matches("owed DEL failed").count()
}

pub(crate) fn an_owed_del_that_fails_is_tried_again() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    let broken = ReadOnly::of(node.run_dir().join("attachments"))?;
    leave_note(&node, "one", &note(&pod))?;
    eventually("a try", 5 * SECOND, || Ok(failures(&node)), |count| *count >= 1)?;
    drop(broken);
    // Nothing but time makes it try once more.
    eventually("done", 10 * SECOND, || Ok(before.difference(&node.leftovers()?)), Vec::is_empty).map(|_| ())
}

pub(crate) fn add_works_off_its_owed_note_first() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let broken = ReadOnly::of(node.run_dir().join("attachments"))?;
    // By the name that the plugin gives it.
    let name = format!("{}@{IFNAME}", pod.container());
    leave_note(&node, &name, &note(&pod))?;
    // The next try is seconds away.
    eventually("two tries", 5 * SECOND, || Ok(failures(&node)), |count| *count >= 2)?;
    let refused = node.cni().add(&pod, IFNAME, &conf)?;
    ensure!(refused.exit != 0, "the old attachment is still there: {}", refused.json);
    drop(broken);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    ensure!(node.agent_log().contains("owed DEL done"), "{}", node.agent_log());
    ensure!(!node.dir().join(format!("cni.sock.owed/{name}.json")).exists(), "the note is worked off");
    // No try that comes later ends the new attachment.
    leave_note(&node, "other", &json!({"format": 1, "containerId": "nobody", "ifname": IFNAME}))?;
    let other = node.dir().join("cni.sock.owed/other.json");
    eventually("all notes worked off", 5 * SECOND, || Ok(other.exists()), |exists| !exists)?;
    pod.ping(added.peer(false)?)?;
    ensure!(node.connections()?.len() == 1);
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn a_note_of_a_newer_format_is_left_alone() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let added = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    let mut newer = note(&pod);
    newer["format"] = 2.into();
    leave_note(&node, "newer", &newer)?;
    // One that comes later is worked off, so the newer one has been read.
    leave_note(&node, "other", &json!({"format": 1, "containerId": "nobody", "ifname": IFNAME}))?;
    let other = node.dir().join("cni.sock.owed/other.json");
    eventually("the other note", 5 * SECOND, || Ok(other.exists()), |exists| !exists)?;
    ensure!(node.agent_log().contains("format 2, this agent knows up to 1"), "{}", node.agent_log());
    ensure!(node.dir().join("cni.sock.owed/newer.json").exists());
    pod.ping(added.peer(false)?)?;
    Ok(())
}
