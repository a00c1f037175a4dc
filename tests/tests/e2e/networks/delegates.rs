//! How plugins are called: as the CNI library calls them.

use anyhow::ensure;
use nsm_lab::Node;
use serde_json::{Value, json};

use super::{Sandbox, calls, list, nothing_left, ptp, recorder, write};

/// Capabilities, previous results and versions; what the runtime says is for the first network alone.
pub(crate) fn are_called_as_by_the_library() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let with = |capabilities: Value| {
        let mut plugin = recorder(&node);
        plugin["capabilities"] = capabilities;
        plugin
    };
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let mut old =
        list("first", &[ptp(&node), with(json!({"portMappings": true})), with(json!({"portMappings": false}))]);
    old["cniVersion"] = "0.3.1".into();
    let mut second = list("second", &[with(json!({"portMappings": true}))]);
    second.as_object_mut().map(|second| second.remove("cniVersion"));
    let mut sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [old, second]}))?;
    sandbox.args.push_str(";IP=10.77.0.9");
    sandbox.conf["runtimeConfig"]["portMappings"] = ports.clone();
    sandbox.add()?.ok()?;
    let calls = calls(&node)?;
    let [one, two, three] = &calls[..] else { anyhow::bail!("{calls:?}") };
    for call in [one, two] {
        ensure!(call["ifname"] == "eth0" && call["conf"]["name"] == "first" && call["conf"]["cniVersion"] == "0.3.1");
        ensure!(call["conf"]["prevResult"]["cniVersion"] == "0.3.1", "{call}");
        ensure!(call["conf"]["prevResult"]["ips"][0]["address"] == "10.77.0.9/24", "{call}");
        ensure!(call["args"].as_str().is_some_and(|args| args.contains("IP=10.77.0.9")), "{call}");
    }
    ensure!(one["conf"]["runtimeConfig"] == json!({"portMappings": ports}), "{one}");
    ensure!(two["conf"].get("runtimeConfig").is_none() && three["conf"].get("runtimeConfig").is_none());
    // Without a version it has the meta-plugin's, and nothing before it.
    ensure!(three["ifname"] == "net1" && three["conf"]["cniVersion"] == "1.0.0", "{three}");
    ensure!(three["conf"].get("prevResult").is_none());
    let args = three["args"].as_str().unwrap_or_default();
    ensure!(args.contains("K8S_POD_NAME=client") && !args.contains("IP="), "{args}");
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// Plugins in the folder of the network's name follow it on eth0; those of the auxiliary chain follow nothing. What changes in
/// the folders is for the next pod.
pub(crate) fn of_subdirectories() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let [pod, next] = [node.pod("client")?, node.pod("next")?];
    let dir = node.dir().join("net.d");
    let file = dir.join("10-ptp.conflist");
    let of = |name: &str| {
        let mut plugin = recorder(&node);
        plugin["is"] = name.into();
        plugin
    };
    write(&file, &list("ptp", &[ptp(&node)]))?;
    write(&dir.join("ptp/10-more.conf"), &of("chained"))?;
    write(&dir.join("aux/10-aux.conf"), &of("auxiliary"))?;
    let keys = json!({"clusterNetwork": file, "auxiliaryCNIChainName": "aux"});
    let sandbox = Sandbox::of(&node, &pod, &keys)?;
    let added = sandbox.add()?.ok()?;
    ensure!(added.json["ips"][0]["address"].is_string(), "{}", added.json);
    sandbox.check(&added.json)?.ok()?;
    write(&dir.join("aux/10-aux.conf"), &of("changed"))?;
    let later = Sandbox::of(&node, &next, &keys)?;
    later.add()?.ok()?;
    sandbox.del()?.ok()?;
    later.del()?.ok()?;
    let calls = calls(&node)?;
    let heard: Vec<String> = calls
        .iter()
        .map(|call| [&call["command"], &call["container"], &call["ifname"], &call["conf"]["is"]])
        .map(|parts| parts.map(|part| part.as_str().unwrap_or_default()).join(" "))
        .collect();
    let expected = [
        "ADD client eth0 chained",
        "ADD client net1 auxiliary",
        "CHECK client eth0 chained",
        "CHECK client net1 auxiliary",
        "ADD next eth0 chained",
        "ADD next net1 changed",
        "DEL client net1 auxiliary",
        "DEL client eth0 chained",
        "DEL next net1 changed",
        "DEL next eth0 chained",
    ];
    ensure!(heard == expected, "{heard:#?}");
    ensure!(calls[1]["conf"]["prevResult"]["interfaces"] == json!([]), "{}", calls[1]);
    nothing_left(&node, &[&pod, &next])
}
