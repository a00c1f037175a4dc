//! Network services beside networks, and networks that the agent plans: one ADD, all or nothing.

use anyhow::ensure;
use nsm_lab::{Endpoint, Node};
use serde_json::json;

use super::{Sandbox, bridge, calls, held, links, list, nothing_left, ptp, recorder, write};
use crate::SERVICE;

const ANNOTATIONS: &str = "io.kubernetes.cri.pod-annotations";

/// Two networks and a service: the runtime gets the first network's result, and DEL ends all of it.
pub(crate) fn services_beside_networks() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("other", &[recorder(&node)])]);
    let mut sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    sandbox.conf["runtimeConfig"][ANNOTATIONS] = json!({"networkservicemesh.io": "kernel://icmp"});
    let added = sandbox.add()?.ok()?;
    ensure!(links(&pod)? == ["eth0", "nsm-1"], "{:?}", links(&pod)?);
    let ips = added.json["ips"].as_array().map_or(0, Vec::len);
    ensure!(ips == 1 && added.json["ips"][0]["address"] == "10.77.0.2/24", "{}", added.json);
    ensure!(node.connections()?.len() == 1);
    sandbox.check(&added.json)?.ok()?;
    sandbox.add()?.refused(102)?;
    ensure!(node.connections()?.len() == 1);
    for _ in 0..2 {
        sandbox.del()?.ok()?;
    }
    nothing_left(&node, &[&pod])?;
    node.nothing_left(&before)
}

/// A service that nobody offers undoes the networks too.
pub(crate) fn a_service_that_fails_undoes_networks() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("other", &[recorder(&node)])]);
    let mut sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    sandbox.conf["runtimeConfig"][ANNOTATIONS] = json!({"networkservicemesh.io": "kernel://nobody"});
    sandbox.add()?.refused(11)?;
    nothing_left(&node, &[&pod])?;
    let commands: Vec<_> = calls(&node)?.iter().map(|call| call["command"].clone()).collect();
    ensure!(commands == ["ADD", "DEL"], "{commands:?}");
    sandbox.del()?.ok()?;
    ensure!(node.connections()?.is_empty());
    Ok(())
}

/// A network that the configuration calls by its name is a file where the cluster has no such object: the agent says so.
pub(crate) fn planned_by_the_agent() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let conf_dir = node.dir().join("networks");
    write(&conf_dir.join("10.conflist"), &list("bridge", &[bridge(&node)]))?;
    write(&conf_dir.join("20.conflist"), &list("ptp", &[ptp(&node)]))?;
    let keys = json!({"clusterNetwork": "ptp", "defaultNetworks": ["bridge"], "confDir": conf_dir});
    let mut sandbox = Sandbox::of(&node, &pod, &keys)?;
    let added = sandbox.add()?.ok()?;
    ensure!(links(&pod)? == ["eth0", "net1"], "{:?}", links(&pod)?);
    sandbox.check(&added.json)?.ok()?;
    // DEL needs nobody.
    sandbox.conf["cniSocket"] = json!(node.dir().join("none.sock"));
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])?;
    sandbox.conf["cniSocket"] = json!(node.cni_socket());
    sandbox.conf["runtimeConfig"][ANNOTATIONS] = json!({"k8s.v1.cni.cncf.io/networks": "storage"});
    let told = sandbox.add()?.refused(7)?;
    ensure!(told.contains("network \"storage\": no file in"), "{told}");
    ensure!(held(&node, "ptp").is_empty());
    Ok(())
}

/// On a node that moves from Multus the plugin may be chained: behind the network that is the meta-plugin's first one, where it is left
/// out, and behind the meta-plugin itself, where it finds its services made. They are made once, and end once.
pub(crate) fn chained_too() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let annotations = json!({ANNOTATIONS: {"networkservicemesh.io": "kernel://icmp"}});
    let chained = json!({"type": "nsm-cni", "capabilities": {ANNOTATIONS: true}, "cniSocket": node.cni_socket()});
    let file = node.dir().join("net.d/00-nsm.conflist");
    write(&file, &list("ptp", &[ptp(&node), chained.clone()]))?;
    let mut sandbox = Sandbox::of(&node, &pod, &json!({"clusterNetwork": file, "type": "multus"}))?;
    sandbox.conf["runtimeConfig"] = annotations.clone();
    let mut behind = chained;
    for (key, value) in
        [("cniVersion", &json!("1.0.0")), ("name", &sandbox.conf["name"]), ("runtimeConfig", &annotations)]
    {
        behind[key] = value.clone();
    }
    let added = sandbox.add()?.ok()?;
    let there = || -> anyhow::Result<()> {
        ensure!(links(&pod)? == ["eth0", "nsm-1"], "{:?}", links(&pod)?);
        ensure!(node.connections()?.len() == 1, "{:?}", node.connections()?);
        Ok(())
    };
    there()?;
    behind["prevResult"] = added.json.clone();
    let last = node.cni().call(&sandbox.call_with("ADD", &behind))?.ok()?;
    there()?;
    let address = |json: &serde_json::Value| json["ips"][0]["address"].clone();
    ensure!(address(&last.json) == address(&added.json), "{} {}", last.json, added.json);
    behind["prevResult"] = last.json.clone();
    sandbox.check(&last.json)?.ok()?;
    node.cni().call(&sandbox.call_with("CHECK", &behind))?.ok()?;
    for _ in 0..2 {
        node.cni().call(&sandbox.call_with("DEL", &behind))?.ok()?;
        sandbox.del()?.ok()?;
    }
    nothing_left(&node, &[&pod])?;
    node.nothing_left(&before)
}
