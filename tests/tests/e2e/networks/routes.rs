//! Default routes: one of each family.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use nsm_lab::{Node, Pod};
use nsm_netlink::{Family, Hop, IfName, Netns, NetnsSocket};
use serde_json::{Value, json};

use super::{Sandbox, bridge, ipam, list, nothing_left, ptp};

/// Each default route of a pod: family, gateways, link.
fn defaults(pod: &Pod) -> anyhow::Result<Vec<(Family, Option<IpAddr>, String)>> {
    let mut socket = NetnsSocket::open(&Netns::open(pod.namespace().path())?)?;
    let mut all = Vec::new();
    for route in socket.default_routes()? {
        for hop in route.hops {
            let link = socket.link(hop.index)?.map(|link| link.name.as_str().to_owned()).unwrap_or_default();
            all.push((route.family, hop.gateway, link));
        }
    }
    Ok(all)
}

fn both(node: &Node, third: u8, routes: &Value) -> Value {
    let mut both = ipam(node, third, routes);
    both["ranges"] = json!([[{"subnet": format!("10.77.{third}.0/24")}], [{"subnet": format!("fd77:{third}::/64")}]]);
    both
}

/// Two networks would each give one: the first network's stays, in both families, and CHECK agrees.
pub(crate) fn the_first_networks_default_stays() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let everything = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let first = json!({"type": "ptp", "ipam": both(&node, 0, &everything)});
    let second =
        json!({"type": "bridge", "bridge": "br-lab", "isDefaultGateway": true, "ipam": both(&node, 1, &json!([]))});
    let delegates = json!([list("ptp", &[first]), list("bridge", &[second])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    let added = sandbox.add()?.ok()?;
    let found = defaults(&pod)?;
    let expected = [
        (Family::V4, Some(IpAddr::from([10, 77, 0, 1])), "eth0".to_owned()),
        (Family::V6, Some("fd77::1".parse()?), "eth0".to_owned()),
    ];
    ensure!(found == expected, "{found:?}");
    let routes = added.json["routes"].as_array().map_or(0, Vec::len);
    ensure!(routes == 2, "{}", added.json);
    sandbox.check(&added.json)?.ok()?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// The first network gives none: the next one's stays.
pub(crate) fn a_default_where_the_first_has_none() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let first = json!({"type": "ptp", "ipam": ipam(&node, 0, &json!([]))});
    let delegates = json!([list("ptp", &[first]), list("bridge", &[bridge(&node)])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    let added = sandbox.add()?.ok()?;
    let found = defaults(&pod)?;
    ensure!(found == [(Family::V4, Some(IpAddr::from([10, 77, 1, 1])), "net1".to_owned())], "{found:?}");
    sandbox.check(&added.json)?.ok()?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// A running pod's new network takes the default route, of one family only; the pod beside it keeps its own. CHECK and the
/// results follow.
pub(crate) fn a_default_moves_and_a_sibling_keeps_its_own() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let [pod, sibling] = [node.pod("client")?, node.pod("sibling")?];
    let everything = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    let first = json!({"type": "ptp", "ipam": both(&node, 0, &everything)});
    let keys = json!({"delegates": [list("ptp", &[first])]});
    let (sandbox, other) = (Sandbox::of(&node, &pod, &keys)?, Sandbox::of(&node, &sibling, &keys)?);
    let added = sandbox.add()?.ok()?;
    other.add()?.ok()?;
    let siblings = defaults(&sibling)?;
    let mut conf = sandbox.conf.clone();
    conf["attach"] = json!({
        "name": "team/bridge", "ifname": "net1", "configuration": list("bridge", &[bridge(&node)]),
        "defaultRoute": ["10.77.1.1"],
    });
    let got = node.cni().call(&sandbox.call_with("NSM_ATTACH", &conf))?.ok()?;
    let found = defaults(&pod)?;
    let expected = [
        (Family::V4, Some(IpAddr::from([10, 77, 1, 1])), "net1".to_owned()),
        (Family::V6, Some("fd77::1".parse()?), "eth0".to_owned()),
    ];
    ensure!(found == expected && defaults(&sibling)? == siblings, "{found:?}");
    let told = |answer: &Value, place: usize| answer["networks"][place]["result"]["routes"].clone();
    ensure!(told(&got.json, 1) == json!([{"dst": "0.0.0.0/0", "gw": "10.77.1.1"}]), "{}", got.json);
    ensure!(told(&got.json, 0).as_array().is_some_and(|left| left.len() == 1), "{}", got.json);
    sandbox.check(&added.json)?.ok()?;
    // It goes, and what it took is back, as it was.
    let results = || -> anyhow::Result<Value> {
        let text = fs::read_to_string(node.dir().join("cni/nsm-cni/client@eth0.results"))?;
        Ok(serde_json::from_str::<Value>(&text)?["results"]["eth0"]["routes"].clone())
    };
    let dsts = |routes: &Value| routes.as_array().map_or(0, Vec::len);
    ensure!(dsts(&results()?) == 1, "{}", results()?);
    let mut less = sandbox.conf.clone();
    less["detach"] = json!({"ifname": "net1"});
    for _ in 0..2 {
        let left = node.cni().call(&sandbox.call_with("NSM_DETACH", &less))?.ok()?;
        ensure!(told(&left.json, 0).as_array().is_some_and(|back| back.len() == 2), "{}", left.json);
        ensure!(defaults(&pod)? == siblings, "{:?}", defaults(&pod)?);
        ensure!(dsts(&results()?) == 2, "{}", results()?);
    }
    sandbox.check(&added.json)?.ok()?;
    // None at all, and then again what was there.
    conf["attach"]["defaultRoute"] = json!([]);
    node.cni().call(&sandbox.call_with("NSM_ATTACH", &conf))?.ok()?;
    ensure!(defaults(&pod)?.is_empty(), "{:?}", defaults(&pod)?);
    sandbox.check(&added.json)?.ok()?;
    node.cni().call(&sandbox.call_with("NSM_DETACH", &less))?.ok()?;
    ensure!(defaults(&pod)? == siblings, "{:?}", defaults(&pod)?);
    for one in [&sandbox, &other] {
        one.del()?.ok()?;
    }
    nothing_left(&node, &[&pod, &sibling])
}

/// A default route that no network made stays where no network asks for another, and is back when the one that asked has gone.
pub(crate) fn a_default_of_no_network_stays() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("ptp", &[ptp(&node)])]}))?;
    sandbox.add()?.ok()?;
    // As a tunnel in the pod would, or a network service.
    let other =
        Sandbox::of(&node, &pod, &json!({"delegates": [list("other", &[other_link(&node)])], "name": "other"}))?;
    let mut call = other.call_with("ADD", &other.conf);
    call.ifname = "tun0";
    node.cni().call(&call)?.ok()?;
    let mut socket = NetnsSocket::open(&Netns::open(pod.namespace().path())?)?;
    let index = socket.link_by_name(&IfName::new("tun0")?)?.context("tun0")?.index;
    let tunnel = IpAddr::from([10, 77, 2, 1]);
    socket.add_default_route(Family::V4, Hop { index, gateway: Some(tunnel), onlink: false }, Some(50))?;
    let before = defaults(&pod)?;
    ensure!(before.len() == 2, "{before:?}");
    let mut conf = sandbox.conf.clone();
    conf["attach"] =
        json!({"name": "team/bridge", "ifname": "net1", "configuration": list("bridge", &[bridge(&node)])});
    let mut less = sandbox.conf.clone();
    less["detach"] = json!({"ifname": "net1"});
    let detach = || node.cni().call(&sandbox.call_with("NSM_DETACH", &less))?.ok();
    node.cni().call(&sandbox.call_with("NSM_ATTACH", &conf))?.ok()?;
    ensure!(defaults(&pod)? == before, "{:?}", defaults(&pod)?);
    detach()?;
    ensure!(defaults(&pod)? == before, "{:?}", defaults(&pod)?);
    conf["attach"]["defaultRoute"] = json!(["10.77.1.1"]);
    node.cni().call(&sandbox.call_with("NSM_ATTACH", &conf))?.ok()?;
    let asked = (Family::V4, Some(IpAddr::from([10, 77, 1, 1])), "net1".to_owned());
    ensure!(defaults(&pod)? == [asked], "{:?}", defaults(&pod)?);
    detach()?;
    ensure!(defaults(&pod)? == before, "{:?}", defaults(&pod)?);
    Ok(())
}

/// A network without default route.
fn other_link(node: &Node) -> Value {
    json!({"type": "ptp", "ipam": ipam(node, 2, &json!([]))})
}
