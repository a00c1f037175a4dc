//! Peers that die, and who takes their place.

use std::time::Duration;

use anyhow::ensure;
use nsm_lab::{Node, Pinger, eventually};
use nsm_peers::go_client;

use crate::lab::{answered, destination, endpoint, ping_both, served_by};

pub(crate) fn expiry_of_a_killed_client() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &["--token-lifetime", "5s", "--timeout", "2s"])?;
    client.event("connected")?;
    client.kill()?;
    // The namespace stays: it is the token that ends the connection.
    server.peer.event("close")?;
    eventually("no connection", Duration::from_secs(5), || node.get("connections"), Vec::is_empty)?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn heal_to_a_second_endpoint() -> anyhow::Result<()> {
    heal(false)
}

pub(crate) fn heal_by_ping_alone() -> anyhow::Result<()> {
    heal(true)
}

/// With `liveness`, a client whose endpoint process has gone keeps its wire for as long as pings are answered: so the pod goes
/// too.
fn heal(liveness: bool) -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let one = endpoint(&node, "go-one", "172.16.1.0/24", &[])?;
    let two = endpoint(&node, "go-two", "172.16.2.0/24", &[])?;
    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &[&format!("--liveness={liveness}")])?;
    let connected = client.event("connected")?;
    let seen = client.events().len();
    let (lost, left) = if served_by(&connected) == "go-one" { (one, two) } else { (two, one) };
    ping_both(&pod, &lost.pod, &connected)?;
    lost.peer.kill()?;
    if liveness {
        drop(lost.pod);
    }
    let other = |event: &serde_json::Value| answered(event) && served_by(event) != served_by(&connected);
    let healed = client.matching("heal", Duration::from_secs(15), seen, other)?;
    ensure!(healed["connection"]["id"] == connected["connection"]["id"], "{healed}");
    ping_both(&pod, &left.pod, &healed)?;
    client.stop()?;
    Ok(())
}

pub(crate) fn recovery_of_a_restarted_client() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let args = ["--id", "0a8d6a3e-5d0f-4d0c-9f65-1f4f8a7f0001"];
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &args)?;
    let connected = client.event("connected")?;
    let pinger = Pinger::start(pod.namespace(), destination(&connected)?, Duration::from_millis(20))?;
    client.kill()?;

    let mut again = go_client(&node, pod.namespace(), "go-again", &[&args[..], &["--name", "go-nsc"]].concat())?;
    again.event("recovered")?;
    let recovered = again.event("connected")?;
    for part in ["id", "context", "network_service_endpoint_name"] {
        ensure!(
            recovered["connection"][part] == connected["connection"][part],
            "{part}: {recovered}\nbefore: {connected}"
        );
    }
    let pings = pinger.stop();
    ensure!(pings.lost == 0, "the wire was cut: {pings:?}");
    ping_both(&pod, &server.pod, &recovered)?;
    ensure!(node.get("connections")?.len() == 1, "{:?}", node.get("connections")?);
    again.stop()?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn agent_restart_keeps_traffic() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &["--dial-timeout", "1s"])?;
    let connected = client.event("connected")?;
    let seen = client.events().len();
    let pinger = Pinger::start(pod.namespace(), destination(&connected)?, Duration::from_millis(20))?;
    node.kill_agent()?;
    node.start_agent()?;
    // Its monitor's end makes the client ask again.
    let again = client.matching("answer of the new agent", Duration::from_secs(20), seen, answered)?;
    let pings = pinger.stop();
    ensure!(pings.lost == 0, "the wire was cut: {pings:?}");
    ensure!(again["connection"]["context"] == connected["connection"]["context"], "{again}\nbefore: {connected}");
    ping_both(&pod, &server.pod, &again)?;
    client.stop()?;
    Ok(())
}
