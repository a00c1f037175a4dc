//! ADD and DEL of the same pod's two networks, by the same configuration: through Multus, and through ours in its place.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_kube::definitions::NETWORKS;
use nsm_kube::pods::interfaces;
use nsm_kube::{Mesh, Place, idle};
use nsm_lab::Namespace;
use serde_json::{Value, json};

use crate::chain::SETTLE;
use crate::figures::{Figures, rounds};
use crate::plugin::Sandbox;

const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";
const KUBECONFIG: &str = "/etc/cni/net.d/multus.d/multus.kubeconfig";

/// How the networks are made.
enum Arm {
    /// Plugin after plugin, by hand.
    ByHand([Value; 2]),
    /// By a configuration of Multus.
    Meta(Value),
}

pub(crate) fn two_networks_beside_multus(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("bench", &Value::Null)?;
    let added = json!({
        "cniVersion": "1.0.0", "name": "added", "type": "bridge", "bridge": "br-bench",
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.68.0.0/16" }]] },
    });
    mesh.define("bench", &[("added", added.clone())])?;
    // The pod is one of the machine's to the agent and to Multus, and nobody starts it.
    mesh.machine_mut(0)?.kill_kubelet()?;
    let machine = mesh.machine(0)?;
    machine.add_plugin("multus")?;
    machine.place().write(KUBECONFIG, &mesh.kubeconfig_for_machines("admin-token").to_string())?;
    let first = machine.first_network();
    let annotations = json!({ NETWORKS: "added" });
    let mut pod = idle("bench", "pod", machine.name());
    pod["metadata"]["annotations"] = annotations.clone();
    let uid = mesh.create(&pod)?["metadata"]["uid"].as_str().context("uid")?.to_owned();
    let mut own = first["plugins"][0].clone();
    for key in ["cniVersion", "name"] {
        own[key] = first[key].clone();
    }
    let mut meta = machine.meta_plugin();
    meta.as_object_mut().context("configuration")?.remove("clusterNetwork");
    meta["delegates"] = json!([first]);
    meta["runtimeConfig"] = json!({ CAPABILITY: annotations });
    let mut multus = json!({ "kubeconfig": KUBECONFIG, "type": "multus" });
    for key in ["cniVersion", "name", "binDir", "delegates", "capabilities", "runtimeConfig"] {
        multus[key] = meta[key].clone();
    }
    let arms = [Arm::ByHand([own, added]), Arm::Meta(multus), Arm::Meta(meta)];
    let measured = measure(machine.place(), &arms, &uid);
    mesh.delete("bench", &["pod"])?;
    mesh.machine_mut(0)?.start_kubelet()?;
    measured
}

fn measure(place: &Place, arms: &[Arm; 3], uid: &str) -> anyhow::Result<()> {
    let mut figures: [[Figures; 2]; 3] = Default::default();
    for round in 0..rounds("NSM_BENCH_ADDS", 100) + 5 {
        for turn in 0..arms.len() {
            // Each is first as often as the others.
            let at = (round + turn) % arms.len();
            let took = once(place, &arms[at], &format!("bench-{round}-{turn}"), uid)?;
            thread::sleep(SETTLE);
            if round >= 5 {
                figures[at].iter_mut().zip(took).for_each(|(figures, took)| figures.add(took));
            }
        }
    }
    for (place, verb) in ["ADD", "DEL"].into_iter().enumerate() {
        for (at, by) in ["by hand", "by Multus", "by nsm-cni"].into_iter().enumerate() {
            figures[at][place].print(&format!("{verb} of ptp and bridge, {by}"));
        }
        let [median, p95] =
            [50, 95].map(|percent| figures[2][place].percentile(percent) / figures[1][place].percentile(percent));
        println!("{verb} beside Multus: median {median:.3}x, p95 {p95:.3}x");
        let more = figures[2][place].percentile(50) - figures[0][place].percentile(50);
        println!("{verb} above the same by hand: median {more:+.2} ms");
    }
    Ok(())
}

/// One sandbox from ADD to DEL; how long each took.
fn once(place: &Place, arm: &Arm, name: &str, uid: &str) -> anyhow::Result<[Duration; 2]> {
    let network = place.run(|| Namespace::create(name))??;
    // As a runtime does it: one thread that is where the plugins shall be.
    place.run(|| {
        let sandbox = |interface| Sandbox { network: &network, interface, pod: "pod", uid };
        let calls: Vec<(&str, &Value)> = match arm {
            Arm::ByHand(confs) => ["eth0", "net1"].into_iter().zip(confs).collect(),
            Arm::Meta(conf) => vec![("eth0", conf)],
        };
        let began = Instant::now();
        let mut results = Vec::new();
        for (interface, conf) in &calls {
            results.push(sandbox(*interface).call("ADD", conf, &Value::Null)?);
        }
        let added = began.elapsed();
        ensure!(interfaces(&network)? == ["eth0", "net1"], "{:?}", interfaces(&network)?);
        let began = Instant::now();
        for ((interface, conf), result) in calls.iter().zip(&results).rev() {
            sandbox(*interface).call("DEL", conf, result)?;
        }
        let deleted = began.elapsed();
        ensure!(interfaces(&network)?.is_empty(), "{:?}", interfaces(&network)?);
        drop(network);
        Ok([added, deleted])
    })?
}
