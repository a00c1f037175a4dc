//! Pods that get what they shall, and lose it.

use std::fs;
use std::net::IpAddr;

use anyhow::ensure;
use nsm_lab::Node;
use serde_json::json;

use super::{Sandbox, bridge, calls, held, links, list, nothing_left, ptp, recorder, records, write};

/// A list in a file as the cluster's network, without an agent.
pub(crate) fn a_list_of_a_file() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let file = node.dir().join("net.d/10-ptp.conflist");
    let tuning = json!({"type": "tuning", "sysctl": {"net.ipv4.conf.eth0.arp_filter": "1"}});
    write(&file, &list("ptp", &[ptp(&node), tuning]))?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"clusterNetwork": file}))?;
    let added = sandbox.add()?.ok()?;
    ensure!(links(&pod)? == ["eth0"] && added.json["cniVersion"] == "1.0.0", "{}", added.json);
    pod.ping(IpAddr::from([10, 77, 0, 1]))?;
    ensure!(held(&node, "ptp").len() == 1);
    ensure!(records(&node) == ["client@eth0.json", "client@eth0.results"], "{:?}", records(&node));
    sandbox.check(&added.json)?.ok()?;
    for _ in 0..2 {
        sandbox.del()?.ok()?;
        nothing_left(&node, &[&pod])?;
    }
    Ok(())
}

/// Of a directory the first network is taken that is no meta-plugin's; the result comes in the configuration's version.
pub(crate) fn a_directory() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let dir = node.dir().join("net.d");
    write(&dir.join("20-ptp.conflist"), &list("ptp", &[ptp(&node)]))?;
    let mut sandbox = Sandbox::of(&node, &pod, &json!({"clusterNetwork": dir, "cniVersion": "0.3.1"}))?;
    write(&dir.join("00-multus.conf"), &sandbox.conf)?;
    let added = sandbox.add()?.ok()?;
    ensure!(added.json["cniVersion"] == "0.3.1" && added.json["ips"][0]["version"] == "4", "{}", added.json);
    sandbox.conf["cniVersion"] = "0.4.0".into();
    sandbox.check(&added.json)?.ok()?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// Two networks that are written in the configuration, and a third that every pod gets but those of the system.
pub(crate) fn several_networks() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let [pod, system] = [node.pod("client")?, node.pod("system")?];
    let file = node.dir().join("more/extra.conflist");
    let mut extra = list("extra", &[recorder(&node)]);
    extra["plugins"][0]["says"] = json!({"ADD": {"cniVersion": "1.0.0", "interfaces": []}});
    write(&file, &extra)?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("bridge", &[bridge(&node)])]);
    let keys = json!({"delegates": delegates, "defaultNetworks": [file], "systemNamespaces": ["kube-system"]});
    let sandbox = Sandbox::of(&node, &pod, &keys)?;
    let added = sandbox.add()?.ok()?;
    ensure!(links(&pod)? == ["eth0", "net1"]);
    let names: Vec<_> = added.json["interfaces"].as_array().into_iter().flatten().map(|one| &one["name"]).collect();
    ensure!(names.contains(&&json!("eth0")) && !names.contains(&&json!("net1")), "{}", added.json);
    for gateway in [[10, 77, 0, 1], [10, 77, 1, 1]] {
        pod.ping(IpAddr::from(gateway))?;
    }
    ensure!(calls(&node)?.iter().map(|call| call["ifname"].as_str()).eq([Some("net2")]), "{:?}", calls(&node)?);
    sandbox.check(&added.json)?.ok()?;

    let mut of_system = Sandbox::of(&node, &system, &keys)?;
    of_system.args = of_system.args.replace("team", "kube-system");
    of_system.add()?.ok()?;
    ensure!(links(&system)? == ["eth0", "net1"]);
    ensure!(calls(&node)?.iter().all(|call| call["container"] == "client"));
    of_system.del()?.ok()?;
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod, &system])
}

/// CHECK looks at every network.
pub(crate) fn check_finds_what_is_gone() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("bridge", &[bridge(&node)])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    let added = sandbox.add()?.ok()?;
    sandbox.check(&added.json)?.ok()?;
    fs::remove_file(node.dir().join("ipam/bridge").join(&held(&node, "bridge")[0]))?;
    let found = sandbox.check(&added.json)?;
    let told = found.json["msg"].as_str().unwrap_or_default().to_owned();
    ensure!(found.exit != 0 && told.contains("network \"bridge\", interface net1, plugin bridge"), "{told}");
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// A hundred pods at once, each whole, nothing left of them.
pub(crate) fn many_at_once() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pods = (0..100).map(|n| node.pod(&format!("pod-{n}"))).collect::<anyhow::Result<Vec<_>>>()?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("bridge", &[bridge(&node)])]);
    let sandboxes = pods
        .iter()
        .map(|pod| Sandbox::of(&node, pod, &json!({"delegates": delegates})))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let at_once = |run: &(dyn Fn(&Sandbox<'_>) -> anyhow::Result<()> + Sync)| {
        std::thread::scope(|scope| {
            let all: Vec<_> = sandboxes.iter().map(|sandbox| scope.spawn(move || run(sandbox))).collect();
            all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })
    };
    at_once(&|sandbox| sandbox.add()?.ok().map(drop))?;
    ensure!(held(&node, "ptp").len() == 100 && held(&node, "bridge").len() == 100);
    at_once(&|sandbox| sandbox.del()?.ok().map(drop))?;
    nothing_left(&node, &pods.iter().collect::<Vec<_>>())
}
