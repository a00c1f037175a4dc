//! Registry calls of Go programs.

use std::time::Duration;

use anyhow::ensure;
use nsm_lab::Node;
use nsm_peers::{Peer, registry};
use serde_json::{Value, json};

use crate::lab::endpoint;
use crate::selection::apply_matches;

fn found(events: &[Value]) -> Vec<&str> {
    let names = events.iter().filter(|event| event["event"] == "found");
    let mut names: Vec<&str> = names.filter_map(|event| event["object"]["name"].as_str()).collect();
    names.sort_unstable();
    names
}

pub(crate) fn services() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let matches = json!([{ "sourceSelector": { "app": "a" }, "routes": [{ "destinationSelector": { "app": "b" } }] }]);
    registry(&node, "r1", "register", "ns", &json!({ "name": "one", "matches": matches }))?;
    registry(&node, "r2", "register", "ns", &json!({ "name": "two", "payload": "ETHERNET" }))?;
    let all = registry(&node, "r3", "find", "ns", &json!({}))?;
    ensure!(found(&all) == ["one", "two"], "{all:?}");
    let one = registry(&node, "r4", "find", "ns", &json!({ "name": "one" }))?;
    ensure!(one[0]["object"]["payload"] == "IP", "a service without payload carries IP: {one:?}");
    ensure!(one[0]["object"]["matches"][0]["source_selector"]["app"] == "a", "{one:?}");
    let ethernet = registry(&node, "r5", "find", "ns", &json!({ "payload": "ETHERNET" }))?;
    ensure!(found(&ethernet) == ["two"], "{ethernet:?}");
    registry(&node, "r2", "unregister", "ns", &json!({ "name": "two" }))?;
    registry(&node, "r2", "unregister", "ns", &json!({ "name": "never-there" }))?;
    let all = registry(&node, "r6", "find", "ns", &json!({}))?;
    ensure!(found(&all) == ["one"], "{all:?}");
    Ok(())
}

fn object(name: &str, app: &str) -> Value {
    json!({
        "name": name,
        "networkServiceNames": ["one"],
        "networkServiceLabels": { "one": { "labels": { "app": app } } },
        "url": format!("tcp://192.0.2.1:{}", 5000 + name.len()),
    })
}

pub(crate) fn endpoints() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    registry(&node, "r1", "register", "ns", &json!({ "name": "one" }))?;
    let answer = registry(&node, "r2", "register", "nse", &object("e-a", "a"))?;
    ensure!(answer[0]["object"]["name"] == "e-a", "names are the caller's: {answer:?}");
    ensure!(!answer[0]["object"]["expiration_time"].is_null(), "{answer:?}");
    registry(&node, "r2", "register", "nse", &object("e-bb", "b"))?;
    for (template, expected) in [
        (json!({}), vec!["e-a", "e-bb"]),
        (json!({ "name": "e-a" }), vec!["e-a"]),
        (json!({ "networkServiceNames": ["one"] }), vec!["e-a", "e-bb"]),
        (json!({ "networkServiceNames": ["other"] }), vec![]),
        (json!({ "networkServiceLabels": { "one": { "labels": { "app": "b" } } } }), vec!["e-bb"]),
        (json!({ "url": "192.0.2.1:5003" }), vec!["e-a"]),
    ] {
        let events = registry(&node, "r3", "find", "nse", &template)?;
        ensure!(found(&events) == expected, "{template}: {events:?}");
    }
    registry(&node, "r2", "unregister", "nse", &object("e-a", "a"))?;
    registry(&node, "r2", "unregister", "nse", &json!({ "name": "never-there" }))?;
    let events = registry(&node, "r3", "find", "nse", &json!({}))?;
    ensure!(found(&events) == ["e-bb"], "{events:?}");
    Ok(())
}

pub(crate) fn watches() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    registry(&node, "r1", "register", "ns", &json!({ "name": "one" }))?;
    registry(&node, "r2", "register", "nse", &object("e-a", "a"))?;
    let mut services = Peer::watch(&node, "w1", "ns", &json!({ "name": "one" }))?;
    let mut endpoints = Peer::watch(&node, "w2", "nse", &json!({ "networkServiceNames": ["one"] }))?;
    let first = endpoints.event("found")?;
    ensure!(first["object"]["name"] == "e-a" && first["deleted"] == false, "{first}");
    services.event("found")?;
    registry(&node, "r2", "register", "nse", &object("e-bb", "b"))?;
    let second = endpoints.after(1, "found")?;
    ensure!(second["object"]["name"] == "e-bb" && second["deleted"] == false, "{second}");
    registry(&node, "r2", "unregister", "nse", &object("e-a", "a"))?;
    let third = endpoints.after(2, "found")?;
    ensure!(third["object"]["name"] == "e-a" && third["deleted"] == true, "{third}");
    registry(&node, "r1", "unregister", "ns", &json!({ "name": "one" }))?;
    let gone = services.after(1, "found")?;
    ensure!(gone["deleted"] == true, "{gone}");
    Ok(())
}

pub(crate) fn renewal() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    // Two thirds of the shortest life that is left: the token's, less the call's deadline.
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24", &["--token-lifetime", "6s", "--timeout", "2s"])?;
    let first = server.peer.event("register")?;
    let position = server.peer.events().iter().position(|event| event["event"] == "register").unwrap_or_default();
    let second =
        server.peer.matching("renewal", Duration::from_secs(10), position + 1, |event| event["event"] == "register")?;
    let expires = |event: &Value| event["endpoint"]["expiration_time"].as_str().unwrap_or_default().to_owned();
    ensure!(expires(&second) > expires(&first), "{second}\nbefore: {first}");
    let calls = server.peer.events().iter().filter(|event| event["event"] == "register").count();
    ensure!(calls <= 3, "{calls} registrations in one life: the endpoint goes round in circles");
    // Killed, it is withdrawn at once: the socket is its own.
    server.peer.kill()?;
    nsm_lab::eventually("withdrawal", Duration::from_secs(2), || nsm_lab::registered(&node), Vec::is_empty)?;
    Ok(())
}

pub(crate) fn an_operators_matches_survive() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    apply_matches(&node)?;
    let _server = endpoint(&node, "go-nse", "172.16.1.0/24", &[])?;
    let events = registry(&node, "r1", "find", "ns", &json!({ "name": "demo" }))?;
    ensure!(events[0]["object"]["matches"].as_array().is_some_and(|matches| matches.len() == 2), "{events:?}");
    Ok(())
}
