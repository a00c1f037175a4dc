//! Plugins that others put into folders: behind the cluster's network, and as a network of their own.

use std::fs;

use anyhow::ensure;
use nsm_kube::pods::interfaces;
use nsm_kube::{Machine, Mesh, idle};
use serde_json::json;

use super::{by_meta_plugin, recorder};

/// The cluster's network in a directory of its own, with a folder of its name and one of the auxiliary chain.
const DIR: &str = "/etc/cni/chained";

pub(crate) fn plugins_in_folders_follow(mesh: &mut Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let first = machine.first_network();
    machine.place().write(&format!("{DIR}/10-first.conflist"), &first.to_string())?;
    let tuning = json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" } });
    machine.place().write(&format!("{DIR}/first/10-tuning.conf"), &tuning.to_string())?;
    recorder::install(machine)?;
    record_with(machine, "before")?;
    let keys = json!({ "clusterNetwork": format!("{DIR}/10-first.conflist"), "auxiliaryCNIChainName": "extra" });
    by_meta_plugin(mesh, 0, "chained", &keys, |mesh| pods(mesh))
}

/// The auxiliary chain, as an update leaves it.
fn record_with(machine: &Machine, word: &str) -> anyhow::Result<()> {
    machine
        .place()
        .write(&format!("{DIR}/extra/20-recorder.conf"), &json!({ "type": "recorder", "word": word }).to_string())
}

fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    for (name, word) in [("older", "before"), ("newer", "after")] {
        record_with(machine, word)?;
        mesh.create(&idle("chained", name, machine.name()))?;
        mesh.running("chained", name)?;
        let network = mesh.network_of(machine, "chained", name)?;
        ensure!(interfaces(&network)? == ["eth0"], "{name}: {:?}", interfaces(&network)?);
        let setting = network.run(|| fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_filter"))??;
        ensure!(setting.trim() == "1", "{name}: {setting}");
    }
    // Of the older one DEL has what its ADD had.
    mesh.delete("chained", &["older", "newer"])?;
    mesh.gone("chained", &["older", "newer"])?;
    let calls = recorder::calls(machine)?;
    for word in ["before", "after"] {
        let of: Vec<&str> =
            calls.iter().filter(|(_, conf)| conf["word"] == word).map(|(what, _)| what.as_str()).collect();
        // A second DEL of the runtime finds no record.
        ensure!(of == ["ADD net1", "DEL net1"], "{word}: {of:?} of {calls:?}");
    }
    Ok(())
}
