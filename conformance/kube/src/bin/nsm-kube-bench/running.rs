//! From the edit of an annotation to the interface, and from a pod's ADD to its status.

use std::time::{Duration, Instant};

use anyhow::Context;
use nsm_kube::pods::{ASKS, client, endpoint, interfaces, serve};
use nsm_kube::{Mesh, idle};
use nsm_lab::eventually;
use serde_json::{Value, json};

use crate::figures::{Figures, rounds};

const BOUND: Duration = Duration::from_secs(20);

pub(crate) fn edits_of_a_running_pod(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("bench", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("bench", "responder", machine, "icmp", "172.16.0.0/20"))?;
    mesh.create(&idle("bench", "pod", machine.name()))?;
    mesh.running("bench", "pod")?;
    let network = mesh.network_of(machine, "bench", "pod")?;
    let path = "/api/v1/namespaces/bench/pods/pod";
    let (mut up, mut down, mut said) = (Figures::default(), Figures::default(), Figures::default());
    for _ in 0..rounds("NSM_BENCH_EDITS", 50) {
        let edit = |value: Value, expected: &[&str], figures: &mut Figures| -> anyhow::Result<()> {
            let began = Instant::now();
            mesh.cluster().patch(path, &json!({ "metadata": { "annotations": { ASKS: value } } }))?;
            eventually("interfaces", BOUND, || interfaces(&network), |found| found == expected)?;
            figures.add(began.elapsed());
            Ok(())
        };
        edit(json!("kernel://icmp/nsm-1"), &["eth0", "nsm-1"], &mut up)?;
        let began = Instant::now();
        let state = || status(mesh, path);
        eventually("status", BOUND, state, |state| state.contains("nsm-1"))?;
        said.add(began.elapsed());
        edit(Value::Null, &["eth0"], &mut down)?;
        eventually("status", BOUND, state, |state| !state.contains("nsm-1"))?;
    }
    up.print("edit of an annotation to interface there");
    down.print("edit of an annotation to interface gone");
    said.print("interface there to status written (running pod)");
    after_add(mesh)
}

/// From the interface of a pod that starts, seen in its network, to the status of the pod.
fn after_add(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let mut said = Figures::default();
    for at in 0..rounds("NSM_BENCH_STATUS", 20) {
        let name = format!("starts-{at}");
        let path = format!("/api/v1/namespaces/bench/pods/{name}");
        mesh.create(&client("bench", &name, machine, ASKS, "kernel://icmp/nsm-1"))?;
        let done = || Ok(machine.place().read("/run/lab/node-a/nsm-agent.log")?.matches("ADD").count());
        let before = done()?;
        eventually("ADD", BOUND, done, |now| *now > before)?;
        let began = Instant::now();
        eventually("status", BOUND, || status(mesh, &path), |state| state.contains("nsm-1"))?;
        said.add(began.elapsed());
        mesh.delete("bench", &[&name])?;
        mesh.gone("bench", &[&name])?;
    }
    said.print("ADD logged by the agent to status written");
    Ok(())
}

fn status(mesh: &Mesh, path: &str) -> anyhow::Result<String> {
    let pod = mesh.cluster().get(path)?;
    let annotations = pod["metadata"]["annotations"].as_object().context("no annotations").ok();
    let text = annotations.and_then(|map| map.get("networkservicemesh.io/status")).and_then(Value::as_str);
    Ok(text.unwrap_or_default().to_owned())
}
