//! Default routes: one of each family.

use std::net::IpAddr;

use anyhow::ensure;
use nsm_lab::{Node, Pod};
use nsm_netlink::{Family, Netns, NetnsSocket};
use serde_json::{Value, json};

use super::{Sandbox, bridge, ipam, list, nothing_left};

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
    let got = node.cni().call(&sandbox.call_with("ADD", &conf))?.ok()?;
    let found = defaults(&pod)?;
    let expected = [
        (Family::V4, Some(IpAddr::from([10, 77, 1, 1])), "net1".to_owned()),
        (Family::V6, Some("fd77::1".parse()?), "eth0".to_owned()),
    ];
    ensure!(found == expected && defaults(&sibling)? == siblings, "{found:?}");
    ensure!(got.json["routes"] == json!([{"dst": "0.0.0.0/0", "gw": "10.77.1.1"}]), "{}", got.json);
    sandbox.check(&added.json)?.ok()?;
    for one in [&sandbox, &other] {
        one.del()?.ok()?;
    }
    nothing_left(&node, &[&pod, &sibling])
}
