//! The agent's restart is invisible to traffic.

use std::time::Duration;

use anyhow::ensure;
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
    let pings = pinger.stop();
    ensure!(pings.sent > 5 && pings.lost == 0, "{pings:?}");

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
