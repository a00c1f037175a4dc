//! Pods that run get a network more, or lose one, by the host's plugin as the agent calls it.

use std::fs;
use std::net::IpAddr;

use anyhow::{Context, ensure};
use nsm_lab::{Node, Outcome};
use serde_json::{Value, json};

use super::{Sandbox, bridge, calls, held, links, list, nothing_left, ptp, recorder, records};

fn attach(sandbox: &Sandbox<'_>, list: &Value, more: &Value) -> anyhow::Result<Outcome> {
    let mut conf = sandbox.conf.clone();
    conf["attach"] =
        json!({"name": format!("team/{}", list["name"].as_str().unwrap_or_default()), "configuration": list});
    for (key, value) in more.as_object().into_iter().flatten() {
        conf["attach"][key] = value.clone();
    }
    sandbox.node.cni().call(&sandbox.call_with("NSM_ATTACH", &conf))
}

fn detach(sandbox: &Sandbox<'_>, ifname: &str) -> anyhow::Result<Outcome> {
    let mut conf = sandbox.conf.clone();
    // Without a name, as agents before said it.
    conf["detach"] = json!({"ifname": ifname});
    sandbox.node.cni().call(&sandbox.call_with("NSM_DETACH", &conf))
}

/// One more, again, one less; and the pod's own DEL ends what it got later.
pub(crate) fn a_network_more_and_less() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("ptp", &[ptp(&node)])]}))?;
    let extra = list("bridge", &[bridge(&node)]);
    let named = |name: &str| json!({"ifname": name});
    let told = attach(&sandbox, &extra, &named("net1"))?.refused(11)?;
    ensure!(told.contains("nothing is recorded of it"), "{told}");
    let added = sandbox.add()?.ok()?;
    let before = records(&node);
    // Neither ends or makes a whole pod.
    for (command, key) in [("NSM_ATTACH", "attach"), ("NSM_DETACH", "detach")] {
        let told = node.cni().call(&sandbox.call_with(command, &sandbox.conf))?.refused(7)?;
        ensure!(told.contains(&format!("this command needs {key}")) && links(&pod)? == ["eth0"], "{told}");
    }
    let first = attach(&sandbox, &extra, &named("net1"))?.ok()?;
    let networks = &first.json["networks"];
    ensure!(networks[0]["ifname"] == "eth0" && networks[0]["default"] == true, "{networks}");
    ensure!(networks[1]["name"] == "team/bridge" && networks[1]["ifname"] == "net1", "{networks}");
    ensure!(networks[1]["result"]["ips"][0]["address"] == "10.77.1.2/24", "{networks}");
    pod.ping(IpAddr::from([10, 77, 1, 1]))?;
    let again = attach(&sandbox, &extra, &named("net1"))?.ok()?;
    ensure!(again.json == first.json && held(&node, "bridge").len() == 1);
    // Asked for otherwise since, and not heard of: it is what was asked last.
    let other = json!({"ifname": "net1", "cniArgs": "IP=10.77.1.77"});
    let got = attach(&sandbox, &extra, &other)?.ok()?;
    ensure!(got.json["networks"][1]["result"]["ips"][0]["address"] == "10.77.1.77/24", "{}", got.json);
    ensure!(held(&node, "bridge") == ["10.77.1.77"] && links(&pod)? == ["eth0", "net1"], "{:?}", held(&node, "bridge"));
    attach(&sandbox, &list("other", &[recorder(&node)]), &named("net1"))?.refused(102)?;
    attach(&sandbox, &extra, &named("eth0"))?.refused(102)?;
    sandbox.check(&added.json)?.ok()?;
    detach(&sandbox, "eth0")?.refused(7)?;
    // What is not understood ends nothing.
    let mut broken = sandbox.conf.clone();
    broken["detach"] = json!("net1");
    node.cni().call(&sandbox.call_with("DEL", &broken))?.refused(7)?;
    ensure!(links(&pod)? == ["eth0", "net1"]);
    // Whoever takes it for another network ends nothing, and is told what there is.
    let mut taken_for_another = sandbox.conf.clone();
    taken_for_another["detach"] = json!({"ifname": "net1", "name": "team/other"});
    let told = node.cni().call(&sandbox.call_with("NSM_DETACH", &taken_for_another))?.ok()?;
    ensure!(told.json["networks"][1]["name"] == "team/bridge" && links(&pod)? == ["eth0", "net1"], "{}", told.json);
    for _ in 0..2 {
        let left = detach(&sandbox, "net1")?.ok()?;
        ensure!(left.json["networks"].as_array().is_some_and(|all| all.len() == 1), "{}", left.json);
        ensure!(links(&pod)? == ["eth0"] && held(&node, "bridge").is_empty());
    }
    attach(&sandbox, &extra, &named("net2"))?.ok()?;
    ensure!(links(&pod)? == ["eth0", "net2"] && records(&node) == before);
    // Where its record cannot be read it is not told that the network is gone.
    let record = node.dir().join("cni/nsm-cni").join("client@eth0.json");
    let text = fs::read_to_string(&record)?;
    fs::write(&record, "{")?;
    let told = detach(&sandbox, "net2")?.refused(5)?;
    ensure!(told.contains("interface net2 of container client stays"), "{told}");
    fs::write(&record, text)?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// A network that cannot be made, or does not give what is asked, leaves the pod as it was.
pub(crate) fn one_that_fails_changes_nothing() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("ptp", &[ptp(&node)])]}))?;
    let added = sandbox.add()?.ok()?;
    let extra = list("bridge", &[bridge(&node)]);
    // DEL of what was made and is not wanted gets the result.
    let seen = list("bridge", &[bridge(&node), recorder(&node)]);
    attach(&sandbox, &seen, &json!({"ifname": "net1", "ips": ["10.77.1.98"]}))?.refused(100)?;
    let del = calls(&node)?.pop().context("no call")?;
    ensure!(del["command"] == "DEL" && del["conf"]["prevResult"]["ips"][0]["address"].is_string(), "{del}");
    let told = attach(&sandbox, &extra, &json!({"ifname": "net1", "ips": ["10.77.1.99"]}))?.refused(100)?;
    ensure!(told.contains("address 10.77.1.99, and bridge did not give it"), "{told}");
    let told = attach(&sandbox, &extra, &json!({"ifname": "net1", "mac": "02:00:00:00:00:99"}))?.refused(100)?;
    ensure!(told.contains("hardware address 02:00:00:00:00:99"), "{told}");
    let told = attach(&sandbox, &extra, &json!({"ifname": "net1", "defaultRoute": ["192.0.2.1"]}))?.refused(7)?;
    ensure!(told.contains("network \"team/bridge\", interface net1: default route via 192.0.2.1"), "{told}");
    ensure!(links(&pod)? == ["eth0"] && held(&node, "bridge").is_empty());
    sandbox.check(&added.json)?.ok()?;
    // What plugins heed by CNI_ARGS counts.
    let asked = json!({"ifname": "net1", "ips": ["10.77.1.99"], "cniArgs": "IP=10.77.1.99"});
    let got = attach(&sandbox, &extra, &asked)?.ok()?;
    ensure!(got.json["networks"][1]["result"]["ips"][0]["address"] == "10.77.1.99/24", "{}", got.json);
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// The plugin is killed between its steps: pings, default routes and results are as before once the call is repeated, or undone.
pub(crate) fn a_kill_between_its_steps_loses_no_route() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("ptp", &[ptp(&node)])]}))?;
    let added = sandbox.add()?.ok()?;
    let defaults = || -> anyhow::Result<Vec<String>> {
        let mut socket = nsm_netlink::NetnsSocket::open(&nsm_netlink::Netns::open(pod.namespace().path())?)?;
        let hops = socket.default_routes()?.into_iter().flat_map(|route| route.hops);
        Ok(hops.map(|hop| hop.gateway.map(|gateway| gateway.to_string()).unwrap_or_default()).collect())
    };
    ensure!(defaults()? == ["10.77.0.1"], "{:?}", defaults()?);
    let mut extra = bridge(&node);
    extra["isDefaultGateway"] = false.into();
    extra["isGateway"] = true.into();
    let extra = list("bridge", &[extra]);
    let mut attaching = sandbox.conf.clone();
    attaching["attach"] = json!({
        "name": "team/bridge", "configuration": extra, "ifname": "net1", "defaultRoute": ["10.77.1.1"],
    });
    let mut detaching = sandbox.conf.clone();
    detaching["detach"] = json!({"ifname": "net1", "name": "team/bridge"});
    let attach = sandbox.call_with("NSM_ATTACH", &attaching);
    let detach = sandbox.call_with("NSM_DETACH", &detaching);
    for repeated in [true, false] {
        node.cni().ended_at("attach.routes-settled", &attach)?;
        ensure!(defaults()? == ["10.77.1.1"] && held(&node, "bridge").len() == 1, "{:?}", defaults()?);
        if repeated {
            let got = node.cni().call(&attach)?.ok()?;
            ensure!(got.json["networks"].as_array().is_some_and(|all| all.len() == 2), "{}", got.json);
            ensure!(defaults()? == ["10.77.1.1"] && held(&node, "bridge").len() == 1, "{:?}", defaults()?);
            pod.ping(IpAddr::from([10, 77, 1, 1]))?;
        }
        let left = node.cni().call(&detach)?.ok()?;
        ensure!(defaults()? == ["10.77.0.1"] && links(&pod)? == ["eth0"], "{:?}", defaults()?);
        let routes = left.json["networks"][0]["result"]["routes"].to_string();
        ensure!(routes.contains("0.0.0.0/0") && held(&node, "bridge").is_empty(), "{}", left.json);
        sandbox.check(&added.json)?.ok()?;
    }
    // The same of one less: it is ended, and nobody has written it down.
    node.cni().call(&attach)?.ok()?;
    node.cni().ended_at("detach.ended", &detach)?;
    ensure!(defaults()? == ["10.77.0.1"] && links(&pod)? == ["eth0"], "{:?}", defaults()?);
    node.cni().call(&attach)?.ok().context("what is gone is made anew")?;
    ensure!(defaults()? == ["10.77.1.1"] && links(&pod)? == ["eth0", "net1"], "{:?}", defaults()?);
    node.cni().ended_at("detach.ended", &detach)?;
    node.cni().call(&detach)?.ok()?;
    ensure!(defaults()? == ["10.77.0.1"], "{:?}", defaults()?);
    sandbox.check(&added.json)?.ok()?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}
