//! What the agent sees and does about networks that ended without a word, and about records that are lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Node, eventually};
use serde_json::{Value, json};

use super::{Sandbox, bridge, calls, held, links, list, ptp, recorder, records, write};
use crate::operator::http;

const SOON: Duration = Duration::from_secs(10);

/// After a reboot what was there before is freed at start, before any pod is made; what runs, and what a call works on, stays.
pub(crate) fn what_a_reboot_left_is_freed() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_METRICS", "127.0.0.1:9090").start_agent()?;
    let [stays, goes, begins] = [node.pod("stays")?, node.pod("goes")?, node.pod("begins")?];
    let networks = json!([list("ptp", &[ptp(&node)]), list("seen", &[recorder(&node)])]);
    for pod in [&stays, &goes] {
        Sandbox::of(&node, pod, &json!({"delegates": networks}))?.add()?.ok()?;
    }
    let kept = node.state_dir().join("meta-plugin");
    let count = || Ok(fs::read_dir(&kept).map_or(0, Iterator::count));
    eventually("how the plugin was called, on disk", SOON, count, |count| *count == 1)?;
    let mut slow = recorder(&node);
    slow["says"] = json!({"ADD": {"hang": true}});
    let slow = json!({"delegates": [list("ptp", &[ptp(&node)]), list("slow", &[slow])]});
    let beginning = Sandbox::of(&node, &begins, &slow)?;
    let mut add = node.cni().start(&beginning.call_with("ADD", &beginning.conf))?;
    let is_begun = |calls: &Vec<Value>| calls.iter().any(|call| call["container"] == "begins");
    eventually("an ADD under way", SOON, || calls(&node), is_begun)?;
    ensure!(held(&node, "ptp").len() == 3);
    drop(beginning);
    node.kill_agent()?;
    // What does not outlive a reboot.
    drop((goes, begins));
    fs::remove_dir_all(node.cni_socket().with_extension("sock.pods"))?;
    fs::remove_dir_all(node.run_dir())?;
    node.start_agent()?;
    let left = |expected: usize| move |held: &Vec<String>| held.len() == expected;
    eventually("the address that is freed", SOON, || Ok(held(&node, "ptp")), left(2))?;
    let ended = || -> anyhow::Result<Vec<Value>> {
        let dels = calls(&node)?.into_iter().filter(|call| call["command"] == "DEL");
        Ok(dels.map(|call| json!([call["container"], call["netns"]])).collect())
    };
    ensure!(ended()? == [json!(["goes", ""])], "{:?}", ended()?);
    ensure!(links(&stays)? == ["eth0"]);
    add.kill()?;
    add.wait()?;
    node.kill_agent()?;
    node.start_agent()?;
    eventually("the address of what did not come to its end", SOON, || Ok(held(&node, "ptp")), left(1))?;
    // The runtime still knows of them, and its DEL finds nothing lost.
    let known =
        |names: &Vec<String>| names == &["begins@eth0.json", "goes@eth0.json", "stays@eth0.json", "stays@eth0.results"];
    eventually("the records", SOON, || Ok(records(&node)), known)?;
    let [goes, begins] = [node.pod("goes")?, node.pod("begins")?];
    for pod in [&goes, &begins] {
        let mut sandbox = Sandbox::of(&node, pod, &json!({"delegates": networks}))?;
        sandbox.conf["prevResult"] = json!({"cniVersion": "1.0.0", "interfaces": []});
        sandbox.netns = None;
        let told = sandbox.del()?.ok()?.stderr;
        ensure!(!told.contains("missing"), "{told}");
    }
    ensure!(records(&node) == ["stays@eth0.json", "stays@eth0.results"] && held(&node, "ptp").len() == 1);
    let unchanged =
        |text: &String| text.lines().any(|line| line == "nsm_network_records_lost_total{cause=\"Missing\"} 0");
    eventually("no loss that is counted", SOON, || http(&node, "/metrics"), unchanged)?;
    Ok(())
}

/// Back at another meta-plugin, which does not know the command, the folder of the one before is let alone.
pub(crate) fn another_plugin_is_not_called_for_ever() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let sandbox = Sandbox::of(&node, &pod, &json!({"delegates": [list("seen", &[recorder(&node)])]}))?;
    sandbox.add()?.ok()?;
    let folder = node.state_dir().join("meta-plugin");
    let kept = || -> anyhow::Result<Vec<PathBuf>> {
        Ok(fs::read_dir(&folder)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?)
    };
    let known = eventually("how it was called", SOON, || Ok(kept().unwrap_or_default()), |kept| kept.len() == 1)?;
    sandbox.del()?.ok()?;
    drop(sandbox);
    node.kill_agent()?;
    let other = node.dir().join("multus");
    fs::write(&other, "#!/bin/sh\necho '{\"code\": 4, \"msg\": \"unknown CNI_COMMAND: NSM_COLLECT\"}'\nexit 1\n")?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755))?;
    let mut call: Value = serde_json::from_slice(&fs::read(&known[0])?)?;
    ensure!(call["call"]["plugin"].is_string(), "{call}");
    call["call"]["plugin"] = json!(other);
    fs::write(&known[0], call.to_string())?;
    node.start_agent()?;
    eventually("nothing to call", SOON, kept, Vec::is_empty).map(drop)
}

/// Lost records are logged and counted, also those that were found while the agent was away, and GC finds what was of them.
pub(crate) fn lost_records_are_counted_and_found() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_METRICS", "127.0.0.1:9090").start_agent()?;
    let [damaged, missing, runs] = [node.pod("damaged")?, node.pod("missing")?, node.pod("runs")?];
    let mut extra = list("extra", &[recorder(&node)]);
    extra["cniVersion"] = "1.1.0".into();
    let conf_dir = node.dir().join("networks");
    write(&conf_dir.join("10.conflist"), &extra)?;
    let annotations = json!({"k8s.v1.cni.cncf.io/networks": "extra"});
    let keys = json!({
        "delegates": [list("bridge", &[bridge(&node)])], "confDir": conf_dir, "cniVersion": "1.1.0",
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
    });
    let socket = node.cni_socket();
    let of = |pod| Sandbox::of(&node, pod, &keys);
    for pod in [&damaged, &missing, &runs] {
        of(pod)?.add()?.ok()?;
    }
    let folder = node.dir().join("cni/nsm-cni");
    fs::write(folder.join("damaged@eth0.json"), "{")?;
    of(&damaged)?.del()?.ok()?;
    let counted = |cause: &'static str| {
        let line = format!("nsm_network_records_lost_total{{cause=\"{cause}\"}} 1");
        move |text: &String| text.lines().any(|found| found == line)
    };
    eventually("the count", SOON, || http(&node, "/metrics"), counted("Damaged"))?;
    let log = node.agent_log();
    ensure!(
        log.contains("the record of a pod's networks cannot be read") && log.contains("damaged@eth0.json.damaged"),
        "{log}"
    );
    // It had an interface that nobody knows any more: who has that network is told to the plugin.
    ensure!(!calls(&node)?.iter().any(|call| call["command"] == "DEL"), "{:?}", calls(&node)?);
    let conf = of(&runs)?.conf;
    node.cni().gc(&conf, Some(&[("runs", "eth0"), ("missing", "eth0")]))?.ok()?;
    let gc = calls(&node)?.into_iter().rfind(|call| call["command"] == "GC").context("no GC")?;
    let mut valid = gc["conf"]["cni.dev/valid-attachments"].as_array().cloned().context("attachments")?;
    valid.sort_by_key(ToString::to_string);
    let known = |container: &str| json!({"containerID": container, "ifname": "net1"});
    ensure!(valid == [known("missing"), known("runs")], "{gc}");
    node.kill_agent()?;
    fs::remove_file(folder.join("missing@eth0.json"))?;
    let without = Sandbox::of(&node, &missing, &keys)?;
    // The agent's word on services is owed; the networks need nobody.
    let told = without.del()?.stderr;
    ensure!(told.contains("the record of container missing is missing"), "{told}");
    ensure!(socket.with_extension("sock.lost").join("missing@eth0.json").exists());
    drop(without);
    node.start_agent()?;
    eventually("the count", SOON, || http(&node, "/metrics"), counted("Missing"))?;
    ensure!(fs::read_dir(socket.with_extension("sock.lost"))?.count() == 0);
    Ok(())
}
