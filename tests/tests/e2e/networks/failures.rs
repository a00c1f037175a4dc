//! ADDs that fail: nothing of them stays, and nothing of others goes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Node, eventually};
use serde_json::{Value, json};

use super::{Sandbox, bridge, calls, held, links, list, nothing_left, ptp, recorder, records};

const SOON: Duration = Duration::from_secs(5);

/// The last of three networks fails: the others are undone in reverse, the error says which, by which plugin, and why.
pub(crate) fn a_failure_undoes_all() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let mut bad = recorder(&node);
    bad["says"] = json!({"ADD": {"error": {"code": 11, "msg": "no lease"}}});
    let delegates = json!([
        list("ptp", &[ptp(&node), recorder(&node)]),
        list("bridge", &[bridge(&node), recorder(&node)]),
        list("bad", &[bad]),
    ]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    let told = sandbox.add()?.refused(11)?;
    ensure!(told.contains("network \"bad\", interface net2, plugin nsm-delegate: no lease"), "{told}");
    nothing_left(&node, &[&pod])?;
    let calls = calls(&node)?;
    let calls: Vec<String> =
        calls.iter().map(|call| format!("{} {}", call["command"], call["ifname"]).replace('"', "")).collect();
    ensure!(calls == ["ADD eth0", "ADD net1", "ADD net2", "DEL net2", "DEL net1", "DEL eth0"], "{calls:?}");
    // The runtime's DEL finds nothing, and nothing is lost.
    let told = sandbox.del()?.ok()?.stderr;
    ensure!(!told.contains("of container client"), "{told}");
    Ok(())
}

/// What cannot be undone stays recorded, for DEL.
pub(crate) fn what_is_not_undone_is_owed() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let mut bad = recorder(&node);
    bad["says"] =
        json!({"ADD": {"error": {"code": 7, "msg": "first"}}, "DEL": {"error": {"code": 7, "msg": "second"}}});
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("ptp", &[ptp(&node)]), list("bad", &[bad])]}))?;
    let added = sandbox.add()?;
    ensure!(added.stderr.contains("second"), "{}", added.stderr);
    let told = added.refused(7)?;
    ensure!(told.contains("first") && !told.contains("second"), "{told}");
    ensure!(held(&node, "ptp").is_empty() && links(&pod)?.is_empty());
    ensure!(records(&node) == ["client@eth0.json", "client@eth0.results"], "{:?}", records(&node));
    sandbox.del()?.refused(7)?;
    Ok(())
}

/// A second ADD of a running pod changes nothing: neither its interfaces nor its addresses nor its record.
pub(crate) fn a_second_add_changes_nothing() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("bridge", &[bridge(&node)])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    let added = sandbox.add()?.ok()?;
    let before = (links(&pod)?, held(&node, "ptp"), held(&node, "bridge"), records(&node));
    let told = sandbox.add()?.refused(102)?;
    ensure!(told.contains("nothing was changed") && told.contains("ptp, bridge"), "{told}");
    ensure!(before == (links(&pod)?, held(&node, "ptp"), held(&node, "bridge"), records(&node)));
    sandbox.check(&added.json)?.ok()?;
    // Also where the record is lost.
    fs::remove_dir_all(node.dir().join("cni/nsm-cni"))?;
    let told = sandbox.add()?.refused(102)?;
    ensure!(told.contains("interface eth0 exists"), "{told}");
    ensure!(before.0 == links(&pod)? && before.1 == held(&node, "ptp"));
    Ok(())
}

/// An interface that somebody else made is not taken over, and stays.
pub(crate) fn a_foreign_interface_stays() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let foreign =
        Sandbox::of(&node, &pod, &json!({"delegates": [list("bridge", &[bridge(&node)])], "name": "foreign"}))?;
    let mut call = foreign.call_with("ADD", &foreign.conf);
    call.ifname = "net1";
    node.cni().call(&call)?.ok()?;
    let delegates = json!([list("ptp", &[ptp(&node)]), list("seen", &[recorder(&node)])]);
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": delegates}))?;
    let told = sandbox.add()?.refused(102)?;
    ensure!(told.contains("interface net1 exists"), "{told}");
    ensure!(links(&pod)? == ["net1"] && calls(&node)?.is_empty() && held(&node, "ptp").is_empty());
    Ok(())
}

/// The plugin is killed while a network's plugin hangs, which ends too: DEL frees all of it, and another ADD begins anew.
pub(crate) fn killed_on_the_way() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let mut slow = recorder(&node);
    slow["says"] = json!({"ADD": {"hang": true}});
    let delegates = |first: Value| json!({"delegates": [first, list("slow", &[slow.clone()])]});
    let kill = |sandbox: &Sandbox<'_>| -> anyhow::Result<()> {
        let asked = calls(&node)?.len();
        let mut child = node.cni().start(&sandbox.call_with("ADD", &sandbox.conf))?;
        let is_last = |call: &Value| call["command"] == "ADD" && call["ifname"] == "net1";
        eventually("the second network", SOON, || calls(&node), |calls| calls[asked..].iter().any(is_last))?;
        child.kill()?;
        child.wait()?;
        let hung = calls(&node)?.pop().context("no call")?;
        ensure!(hung["command"] == "ADD" && hung["ifname"] == "net1", "{hung}");
        let process = Path::new("/proc").join(hung["pid"].to_string());
        // Nobody may have waited for it yet.
        eventually("the end of the plugin", SOON, || Ok(process.join("exe").read_link().is_ok()), |there| !there)?;
        Ok(())
    };
    let sandbox = Sandbox::of(&node, &pod, &delegates(list("bridge", &[bridge(&node)])))?;
    kill(&sandbox)?;
    ensure!(held(&node, "bridge").len() == 1 && links(&pod)? == ["eth0"]);
    let told = sandbox.add()?.refused(102)?;
    ensure!(told.contains("interface eth0 exists"), "{told}");
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])?;

    let sandbox = Sandbox::of(&node, &pod, &delegates(list("seen", &[recorder(&node)])))?;
    let before = calls(&node)?.len();
    kill(&sandbox)?;
    kill(&sandbox)?;
    let calls = calls(&node)?.into_iter().skip(before);
    let calls: Vec<String> =
        calls.map(|call| format!("{} {}", call["command"], call["ifname"]).replace('"', "")).collect();
    ensure!(calls == ["ADD eth0", "ADD net1", "DEL net1", "DEL eth0", "ADD eth0", "ADD net1"], "{calls:?}");
    sandbox.del()?.ok()?;
    nothing_left(&node, &[&pod])
}

/// What is wrong is refused by name, before anything runs.
pub(crate) fn mistakes_are_refused_by_name() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let seen = list("seen", &[recorder(&node)]);
    let cases: [(Value, i64, &str); 9] = [
        (json!({"delegates": [seen, {"name": "x", "plugins": []}]}), 7, "plugins []"),
        (json!({"delegates": [seen, {"name": "x", "type": "multus"}]}), 7, "meta-plugin"),
        (json!({"delegates": [seen, {"name": "x", "type": "nsm-cni", "clusterNetwork": "/x"}]}), 7, "meta-plugin"),
        (json!({"delegates": [seen], "networkService": "icmp"}), 7, "networkService"),
        (json!({"delegates": [seen], "multusNamespce": "x"}), 2, "multusNamespce"),
        (json!({"delegates": [seen], "prevResult": {"cniVersion": "1.0.0", "ips": []}}), 7, "first in its list"),
        (json!({"delegates": [seen], "defaultNetworks": ["/nowhere"]}), 7, "/nowhere"),
        (json!({"delegates": [seen, list("lost", &[json!({"type": "lost"})])]}), 7, "plugin lost"),
        (json!({"clusterNetwork": "name"}), 11, "nsm-agent is not there"),
    ];
    for (keys, code, text) in cases {
        let told = Sandbox::of(&node, &pod, &keys)?.add()?.refused(code).with_context(|| keys.to_string())?;
        ensure!(told.contains(text), "{keys}: {told}");
    }
    ensure!(calls(&node)?.is_empty() && records(&node).is_empty(), "{:?}", records(&node));
    Ok(())
}

/// Keys that have no effect are told.
pub(crate) fn keys_without_effect_are_told() -> anyhow::Result<()> {
    let node = Node::create("node-1")?;
    let pod = node.pod("client")?;
    let keys =
        json!({"delegates": [list("seen", &[recorder(&node)])], "logLevel": "debug", "kubeconfig": "/etc/kube.conf"});
    let added = Sandbox::of(&node, &pod, &keys)?.add()?.ok()?;
    for key in ["logLevel", "kubeconfig"] {
        ensure!(added.stderr.contains(&format!("{key} has no effect")), "{}", added.stderr);
    }
    Ok(())
}
