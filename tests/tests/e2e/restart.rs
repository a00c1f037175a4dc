//! The agent's restart is invisible to traffic.

use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, Pinger, eventually, registered};

use crate::{IFNAME, SERVICE};

const PACE: Duration = Duration::from_millis(20);
const BOUND: Duration = Duration::from_secs(10);

pub(crate) fn traffic_continues_and_del_works() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;

    let pinger = Pinger::start(pod.namespace(), added.peer(false)?, PACE)?;
    for _ in 0..3 {
        node.kill_agent()?;
        node.start_agent()?;
    }
    ensure!(node.connections()?.len() == 1, "the restarted agent does not know the connection");
    node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;
    let pings = pinger.stop_behind(5);
    ensure!(pings.lost == 0, "{pings:?}");

    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn orderly_end_keeps_the_wires() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let pinger = Pinger::start(pod.namespace(), added.peer(false)?, PACE)?;
    node.stop_agent()?;
    node.start_agent()?;
    let pings = pinger.stop();
    ensure!(pings.lost == 0, "{pings:?}");
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn endpoints_keep_their_clients() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&first, IFNAME, &conf)?.ok()?;
    node.kill_agent()?;
    node.start_agent()?;
    // The endpoint's process lives: it comes back by itself, and gives nobody an address twice.
    let name = endpoint.name().to_owned();
    eventually("the endpoint again", BOUND, || registered(&node), |names| names.contains(&name))?;
    let later =
        eventually("an ADD after the restart", BOUND, || node.cni().add(&second, IFNAME, &conf)?.ok(), |_| true)?;
    ensure!(later.addresses()? != added.addresses()?, "{:?} twice", added.addresses()?);
    first.ping(added.peer(false)?)?;
    second.ping(later.peer(false)?)?;
    Ok(())
}

/// The endpoint's process was another one's when the agent came back: it says that it knows nothing of the connection.
pub(crate) fn an_endpoint_that_began_anew_meanwhile_is_noticed() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let plan = Endpoint::of(SERVICE);
    let endpoint = plan.start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    node.kill_agent()?;
    let home = endpoint.kill()?;
    let _endpoint = plan.spawn_in(&node, home)?;
    node.start_agent()?;
    // Its allocator learns of the address from the connection that is made again: another client gets another one.
    eventually("a heal", BOUND, || node.nsmctl(&["get", "connections"]), |shown| shown.contains("up"))?;
    eventually("the agent's word of it", BOUND, || Ok(node.agent_log()), |log| log.contains("connection healed"))?;
    pod.ping(added.peer(false)?)?;
    let other = node.pod("other")?;
    let later = node.cni().add(&other, IFNAME, &conf)?.ok()?;
    ensure!(later.addresses()? != added.addresses()?, "{:?} twice", added.addresses()?);
    node.cni().del(&other, IFNAME, &conf)?.ok()?;
    node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    drop(other);
    node.nothing_left(&before)
}

/// Everything has expired when it comes back: who is still there goes on.
pub(crate) fn away_for_longer_than_connections_live() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_MAX_TOKEN_LIFETIME_SECONDS", "2").start_agent()?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    node.kill_agent()?;
    let killed = std::time::Instant::now();
    eventually("the end of its time", BOUND, || Ok(killed.elapsed()), |away| *away > Duration::from_secs(3))?;
    pod.ping(added.peer(false)?).context("while the agent is away")?;
    node.start_agent()?;
    eventually("pings", BOUND, || pod.ping(added.peer(false)?), |_| true)?;
    eventually("a whole attachment", BOUND, || node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok(), |_| true)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}
