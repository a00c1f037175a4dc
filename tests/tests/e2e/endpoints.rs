//! Endpoints that go, and what their clients get instead.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nsm_lab::{Endpoint, Node, Pod, eventually, ping, registered};

use crate::{IFNAME, SERVICE};

const BOUND: Duration = Duration::from_secs(15);
const WITHDRAWN: Duration = Duration::from_secs(1);

pub(crate) fn killed_one_is_withdrawn() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let _pod = endpoint.kill()?;
    eventually("withdrawal", WITHDRAWN, || registered(&node), Vec::is_empty)?;
    let client = node.pod("client")?;
    node.cni().add(&client, IFNAME, &node.conf(SERVICE))?.refused(11)?;
    Ok(())
}

/// Which of the endpoints' addresses answers the pod.
fn reaches(pod: &Pod, prefix: &str) -> anyhow::Result<bool> {
    // The ordinary allocator's first pairs: the endpoint has the even address.
    let answers = |last: u8| -> anyhow::Result<bool> {
        let address: IpAddr = format!("{prefix}{last}").parse()?;
        Ok(pod.namespace().run(|| ping(address, Duration::from_millis(200)))?.is_ok())
    };
    Ok(answers(0)? || answers(2)?)
}

fn heals(end: impl FnOnce(Endpoint) -> anyhow::Result<Pod>) -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let before = node.leftovers()?;
    let one = Endpoint::of(SERVICE).name("one").cidr("172.16.1.0/24").start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    pod.ping(added.peer(false)?)?;
    let two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24").start(&node)?;

    let gone = end(one)?;
    eventually("the second endpoint answers", BOUND, || reaches(&pod, "172.16.2."), |reached| *reached)?;
    ensure!(node.connections()?.len() == 1);
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    drop((pod, gone));
    let left = two.stop()?;
    drop(left);
    node.nothing_left(&before)
}

pub(crate) fn killed_one_is_replaced_by_another() -> anyhow::Result<()> {
    heals(Endpoint::kill)
}

pub(crate) fn stopped_one_is_replaced_by_another() -> anyhow::Result<()> {
    heals(Endpoint::stop)
}

pub(crate) fn restarted_one_gets_its_clients_back() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let plan = Endpoint::of(SERVICE);
    let endpoint = plan.start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let peer = added.peer(false)?;

    let home = endpoint.kill()?;
    let _endpoint = plan.start_in(&node, home)?;
    // Until then the old wire answers, and the endpoint may give the address to another client.
    eventually("a heal", BOUND, || Ok(node.agent_log()), |log| log.contains("connection healed"))?;
    eventually("pings", BOUND, || pod.ping(peer), |_| true).context("after the endpoint's restart")?;
    // It knows its client's address again: another client gets another one.
    let other = node.pod("other")?;
    let later = eventually("ADD", BOUND, || node.cni().add(&other, IFNAME, &conf)?.ok(), |_| true)?;
    ensure!(later.addresses()? != added.addresses()?, "{:?} twice", added.addresses()?);
    pod.ping(peer)?;
    Ok(())
}

pub(crate) fn a_silent_one_does_not_hold_up_del() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;

    endpoint.program().signal(Signal::SIGSTOP)?;
    let deleted = node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    ensure!(deleted.took < Duration::from_secs(1), "DEL took {:?}", deleted.took);
    // The Close is owed, and delivered when the endpoint listens again.
    endpoint.program().signal(Signal::SIGCONT)?;
    node.nothing_left(&before)
}

/// Which endpoint serves the only connection.
fn served_by(node: &Node) -> anyhow::Result<String> {
    let connections = node.connections()?;
    let only = connections.first().and_then(|all| all.connection.as_ref());
    Ok(only.map(|connection| connection.network_service_endpoint_name.clone()).unwrap_or_default())
}

/// Its connection moves before its time is over, and no later: a wire that still forwards is not cut early.
pub(crate) fn a_silent_one_is_left_in_time() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_MAX_TOKEN_LIFETIME_SECONDS", "6").start_agent()?;
    let mut one = Endpoint::of(SERVICE).name("one").start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let _two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24").start(&node)?;

    one.program().signal(Signal::SIGSTOP)?;
    eventually("the second endpoint answers", BOUND, || reaches(&pod, "172.16.2."), |reached| *reached)?;

    // The first one has still to hear of the end. That debt is no reason to end what stands now.
    ensure!(served_by(&node)? == "two");
    node.kill_agent()?;
    node.start_agent()?;
    ensure!(served_by(&node)? == "two", "{:?}", node.connections()?);
    ensure!(reaches(&pod, "172.16.2.")?);
    one.program().signal(Signal::SIGCONT)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    Ok(())
}

/// The one endpoint there is gets its client back when it wakes up, and not the old connection's end.
pub(crate) fn a_silent_one_that_wakes_up_serves_again() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_MAX_TOKEN_LIFETIME_SECONDS", "5").start_agent()?;
    let mut endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    endpoint.program().signal(Signal::SIGSTOP)?;
    eventually("the end of its time", BOUND, || node.connections(), |all| all.iter().all(|c| c.phase != "up"))?;
    endpoint.program().signal(Signal::SIGCONT)?;
    let check = || Ok(node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok().is_ok());
    eventually("the same addresses as before, at both ends", BOUND, check, |same| *same)?;
    pod.ping(added.peer(false)?)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}
