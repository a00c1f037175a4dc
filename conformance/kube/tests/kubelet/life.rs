//! A pod's life as the kubelet lives it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kube::{Machine, Mesh, SOON, Traces, is, patiently, sandbox_of};
use nsm_lab::{Namespace, Pinger};
use serde_json::Value;

use nsm_kube::pods::{ASKS, client, endpoint, interfaces, reaches, serve};

const PACE: Duration = Duration::from_millis(50);

/// A client of one endpoint, running, and its network.
fn connected(mesh: &Mesh, namespace: &str) -> anyhow::Result<Namespace> {
    mesh.namespace(namespace, &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint(namespace, "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client(namespace, "pod", machine, ASKS, "kernel://icmp/nsm-1"))?;
    mesh.running(namespace, "pod")?;
    let network = mesh.network_of(machine, namespace, "pod")?;
    reaches(&network, "nsm-1")?;
    Ok(network)
}

/// The connections that the agent knows.
pub(crate) fn connections(machine: &Machine) -> anyhow::Result<Vec<Value>> {
    let list: Value = serde_json::from_str(&machine.nsmctl(&["get", "connections", "-o", "json"])?)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

pub(crate) fn a_sandbox_is_made_again(mesh: &mut Mesh) -> anyhow::Result<()> {
    connected(mesh, "again")?;
    let machine = mesh.machine(0)?;
    let id = |connection: &Value| connection["metadata"]["name"].as_str().map(str::to_owned);
    let before: Vec<_> = connections(machine)?.iter().map(id).collect();
    let (old, process) = sandbox_of(machine, "again", "pod")?;
    kill(Pid::from_raw(i32::try_from(process)?), Signal::SIGKILL)?;
    let new = || Ok(sandbox_of(machine, "again", "pod")?.0);
    patiently("another sandbox", SOON, new, |sandbox| *sandbox != old)?;
    mesh.running("again", "pod")?;
    let network = mesh.network_of(machine, "again", "pod")?;
    ensure!(interfaces(&network)? == ["eth0", "nsm-1"], "{:?}", interfaces(&network)?);
    reaches(&network, "nsm-1")?;
    let ids = || Ok(connections(machine)?.iter().map(id).collect::<Vec<_>>());
    patiently("the same client", SOON, ids, |now| *now == before).map(drop)
}

pub(crate) fn restarts_of_everything_lose_no_packet(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Traces::of(mesh.machine(0)?)?;
    let network = connected(mesh, "restarts")?;
    let address = reaches(&network, "nsm-1")?;
    let pinger = Pinger::start(&network, address, PACE)?;
    mesh.kill_agent(0)?;
    mesh.start_agent(0)?;
    let machine = mesh.machine_mut(0)?;
    machine.kill_kubelet()?;
    machine.kill_runtime()?;
    machine.start_runtime()?;
    machine.start_kubelet()?;
    mesh.cluster_mut().stop_apiserver()?;
    mesh.cluster_mut().start_apiserver()?;
    let machine = mesh.machine(0)?;
    mesh.create(&client("restarts", "after", machine, ASKS, "kernel://icmp/nsm-1"))?;
    mesh.running("restarts", "after")?;
    reaches(&mesh.network_of(machine, "restarts", "after")?, "nsm-1")?;
    let pings = pinger.stop_behind(50);
    ensure!(pings.lost == 0, "{pings:?}");
    mesh.delete("restarts", &["pod", "after", "responder"])?;
    mesh.gone("restarts", &["pod", "after", "responder"])?;
    before.remain(machine)
}

pub(crate) fn a_static_pod_asks(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("static", &Value::Null)?;
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    serve(mesh, machine, &endpoint("static", "responder", machine, "icmp", "172.16.1.0/24"))?;
    let mut pod = client("static", "fixed", machine, ASKS, "kernel://icmp/nsm-1");
    pod["spec"].as_object_mut().context("no spec")?.remove("nodeName");
    let file = machine.static_pods().join("asks.json");
    fs::write(&file, pod.to_string())?;
    let name = format!("fixed-{}", machine.name());
    let ready = patiently("the static pod", SOON, || mesh.pod("static", &name), |pod| is(pod, "Ready"));
    let reached = ready.and_then(|_| reaches(&mesh.network_of(machine, "static", &name)?, "nsm-1"));
    fs::remove_file(file)?;
    reached.with_context(|| mesh.events("static", &name).unwrap_or_default().join("\n"))?;
    mesh.gone("static", &[&name])?;
    mesh.delete("static", &["responder"])?;
    mesh.gone("static", &["responder"])?;
    before.remain(machine)
}

pub(crate) fn an_endpoint_that_goes_is_replaced(mesh: &mut Mesh) -> anyhow::Result<()> {
    let network = connected(mesh, "heals")?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("heals", "other", machine, "icmp", "172.16.2.0/24"))?;
    mesh.delete("heals", &["responder"])?;
    let other = || reaches(&network, "nsm-1");
    let of_the_other = |address: &std::net::IpAddr| address.to_string().starts_with("172.16.2.");
    patiently("the other endpoint", SOON, other, of_the_other)?;
    mesh.delete("heals", &["other"])?;
    let lost = |events: &Vec<String>| events.iter().any(|event| event.starts_with("NetworkServiceLost"));
    patiently("an event", SOON, || mesh.events("heals", "pod"), lost).map(drop)
}

/// At once, on a machine of two processors.
const MANY: usize = 100;
/// For all of them.
const ALL: Duration = Duration::from_mins(3);

pub(crate) fn a_hundred_pods_come_and_go_at_once(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("many", &Value::Null)?;
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    serve(mesh, machine, &endpoint("many", "responder", machine, "icmp", "172.16.0.0/20"))?;
    let names: Vec<String> = (0..MANY).map(|at| format!("pod-{at}")).collect();
    for name in &names {
        mesh.create(&client("many", name, machine, ASKS, "kernel://icmp/nsm-1"))?;
    }
    let ready = || Ok(mesh.pods("many")?.iter().filter(|pod| is(pod, "Ready")).count());
    patiently("all of them ready", ALL, ready, |count| *count == MANY + 1)?;
    for name in names.iter().step_by(10) {
        reaches(&mesh.network_of(machine, "many", name)?, "nsm-1")?;
    }
    let mut all: Vec<&str> = names.iter().map(String::as_str).collect();
    all.push("responder");
    mesh.delete("many", &all)?;
    patiently("all of them gone", ALL, || Ok(mesh.pods("many")?.len()), |count| *count == 0)?;
    before.remain(machine)
}

pub(crate) fn a_machine_loses_its_power(mesh: &mut Mesh) -> anyhow::Result<()> {
    let before = Traces::of(mesh.machine(0)?)?;
    connected(mesh, "power")?;
    mesh.power_cycle(0)?;
    let machine = mesh.machine(0)?;
    let again = || {
        let network = mesh.network_of(machine, "power", "pod")?;
        reaches(&network, "nsm-1")
    };
    patiently("its pods again", ALL, again, |_| true)?;
    mesh.delete("power", &["pod", "responder"])?;
    mesh.gone("power", &["pod", "responder"])?;
    before.remain(machine)
}
