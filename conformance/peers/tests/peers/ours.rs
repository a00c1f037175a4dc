//! Go clients of this repository's endpoint: all that they have of one of their own.

use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, EndpointPlan, Node, Pinger, eventually};
use nsm_peers::{go_client, registry};
use serde_json::{Value, json};

use crate::lab::{answered, destination, ping_both, served_by};
use crate::selection::apply_matches;

const SOON: Duration = Duration::from_secs(5);
/// For what waits for a token's end, or for dials that fail.
const LATE: Duration = Duration::from_secs(15);

fn plan(name: &str, cidr: &str) -> EndpointPlan {
    Endpoint::of("demo").name(name).cidr(cidr)
}

/// How many connections our endpoint has closed, by its log.
fn closed(endpoint: &mut Endpoint) -> usize {
    endpoint.program().log().lines().filter(|line| line.contains("close{") && line.contains("done")).count()
}

pub(crate) fn monitor_and_close() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = plan("ours", "172.16.1.0/24").start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let args = ["--token-lifetime", "8s", "--timeout", "2s"];
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &args)?;
    let connected = client.event("connected")?;
    let first = client.event("monitor")?;
    ensure!(first["type"] == "INITIAL_STATE_TRANSFER" && first["connections"] == serde_json::json!({}), "{first}");
    let update = |event: &Value| {
        let shown = event["connections"].as_object().into_iter().flat_map(|shown| shown.values()).next();
        event["type"] == "UPDATE" && shown.is_some_and(|shown| shown["path"]["index"] == 1 && shown["state"] == "UP")
    };
    client.matching("UPDATE", SOON, 0, update)?;
    let seen = client.events().len();
    client.matching("refresh", SOON, seen, answered)?;
    client.matching("UPDATE after the refresh", SOON, seen, update)?;
    ping_both(&pod, server.pod(), &connected)?;

    let events = client.stop()?;
    ensure!(events.iter().any(|event| event["event"] == "closed"), "the client did not close");
    eventually("Close at our endpoint", SOON, || Ok(closed(&mut server)), |count| *count == 1)?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn expiry_of_a_killed_client() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = plan("ours", "172.16.1.0/24").start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &["--token-lifetime", "5s", "--timeout", "2s"])?;
    client.event("connected")?;
    client.kill()?;
    // The namespace stays: it is the token that ends the connection.
    eventually("no connection", LATE, || node.get("connections"), Vec::is_empty)?;
    eventually("Close at our endpoint", SOON, || Ok(closed(&mut server)), |count| *count == 1)?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn heal_to_a_second_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let one = plan("one", "172.16.1.0/24").start(&node)?;
    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &["--liveness=false"])?;
    let connected = client.event("connected")?;
    ping_both(&pod, one.pod(), &connected)?;
    let two = plan("two", "172.16.2.0/24").start(&node)?;
    let seen = client.events().len();
    let _gone = one.kill()?;
    let other = |event: &Value| answered(event) && served_by(event) == "two";
    let healed = client.matching("heal", LATE, seen, other)?;
    ensure!(healed["connection"]["id"] == connected["connection"]["id"], "{healed}");
    ping_both(&pod, two.pod(), &healed)?;
    client.stop()?;
    Ok(())
}

pub(crate) fn recovery_of_a_restarted_client() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let server = plan("ours", "172.16.1.0/24").start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let args = ["--id", "0a8d6a3e-5d0f-4d0c-9f65-1f4f8a7f0002"];
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
    ping_both(&pod, server.pod(), &recovered)?;
    ensure!(node.get("connections")?.len() == 1, "{:?}", node.get("connections")?);
    again.stop()?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn match_decides() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    apply_matches(&node)?;
    let a = plan("ours-a", "172.16.1.0/24").set("NSM_LABELS", "app:a").start(&node)?;
    let b = plan("ours-b", "172.16.2.0/24").set("NSM_LABELS", "app:b").start(&node)?;
    // More often than there are endpoints: no round robin comes out the same.
    for (labels, server) in [("", &a), ("app:a", &b)] {
        for turn in 0..3 {
            let pod = node.pod(&format!("client-{labels}{turn}").replace(':', "-"))?;
            let name = format!("go-nsc-{}{turn}", labels.len());
            let mut client = go_client(&node, pod.namespace(), &name, &["--labels", labels])?;
            let connected = client.event("connected")?;
            ensure!(served_by(&connected) == server.name(), "labels {labels:?}: {connected}");
            ping_both(&pod, server.pod(), &connected)?;
            client.stop()?;
        }
    }
    Ok(())
}

/// A client that pings its endpoint asks again for what it had, as the pings are answered; one that does not asks for any.
pub(crate) fn matches_that_change_move_those_who_named_nobody() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let choose = |app: &str| {
        let matches = json!([{ "routes": [{ "destinationSelector": { "app": app } }] }]);
        registry(&node, "operator", "register", "ns", &json!({ "name": "demo", "payload": "IP", "matches": matches }))
    };
    choose("a")?;
    let mut a = plan("ours-a", "172.16.1.0/24").set("NSM_LABELS", "app:a").start(&node)?;
    let b = plan("ours-b", "172.16.2.0/24").set("NSM_LABELS", "app:b").start(&node)?;
    let mut started = Vec::new();
    for (name, args) in [
        ("pinging", &["--liveness=true"][..]),
        ("trusting", &["--liveness=false"]),
        ("resolute", &["--endpoint", "ours-a"]),
    ] {
        let pod = node.pod(name)?;
        let mut client = go_client(&node, pod.namespace(), name, args)?;
        let connected = client.event("connected")?;
        ensure!(served_by(&connected) == "ours-a", "{name}: {connected}");
        ping_both(&pod, a.pod(), &connected)?;
        let seen = client.events().len();
        started.push((name, pod, client, connected, seen));
    }
    let (_, stays, resolute, had, _) = started.pop().context("three clients")?;

    choose("b")?;
    let moved = |event: &Value| answered(event) && served_by(event) == "ours-b";
    for (name, pod, mut client, connected, seen) in started {
        let healed = client.matching(name, SOON, seen, moved)?;
        ensure!(healed["connection"]["id"] == connected["connection"]["id"], "{name}: {healed}");
        ping_both(&pod, b.pod(), &healed)?;
        client.stop()?;
    }
    eventually("Closes at the endpoint before", SOON, || Ok(closed(&mut a)), |count| *count == 2)?;
    ping_both(&stays, a.pod(), &had)?;
    let events = resolute.stop()?;
    ensure!(!events.iter().any(moved), "moved from the endpoint that it named: {events:?}");
    Ok(())
}

pub(crate) fn refusal() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _server =
        plan("ours", "172.16.1.0/24").program("nsm-hostile").set("NSM_MISBEHAVIOUR", "refuse").start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let error = go_client(&node, pod.namespace(), "go-nsc", &["--timeout", "5s"])?.failed(LATE)?;
    ensure!(error.contains("not today"), "{error}");
    drop(pod);
    node.nothing_left(&before)
}
