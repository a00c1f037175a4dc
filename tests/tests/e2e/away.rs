//! The agent is not there.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::signal::Signal;
use nsm_lab::{Endpoint, Node, eventually};

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
    ensure!(deleted.took < 2 * SECOND, "DEL took {:?}", deleted.took);
    let added = node.cni().add(&second, IFNAME, &conf)?;
    ensure!(added.took < 3 * SECOND, "ADD took {:?}", added.took);
    added.refused(11)?;
    node.cni().del(&second, IFNAME, &conf)?.ok()?;
    node.agent()?.signal(Signal::SIGCONT)?;
    node.nothing_left(&before)
}
