//! DEL: always 0, always quick, nothing left.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nix::sys::signal::Signal;
use nsm_lab::{Endpoint, Node, Program, binary, eventually};

use crate::{IFNAME, SERVICE};

const BOUND: Duration = Duration::from_secs(15);

pub(crate) fn twice_before_and_after_everything() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    // Before any ADD, and after one that failed for want of an endpoint.
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.cni().add(&pod, IFNAME, &conf)?.refused(11)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn after_the_namespace_is_gone() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let pod = node.pod("client")?;
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let (container, netns) = (pod.container().to_owned(), pod.namespace().path().to_owned());
    drop(pod);
    let mut call = nsm_lab::Call {
        command: "DEL",
        container: &container,
        ifname: IFNAME,
        stdin: conf.to_string(),
        ..Default::default()
    };
    node.cni().call(&call)?.ok()?;
    call.netns = Some(netns);
    node.cni().call(&call)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn with_another_configuration() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    let mut conf = node.conf("another");
    conf["name"] = "renamed".into();
    conf["unheardOf"] = 1.into();
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn during_add() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["timeoutSeconds"] = 60.into();
    thread::scope(|scope| -> anyhow::Result<()> {
        let adding = scope.spawn(|| node.cni().add(&pod, IFNAME, &conf));
        nsm_lab::eventually("a record", Duration::from_secs(2), || Ok(node.connections()?.len()), |n| *n == 1)?;
        let deleted = node.cni().del(&pod, IFNAME, &conf)?.ok()?;
        ensure!(deleted.took < Duration::from_secs(1), "DEL took {:?}", deleted.took);
        let added = adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(added.exit != 0, "ADD succeeded although it was deleted meanwhile: {}", added.json);
        Ok(())
    })?;
    ensure!(node.dir().join("cni.sock.owed").read_dir()?.count() == 0, "the agent answered DEL itself");
    node.nothing_left(&before)
}

/// The plugin is killed in the middle of ADD, and no DEL comes.
pub(crate) fn an_add_whose_plugin_was_killed() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["timeoutSeconds"] = 60.into();
    let mut plugin = node.cni().start_add(&pod, IFNAME, &conf)?;
    nsm_lab::eventually("a record", Duration::from_secs(2), || Ok(node.connections()?.len()), |n| *n == 1)?;
    plugin.kill()?;
    plugin.wait()?;
    node.nothing_left(&before)
}

/// A client that is no plugin, and whose Request runs into its deadline.
pub(crate) fn a_request_that_ran_out_of_time() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut command = Command::new(binary("nsc")?);
    command
        .env("NSM_CONNECT_TO", format!("unix://{}", node.nsm_socket().display()))
        .env("NSM_NETWORK_SERVICES", format!("kernel://{SERVICE}/{IFNAME}"))
        .env("NSM_REQUEST_TIMEOUT", "1s");
    let client = Program::start("nsc", &mut command, pod.namespace(), &node.dir().join("nsc.log"))?;
    nsm_lab::eventually("a record", Duration::from_secs(2), || Ok(node.connections()?.len()), |n| *n == 1)?;
    // Killed, it sends no Close.
    client.kill()?;
    node.nothing_left(&before)
}

pub(crate) fn a_namespace_that_vanishes_is_noticed() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    ensure!(fs::exists(pod.namespace().path())?);
    drop(pod);
    node.nothing_left(&before)
}

/// A Close that one endpoint does not answer delays no other endpoint's.
pub(crate) fn beside_an_endpoint_that_hangs() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut hanging = Endpoint::of("silent").start(&node)?;
    let _honest = Endpoint::of(SERVICE).cidr("172.16.2.0/24").start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let before = node.leftovers()?;
    node.cni().add(&first, IFNAME, &node.conf("silent"))?.ok()?;
    node.cni().add(&second, IFNAME, &node.conf(SERVICE))?.ok()?;
    let owed = || Ok(node.run_dir().join("owed").read_dir()?.count());

    hanging.program().signal(Signal::SIGSTOP)?;
    node.cni().del(&first, IFNAME, &node.conf("silent"))?.ok()?;
    nsm_lab::eventually("one debt", Duration::from_secs(1), owed, |count| *count == 1)?;
    node.cni().del(&second, IFNAME, &node.conf(SERVICE))?.ok()?;
    nsm_lab::eventually("only that debt", Duration::from_secs(1), owed, |count| *count == 1)?;
    hanging.program().signal(Signal::SIGCONT)?;
    node.nothing_left(&before)
}

/// Somebody else takes the endpoint's registration away, so that it may come back: what it is owed then ends with its process.
pub(crate) fn behind_an_endpoint_that_does_not_return() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let owed = || Ok(node.run_dir().join("owed").read_dir()?.count());
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    // It would register again at once.
    endpoint.program().signal(Signal::SIGSTOP)?;
    node.nsmctl(&["delete", "nse", endpoint.name()])?;
    node.cni().del(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    ensure!(owed()? == 1, "it may come back, and would know of the connection");
    let _pod = endpoint.kill()?;
    eventually("no debt", BOUND, owed, |count| *count == 0)?;
    Ok(())
}

/// The kernel is slow, and the Request that waits for it is over before it is done.
pub(crate) fn a_wire_that_is_ready_too_late() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_FAILPOINT", "add.wire-created:slow").start_agent()?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["timeoutSeconds"] = 1.into();
    let added = node.cni().add(&pod, IFNAME, &conf)?;
    ensure!(added.exit != 0, "{}", added.json);
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

/// The endpoint hangs in a refresh of the connection: DEL calls that off and does not wait.
pub(crate) fn while_a_refresh_hangs() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    // A refresh comes after a fifth of the life at the earliest, and may take a third of it.
    node.set("NSM_MAX_TOKEN_LIFETIME_SECONDS", "10").set("NSM_LOG_LEVEL", "info,nsm_sdk=debug").start_agent()?;
    let mut endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    endpoint.program().signal(Signal::SIGSTOP)?;
    // The first try has failed, the next one is under way or about to be.
    eventually("a refresh that hangs", BOUND, || Ok(node.agent_log()), |log| log.contains("failed duration_ms"))?;
    for _ in 0..3 {
        let deleted = node.cni().del(&pod, IFNAME, &conf)?.ok()?;
        ensure!(deleted.took < Duration::from_millis(700), "DEL took {:?}", deleted.took);
    }
    ensure!(node.connections()?.is_empty(), "{:?}", node.connections()?);
    ensure!(node.dir().join("cni.sock.owed").read_dir()?.count() == 0, "DEL left a note instead of working");
    endpoint.program().signal(Signal::SIGCONT)?;
    node.nothing_left(&before)
}
