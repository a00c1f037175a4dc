//! Which endpoint a Go client gets, and what it hears when there is none.

use std::time::Duration;

use anyhow::ensure;
use nsm_lab::Node;
use nsm_peers::{go_client, registry};
use serde_json::json;

use crate::lab::{endpoint, ping_both, served_by};

/// For a request that is to fail.
const FAILS: Duration = Duration::from_secs(12);

/// A client with `app: a` gets an endpoint with `app: b`, one without labels an endpoint with `app: a`.
pub(crate) fn apply_matches(node: &Node) -> anyhow::Result<()> {
    let matches = json!([
        { "sourceSelector": { "app": "a" }, "routes": [{ "destinationSelector": { "app": "b" } }] },
        { "routes": [{ "destinationSelector": { "app": "a" } }] },
    ]);
    // From the host: an operator's.
    registry(node, "operator", "register", "ns", &json!({ "name": "demo", "payload": "IP", "matches": matches }))?;
    Ok(())
}

pub(crate) fn match_decides() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    apply_matches(&node)?;
    let a = endpoint(&node, "go-a", "172.16.1.0/24", &["--labels", "app:a"])?;
    let b = endpoint(&node, "go-b", "172.16.2.0/24", &["--labels", "app:b"])?;
    // More often than there are endpoints: no round robin comes out the same.
    for (labels, server) in [("", &a), ("app:a", &b)] {
        for turn in 0..3 {
            let pod = node.pod(&format!("client-{labels}{turn}").replace(':', "-"))?;
            let name = format!("go-nsc-{}{turn}", labels.len());
            let mut client = go_client(&node, pod.namespace(), &name, &["--labels", labels])?;
            let connected = client.event("connected")?;
            let expected = if labels.is_empty() { "go-a" } else { "go-b" };
            ensure!(served_by(&connected) == expected, "labels {labels:?}: {connected}");
            ping_both(&pod, &server.pod, &connected)?;
            client.stop()?;
        }
    }
    let pod = node.pod("client-x")?;
    let mut client = go_client(&node, pod.namespace(), "go-x", &["--endpoint", "go-b"])?;
    ensure!(served_by(&client.event("connected")?) == "go-b", "an endpoint that is named decides");
    Ok(())
}

pub(crate) fn endpoint_asked_for_by_name() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _a = endpoint(&node, "go-a", "172.16.1.0/24", &[])?;
    let _b = endpoint(&node, "go-b", "172.16.2.0/24", &[])?;
    for turn in 0..4 {
        let pod = node.pod(&format!("client-{turn}"))?;
        let mut client = go_client(&node, pod.namespace(), &format!("go-{turn}"), &["--endpoint", "go-b"])?;
        ensure!(served_by(&client.event("connected")?) == "go-b");
        client.stop()?;
    }
    let pod = node.pod("client-none")?;
    let error =
        go_client(&node, pod.namespace(), "go-none", &["--endpoint", "go-c", "--timeout", "3s"])?.failed(FAILS)?;
    ensure!(error.contains("go-c"), "{error}");
    Ok(())
}

pub(crate) fn endpoint_refuses() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _server = endpoint(&node, "go-nse", "172.16.1.0/24", &["--refuse", "the cellar is full"])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let error = go_client(&node, pod.namespace(), "go-nsc", &["--timeout", "5s"])?.failed(FAILS)?;
    ensure!(error.contains("the cellar is full"), "{error}");
    let refused = node.cni().add(&pod, "nsm-1", &node.conf("demo"))?;
    ensure!(refused.exit != 0 && refused.json.to_string().contains("the cellar is full"), "{refused:?}");
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn service_unknown() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let error =
        go_client(&node, pod.namespace(), "go-nsc", &["--service", "nowhere", "--timeout", "5s"])?.failed(FAILS)?;
    ensure!(error.contains("nowhere"), "{error}");
    Ok(())
}

pub(crate) fn second_candidate_after_a_refusal() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _bad = endpoint(&node, "go-bad", "172.16.1.0/24", &["--refuse", "not I"])?;
    let good = endpoint(&node, "go-good", "172.16.2.0/24", &[])?;
    // Round robin: at least one of two begins with the refusing one.
    for turn in 0..2 {
        let pod = node.pod(&format!("client-{turn}"))?;
        let mut client = go_client(&node, pod.namespace(), &format!("go-{turn}"), &[])?;
        let connected = client.event("connected")?;
        ensure!(served_by(&connected) == "go-good", "{connected}");
        ping_both(&pod, &good.pod, &connected)?;
        client.stop()?;
    }
    Ok(())
}
