//! The cluster itself, with nothing of ours in it: what the other scenarios take for granted.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_kube::{Machine, Mesh, SOON, Traces, idle, patiently};
use nsm_lab::ping;
use serde_json::Value;

pub(crate) fn pods_of_the_first_network_reach_each_other(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("plain", &Value::Null)?;
    for at in 0..mesh.len() {
        let machine = mesh.machine(at)?;
        let before = Traces::of(machine)?;
        for name in ["one", "two"] {
            mesh.create(&idle("plain", name, machine.name()))?;
        }
        mesh.running("plain", "one")?;
        let two = mesh.running("plain", "two")?;
        reaches(mesh, machine, "one", &two).with_context(|| machine.name().to_owned())?;
        mesh.delete("plain", &["one", "two"])?;
        mesh.gone("plain", &["one", "two"])?;
        before.remain(machine)?;
    }
    Ok(())
}

/// As the pod itself sees it, and as the test looks into it.
fn reaches(mesh: &Mesh, machine: &Machine, from: &str, to: &Value) -> anyhow::Result<()> {
    let address = to["status"]["podIP"].as_str().context("no address")?;
    mesh.kubectl(&["-n", "plain", "exec", from, "--", "ping", "-c", "1", "-W", "2", address])?;
    let network = mesh.network_of(machine, "plain", from)?;
    network.run(|| ping(address.parse()?, Duration::from_secs(2)).map_err(anyhow::Error::from))??;
    Ok(())
}

pub(crate) fn pods_of_two_machines_reach_each_other(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("plain", &Value::Null)?;
    let [a, b] = [mesh.machine(0)?, mesh.machine(1)?];
    mesh.create(&idle("plain", "one", a.name()))?;
    mesh.create(&idle("plain", "two", b.name()))?;
    mesh.running("plain", "one")?;
    let two = mesh.running("plain", "two")?;
    reaches(mesh, a, "one", &two)
}

pub(crate) fn a_static_pod_and_restarts(mesh: &mut Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    let mut pod = idle("kube-system", "fixed", machine.name());
    pod["spec"].as_object_mut().context("no spec")?.remove("nodeName");
    let file = machine.static_pods().join("fixed.json");
    fs::write(&file, pod.to_string())?;
    let name = format!("fixed-{}", machine.name());
    mesh.running("kube-system", &name)?;
    let network = mesh.process_of(machine, "kube-system", &name)?;
    let machine = mesh.machine_mut(0)?;
    machine.kill_kubelet()?;
    machine.kill_runtime()?;
    machine.start_runtime()?;
    machine.start_kubelet()?;
    fs::remove_file(file)?;
    let machine = mesh.machine(0)?;
    mesh.gone("kube-system", &[&name])?;
    before.remain(machine)?;
    ensure!(
        patiently("end of its process", SOON, || Ok(fs::exists(format!("/proc/{network}/ns"))?), |there| !there)
            .is_ok()
    );
    Ok(())
}
