//! One side in Go, the other ours.

use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, eventually};
use nsm_peers::go_client;

use crate::lab::{answered, endpoint, ping_both, served_by};

pub(crate) fn go_client_our_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let server = Endpoint::of("demo").start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let args = ["--interface", "nsm-1", "--token-lifetime", "8s", "--timeout", "2s"];
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &args)?;
    let connected = client.event("connected")?;
    ensure!(served_by(&connected) == server.name(), "{connected}");
    ping_both(&pod, server.pod(), &connected)?;
    let seen = client.events().len();
    let again = client.matching("refresh", Duration::from_secs(6), seen, answered)?;
    ensure!(again["connection"]["context"] == connected["connection"]["context"], "{again}\nbefore: {connected}");
    ping_both(&pod, server.pod(), &again)?;
    client.stop()?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn our_cni_go_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24,fd00:1::/112", &[])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let conf = node.conf("demo");
    let added = node.cni().add(&pod, "nsm-1", &conf)?.ok()?;
    pod.ping(added.peer(false)?)?;
    for address in added.addresses()? {
        server.pod.ping(address)?;
    }
    node.cni().check(&pod, "nsm-1", &conf, &added.json)?.ok()?;
    node.cni().del(&pod, "nsm-1", &conf)?.ok()?;
    server.peer.event("close")?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn our_cni_heals_from_a_go_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let lost = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let pod = node.pod("client")?;
    let conf = node.conf("demo");
    node.cni().add(&pod, "nsm-1", &conf)?.ok()?;
    let mut left = endpoint(&node, "go-two", "172.16.2.0/24", &[])?;
    lost.peer.kill()?;
    let asked = left.peer.event("request")?;
    let address = crate::lab::destination(&asked).context("what the second endpoint answered")?;
    eventually("ping of the second endpoint", Duration::from_secs(5), || pod.ping(address), |_| true)?;
    node.cni().del(&pod, "nsm-1", &conf)?.ok()?;
    Ok(())
}

pub(crate) fn our_cni_refreshes_at_a_go_endpoint() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    // Due after a fifth of it.
    node.set("NSM_MAX_TOKEN_LIFETIME_SECONDS", "5").start_agent()?;
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let mut conf = node.conf("demo");
    // A Go endpoint forgets a connection earlier by the time that its call had left.
    conf["timeoutSeconds"] = 2.into();
    let added = node.cni().add(&pod, "nsm-1", &conf)?.ok()?;
    let asked = server.peer.event("request")?;
    let seen = server.peer.events().len();
    let again = server.peer.after(seen, "request")?;
    for part in ["id", "context"] {
        ensure!(again["connection"][part] == asked["connection"][part], "{part}: {again}\nbefore: {asked}");
    }
    // Longer than the endpoint keeps what nobody refreshes.
    let refreshes = |events: Vec<serde_json::Value>| events.iter().filter(|event| event["event"] == "request").count();
    eventually(
        "more refreshes than one life has",
        Duration::from_secs(15),
        || Ok(refreshes(server.peer.events())),
        |count| *count >= 7,
    )?;
    ensure!(!server.peer.events().iter().any(|event| event["event"] == "close"), "{:?}", server.peer.events());
    pod.ping(added.peer(false)?)?;
    node.cni().del(&pod, "nsm-1", &conf)?.ok()?;
    server.peer.event("close")?;
    drop(pod);
    node.nothing_left(&before)
}
