//! containerd 2 and libcni, and what a second machine is for.

use std::process::Command;

use anyhow::ensure;
use nsm_kube::pods::{ASKS, client, endpoint, reaches, serve};
use nsm_kube::{BIN_DIR, CONF_DIR, Machine, Mesh, SOON, Traces, idle, patiently};
use nsm_lab::Namespace;
use serde_json::{Value, json};

/// With cniVersion 1.1.0 containerd 2 asks STATUS of each plugin every few seconds, and takes a node out of service by it: not for
/// pods that ask nothing.
pub(crate) fn status_is_true_without_an_agent(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("newer", &Value::Null)?;
    ensure!(mesh.machine(1)?.first_network()["cniVersion"] == "1.1.0");
    mesh.kill_agent(1)?;
    let machine = mesh.machine(1)?;
    let network = machine.place().run(|| Namespace::create("status"))??;
    let status = cnitool(machine, "status", &network);
    machine.place().run(|| drop(network))?;
    status?;
    mesh.create(&idle("newer", "plain", machine.name()))?;
    mesh.running("newer", "plain")?;
    mesh.ready(machine.name())?;
    mesh.start_agent(1)?;
    let machine = mesh.machine(1)?;
    serve(mesh, machine, &endpoint("newer", "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client("newer", "pod", machine, ASKS, "kernel://icmp/nsm-1"))?;
    mesh.running("newer", "pod")?;
    reaches(&mesh.network_of(machine, "newer", "pod")?, "nsm-1").map(drop)
}

/// `cnitool` with the node's first configuration, for a pod with an annotation.
fn cnitool(machine: &Machine, verb: &str, network: &Namespace) -> anyhow::Result<String> {
    let mut command = Command::new(nsm_kube::tool("cnitool")?);
    let annotations = json!({ "io.kubernetes.cri.pod-annotations": { ASKS: "kernel://icmp/nsm-1" } });
    command.env_clear().args([verb, "first"]).arg(network.path());
    command.env("NETCONFPATH", CONF_DIR).env("CNI_PATH", BIN_DIR).env("CNI_IFNAME", "eth0");
    command.env("CAP_ARGS", annotations.to_string());
    command.env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=libcni;K8S_POD_NAME=pod;K8S_POD_UID=pod");
    machine.place().output(&mut command)
}

pub(crate) fn a_pod_of_libcni(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("libcni", &Value::Null)?;
    let machine = mesh.machine(1)?;
    serve(mesh, machine, &endpoint("libcni", "responder", machine, "icmp", "172.16.1.0/24"))?;
    let before = Traces::of(machine)?;
    let network = machine.place().run(|| Namespace::create("libcni"))??;
    cnitool(machine, "add", &network)?;
    // Its path is one of the machine's.
    machine.place().run(|| reaches(&network, "nsm-1"))??;
    cnitool(machine, "status", &network)?;
    cnitool(machine, "del", &network)?;
    machine.place().run(|| drop(network))?;
    before.remain(machine)
}

pub(crate) fn an_endpoint_of_another_machine_is_told(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("apart", &Value::Null)?;
    let [a, b] = [mesh.machine(0)?, mesh.machine(1)?];
    serve(mesh, a, &endpoint("apart", "responder", a, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client("apart", "pod", b, ASKS, "kernel://icmp/nsm-1"))?;
    let told = |events: &Vec<String>| events.iter().any(|event| event.contains(a.name()) && event.contains("icmp"));
    patiently("an event that names the machine", SOON, || mesh.events("apart", "pod"), told)?;
    // One here is enough, and the pod starts.
    serve(mesh, b, &endpoint("apart", "here", b, "icmp", "172.16.2.0/24"))?;
    mesh.running("apart", "pod")?;
    let address = reaches(&mesh.network_of(b, "apart", "pod")?, "nsm-1")?;
    ensure!(address.to_string().starts_with("172.16.2."), "{address}");
    Ok(())
}
