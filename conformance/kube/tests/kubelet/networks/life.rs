//! Sandboxes that end otherwise than by a pod's deletion, and machines without an agent.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kube::pods::interfaces;
use nsm_kube::{Machine, Mesh, SOON, idle, is, patiently, sandbox_of};
use serde_json::json;

use super::seen::{addresses, true_status};
use super::{asking, bridge, by_meta_plugin};

/// Until a machine has its pods again.
const AGAIN: Duration = Duration::from_mins(3);

pub(crate) fn sandboxes_and_machines_end(mesh: &mut Mesh) -> anyhow::Result<()> {
    by_meta_plugin(mesh, 0, "ends", &json!({}), |mesh| {
        mesh.define("ends", &[("net", bridge("br-ends", "10.65.0.0/24"))])?;
        for name in ["one", "two"] {
            mesh.create(&asking("ends", name, mesh.machine(0)?, "net"))?;
        }
        exact(mesh)?;
        sandbox_ends(mesh)?;
        exact(mesh).context("after another sandbox")?;
        power_ends(mesh)?;
        exact(mesh).context("after the loss of power")
    })
}

/// Each pod has its networks, and the store has the addresses of these pods and no others.
fn exact(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let mut there = Vec::new();
    for name in ["one", "two"] {
        mesh.running("ends", name)?;
        true_status(mesh, machine, ("ends", name), &[("first", "eth0"), ("ends/net", "net1")])?;
        there.extend(addresses(&mesh.network_of(machine, "ends", name)?, "net1")?.iter().map(ToString::to_string));
    }
    there.sort();
    let given = || machine.addresses_of("net");
    patiently("the pods' addresses, and no others", SOON, given, |given| *given == there)?;
    let records = || machine.place().list("/var/lib/cni/multus/nsm-cni");
    let whole = |names: &Vec<String>| {
        names.iter().filter(|name| !name.starts_with('.') && !name.ends_with(".results")).count() == 2
    };
    patiently("a record of each pod, and no others", SOON, records, whole).map(drop)
}

fn sandbox_ends(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let (old, process) = sandbox_of(machine, "ends", "one")?;
    kill(Pid::from_raw(i32::try_from(process)?), Signal::SIGKILL)?;
    let new = || Ok(sandbox_of(machine, "ends", "one")?.0);
    patiently("another sandbox", SOON, new, |sandbox| *sandbox != old).map(drop)
}

fn power_ends(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before: Vec<String> = ["one", "two"]
        .iter()
        .map(|name| Ok(sandbox_of(mesh.machine(0)?, "ends", name)?.0))
        .collect::<anyhow::Result<_>>()?;
    mesh.power_cycle(0)?;
    let machine = mesh.machine(0)?;
    for (name, old) in ["one", "two"].iter().zip(before) {
        let again = || Ok(sandbox_of(machine, "ends", name)?.0);
        patiently("a sandbox after the loss of power", AGAIN, again, |new| *new != old)?;
    }
    Ok(())
}

pub(crate) fn without_an_agent(mesh: &mut Mesh) -> anyhow::Result<()> {
    by_meta_plugin(mesh, 0, "alone", &json!({}), |mesh| {
        mesh.define("alone", &[("net", bridge("br-alone", "10.66.0.0/24"))])?;
        mesh.create(&asking("alone", "deleted", mesh.machine(0)?, "net"))?;
        let file = of_a_file(mesh.machine(0)?)?;
        mesh.running("alone", "deleted")?;
        let name = format!("fixed-{}", mesh.machine(0)?.name());
        patiently("the static pod", SOON, || mesh.pod("alone", &name), |pod| is(pod, "Ready"))?;
        mesh.kill_agent(0)?;
        let lived = agent_away(mesh);
        mesh.cluster_mut().stop_apiserver()?;
        fs::remove_file(file)?;
        let ended = all_away(mesh.machine(0)?, &name);
        mesh.cluster_mut().start_apiserver()?;
        mesh.start_agent(0)?;
        lived.and(ended)
    })
}

/// A pod that the kubelet knows without an API server.
fn of_a_file(machine: &Machine) -> anyhow::Result<std::path::PathBuf> {
    let mut pod = asking("alone", "fixed", machine, "net");
    pod["spec"].as_object_mut().context("no spec")?.remove("nodeName");
    let file = machine.static_pods().join("alone.json");
    fs::write(&file, pod.to_string())?;
    Ok(file)
}

/// Pods that ask nothing start and stop; one with networks stops, and another one waits for an agent.
fn agent_away(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.create(&asking("alone", "waits", machine, "net"))?;
    mesh.create(&idle("alone", "plain", machine.name()))?;
    mesh.running("alone", "plain")?;
    ensure!(interfaces(&mesh.network_of(machine, "alone", "plain")?)? == ["eth0"]);
    mesh.delete("alone", &["deleted", "plain"])?;
    mesh.gone("alone", &["deleted", "plain"])?;
    ensure!(machine.addresses_of("net")?.len() == 1, "the static pod's alone: {:?}", machine.addresses_of("net")?);
    let why =
        |events: &Vec<String>| events.iter().any(|event| event.contains("nsm-agent") && event.contains("cni.sock"));
    patiently("an event that names the agent", SOON, || mesh.events("alone", "waits"), why)?;
    mesh.delete("alone", &["waits"])?;
    mesh.gone("alone", &["waits"])
}

/// DEL needs neither agent nor API server.
fn all_away(machine: &Machine, pod: &str) -> anyhow::Result<()> {
    let gone = || Ok(sandbox_of(machine, "alone", pod).is_err());
    patiently("the static pod's end", SOON, gone, |gone| *gone)?;
    patiently("its address freed", SOON, || machine.addresses_of("net"), Vec::is_empty).map(drop)
}
