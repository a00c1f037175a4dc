//! From creation to readiness, of many pods at once.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_kube::pods::{ASKS, client, endpoint, serve};
use nsm_kube::{Mesh, idle, is, patiently};
use serde_json::Value;

use crate::figures::{Figures, rounds};

const AT_ONCE: usize = 64;
/// For all of them.
const ALL: Duration = Duration::from_mins(3);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Without,
    Silent,
    Asking,
}

pub(crate) fn sixty_four_pods_at_once(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("bench", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("bench", "responder", machine, "icmp", "172.16.0.0/20"))?;
    let arms = [Arm::Without, Arm::Silent, Arm::Asking];
    let mut figures: [Figures; 3] = Default::default();
    for round in 0..rounds("NSM_BENCH_ROUNDS", 4) {
        for turn in 0..arms.len() {
            let at = (round + turn) % arms.len();
            if arms[at] == Arm::Without {
                machine.unconfigure("00-nsm.conflist")?;
            }
            start(mesh, arms[at], &mut figures[at])?;
            machine.install()?;
        }
    }
    figures[0].print("pod ready, 64 at once, without us");
    figures[1].print("pod ready, 64 at once, with us, asks nothing");
    figures[2].print("pod ready, 64 at once, with us, asks one service");
    for (at, what) in [(1, "asks nothing"), (2, "asks one service")] {
        let [p50, p99] = [50, 99].map(|percent| figures[at].percentile(percent) / figures[0].percentile(percent));
        println!("64 at once, {what}, beside without us: median {p50:.3}x, p99 {p99:.3}x");
    }
    Ok(())
}

fn start(mesh: &Mesh, arm: Arm, figures: &mut Figures) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let mut created = BTreeMap::new();
    for at in 0..AT_ONCE {
        let name = format!("pod-{at}");
        let pod = match arm {
            Arm::Without | Arm::Silent => idle("bench", &name, machine.name()),
            Arm::Asking => client("bench", &name, machine, ASKS, "kernel://icmp/nsm-1"),
        };
        mesh.create(&pod)?;
        created.insert(name, Instant::now());
    }
    let names: Vec<String> = created.keys().cloned().collect();
    let mut look = || {
        for pod in mesh.pods("bench")?.iter().filter(|pod| is(pod, "Ready")) {
            let name = pod["metadata"]["name"].as_str().context("name")?;
            if let Some(began) = created.remove(name) {
                figures.add(began.elapsed());
            }
        }
        Ok(created.len())
    };
    patiently("all pods ready", ALL, &mut look, |left| *left == 0)?;
    ensure!(created.is_empty());
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    mesh.delete("bench", &names)?;
    patiently("all pods gone", ALL, || Ok(mesh.pods("bench")?.len()), |count| *count == 1).map(drop)
}
