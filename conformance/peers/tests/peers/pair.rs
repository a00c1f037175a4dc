//! A Go client and a Go endpoint.

use std::time::Duration;

use anyhow::ensure;
use nsm_lab::Node;
use nsm_peers::go_client;

use crate::lab::{answered, endpoint, ping_both, served_by};

pub(crate) fn request_ping_close() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let before = node.leftovers()?;

    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &["--interface", "nsm-1"])?;
    let connected = client.event("connected")?;
    let connection = &connected["connection"];
    ensure!(served_by(&connected) == "go-nse", "{connection}");
    ensure!(connection["path"]["index"] == 0, "{connection}");
    ensure!(connection["path"]["path_segments"][0]["id"] == connection["id"], "{connection}");
    ensure!(connection["path"]["path_segments"][0]["name"] == "go-nsc", "{connection}");
    ensure!(connection["mechanism"]["parameters"]["name"] == "nsm-1", "{connection}");
    ensure!(connection["payload"] == "IP", "{connection}");
    ping_both(&pod, &server.pod, &connected)?;

    let first = client.event("monitor")?;
    ensure!(first["type"] == "INITIAL_STATE_TRANSFER" && first["connections"] == serde_json::json!({}), "{first}");
    client.matching("UPDATE", Duration::from_secs(5), 0, |event| {
        let shown = event["connections"].as_object().into_iter().flat_map(|shown| shown.values()).next();
        event["type"] == "UPDATE" && shown.is_some_and(|shown| shown["path"]["index"] == 1 && shown["state"] == "UP")
    })?;

    let events = client.stop()?;
    ensure!(events.iter().any(|event| event["event"] == "closed"), "the client did not close");
    server.peer.event("close")?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn refresh() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let pod = node.pod("client")?;
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &["--token-lifetime", "8s", "--timeout", "2s"])?;
    let connected = client.event("connected")?;
    let seen = client.events().len();
    // Due after a fifth of the lifetime.
    let again = client.matching("refresh", Duration::from_secs(6), seen, answered)?;
    for part in ["id", "context", "mechanism", "network_service_endpoint_name"] {
        ensure!(again["connection"][part] == connected["connection"][part], "{part}: {again}\nbefore: {connected}");
    }
    let ids = |event: &serde_json::Value| -> Vec<String> {
        let segments = event["connection"]["path"]["path_segments"].as_array().cloned().unwrap_or_default();
        segments.iter().map(|segment| segment["id"].to_string()).collect()
    };
    ensure!(ids(&again) == ids(&connected), "{again}");
    client.matching("UPDATE after the refresh", Duration::from_secs(5), seen, |event| event["type"] == "UPDATE")?;
    let requests = server.peer.events().iter().filter(|event| event["event"] == "request").count();
    ensure!(requests >= 2, "the endpoint saw {requests} requests");
    ping_both(&pod, &server.pod, &again)?;
    client.stop()?;
    server.peer.event("close")?;
    Ok(())
}

pub(crate) fn monitor_shows_no_more_than_one_connection() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let (one, two) = (node.pod("one")?, node.pod("two")?);
    let mut first = go_client(&node, one.namespace(), "go-one", &[])?;
    first.event("connected")?;
    let mut second = go_client(&node, two.namespace(), "go-two", &[])?;
    let connected = second.event("connected")?;
    ping_both(&two, &server.pod, &connected)?;
    let id = connected["connection"]["id"].clone();
    for event in second.events().iter().filter(|event| event["event"] == "monitor") {
        for shown in event["connections"].as_object().into_iter().flat_map(|shown| shown.values()) {
            ensure!(shown["path"]["path_segments"][0]["id"] == id, "another's connection: {shown}");
        }
    }
    first.stop()?;
    second.stop()?;
    Ok(())
}
