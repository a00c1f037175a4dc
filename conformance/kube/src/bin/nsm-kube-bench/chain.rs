//! ADD of the node's whole list of plugins, as a runtime runs them, on fresh namespaces.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nsm_kube::pods::{ASKS, endpoint, reaches, serve};
use nsm_kube::{Mesh, Place};
use nsm_lab::Namespace;
use serde_json::{Value, json};

use crate::figures::{Figures, rounds};
use crate::plugin::Sandbox;

/// After a sandbox: the kernel takes a namespace apart with its network lock held, which must not fall into the next figure.
pub(crate) const SETTLE: Duration = Duration::from_millis(80);

const CAPABILITY: &str = "io.kubernetes.cri.pod-annotations";

/// Whose list is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    First,
    Silent,
    Asking,
}

pub(crate) fn add_beside_the_first_network(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("bench", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("bench", "responder", machine, "icmp", "172.16.0.0/20"))?;
    let first = machine.first_network();
    let mut ours = first.clone();
    let plugins = ours["plugins"].as_array_mut().context("plugins")?;
    plugins.push(json!({
        "type": "nsm-cni", "capabilities": { CAPABILITY: true },
        "cniSocket": "/run/nsm/cni.sock", "agentWaitSeconds": 10,
    }));
    let mut figures: [Figures; 3] = Default::default();
    let arms = [Arm::First, Arm::Silent, Arm::Asking];
    for round in 0..rounds("NSM_BENCH_ADDS", 200) + 5 {
        for turn in 0..arms.len() {
            // Each is first as often as the others.
            let at = (round + turn) % arms.len();
            let list = if arms[at] == Arm::First { &first } else { &ours };
            let took = once(machine.place(), list, arms[at], &format!("bench-{round}-{turn}"))?;
            thread::sleep(SETTLE);
            if round >= 5 {
                figures[at].add(took);
            }
        }
    }
    figures[0].print("ADD of the first network (ptp, host-local) alone");
    figures[1].print("the same with nsm-cni behind it, pod asks nothing");
    figures[2].print("the same, pod asks one service");
    for (at, what) in [(1, "asks nothing"), (2, "asks one service")] {
        let [median, p95] = [50, 95].map(|percent| figures[at].percentile(percent) - figures[0].percentile(percent));
        println!("above the first network, {what}: median {median:+.2} ms, p95 {p95:+.2} ms");
    }
    Ok(())
}

/// One sandbox from ADD to DEL; how long ADD took.
fn once(place: &Place, list: &Value, arm: Arm, name: &str) -> anyhow::Result<Duration> {
    let network = place.run(|| Namespace::create(name))??;
    let annotations = if arm == Arm::Asking { json!({ ASKS: "kernel://icmp/nsm-1" }) } else { json!({}) };
    let plugins = list["plugins"].as_array().context("plugins")?;
    let confs = plugins.iter().map(|plugin| {
        let mut conf = plugin.clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        conf["name"] = list["name"].clone();
        if conf["capabilities"][CAPABILITY] == true {
            conf["runtimeConfig"] = json!({ CAPABILITY: annotations });
        }
        conf
    });
    let confs: Vec<Value> = confs.collect();
    // As a runtime does it: one thread that is where the plugins shall be.
    place.run(|| {
        let sandbox = Sandbox { network: &network, interface: "eth0", pod: name, uid: name };
        let began = Instant::now();
        let mut result = Value::Null;
        for conf in &confs {
            result = sandbox.call("ADD", conf, &result)?;
        }
        let took = began.elapsed();
        if arm == Arm::Asking {
            reaches(&network, "nsm-1")?;
        }
        for conf in confs.iter().rev() {
            sandbox.call("DEL", conf, &result)?;
        }
        drop(network);
        Ok(took)
    })?
}
