//! Pods that do not ask.

use std::fs;

use anyhow::{Context, ensure};
use nsm_kube::{Mesh, Traces, idle};
use serde_json::Value;

use nsm_kube::pods::interfaces;

pub(crate) fn without_an_agent(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("untouched", &Value::Null)?;
    let before = Traces::of(mesh.machine(0)?)?;
    mesh.create(&idle("untouched", "older", mesh.machine(0)?.name()))?;
    mesh.running("untouched", "older")?;
    mesh.kill_agent(0)?;
    let machine = mesh.machine(0)?;
    mesh.create(&idle("untouched", "newer", machine.name()))?;
    mesh.running("untouched", "newer")?;
    ensure!(interfaces(&mesh.network_of(machine, "untouched", "newer")?)? == ["eth0"]);
    // Nor does one that stops.
    mesh.delete("untouched", &["older", "newer"])?;
    mesh.gone("untouched", &["older", "newer"])?;
    mesh.start_agent(0)?;
    before.remain(mesh.machine(0)?)
}

pub(crate) fn without_agent_and_api_server(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Traces::of(mesh.machine(0)?)?;
    mesh.kill_agent(0)?;
    mesh.cluster_mut().stop_apiserver()?;
    let machine = mesh.machine(0)?;
    let mut pod = idle("kube-system", "alone", machine.name());
    pod["spec"].as_object_mut().context("no spec")?.remove("nodeName");
    let file = machine.static_pods().join("alone.json");
    fs::write(&file, pod.to_string())?;
    let name = format!("alone-{}", machine.name());
    let sandbox = || nsm_kube::sandbox_of(machine, "kube-system", &name);
    let started = nsm_kube::patiently("the pod", nsm_kube::SOON, sandbox, |_| true);
    fs::remove_file(file)?;
    let stopped = nsm_kube::patiently("its end", nsm_kube::SOON, || Ok(sandbox().is_err()), |gone| *gone);
    mesh.cluster_mut().start_apiserver()?;
    started.and(stopped)?;
    mesh.start_agent(0)?;
    before.remain(mesh.machine(0)?)
}
