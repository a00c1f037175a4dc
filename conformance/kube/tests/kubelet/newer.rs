//! containerd 2 and libcni, and what a second machine is for.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use ipnetwork::IpNetwork;
use nsm_kube::pods::{ASKS, client, endpoint, interfaces, reaches, registered, serve};
use nsm_kube::{BIN_DIR, CONF_DIR, Machine, Mesh, SOON, Traces, idle, patiently};
use nsm_lab::Namespace;
use nsm_netlink::{IfName, LinkConfig, Netns, NetnsSocket};
use serde_json::{Value, json};

/// The agents' leases, with time for a watch and a busy machine.
const LEASE: Duration = Duration::from_secs(70);

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

/// Calls of the runtime to the plugin, a line each, on a machine.
const CALLS: &str = "/run/nsm-cni-calls";

/// Puts before the installed plugin what writes down with which command it is called.
fn trace(machine: &Machine) -> anyhow::Result<()> {
    let (plugin, behind) = (format!("{BIN_DIR}/nsm-cni"), format!("{BIN_DIR}/nsm-cni-behind"));
    let script = format!("#!/bin/sh\necho \"$CNI_COMMAND\" >> {CALLS}\nexec {behind}\n");
    let aside = format!("{plugin}.new");
    machine.place().run(|| {
        fs::copy(&plugin, &behind)?;
        fs::write(&aside, script)?;
        fs::set_permissions(&aside, Permissions::from_mode(0o755))?;
        fs::rename(&aside, &plugin)
    })??;
    Ok(())
}

fn untrace(machine: &Machine) -> anyhow::Result<()> {
    let (plugin, behind) = (format!("{BIN_DIR}/nsm-cni"), format!("{BIN_DIR}/nsm-cni-behind"));
    machine.place().run(|| fs::rename(behind, plugin))??;
    Ok(())
}

/// containerd 2 really asks STATUS, again and again, of the installed plugin; the node stays in service by its answers.
pub(crate) fn containerd_asks_for_status(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("asked", &Value::Null)?;
    let machine = mesh.machine(1)?;
    trace(machine)?;
    let calls = || Ok(machine.place().read(CALLS).unwrap_or_default());
    let count = |calls: &String, command: &str| calls.lines().filter(|line| *line == command).count();
    let seen = patiently("STATUS of containerd, twice", SOON, calls, |calls| count(calls, "STATUS") > 1);
    let lived = seen.and_then(|_| {
        mesh.ready(machine.name())?;
        mesh.create(&idle("asked", "pod", machine.name()))?;
        mesh.running("asked", "pod")?;
        mesh.delete("asked", &["pod"])?;
        mesh.gone("asked", &["pod"])?;
        let calls = calls()?;
        ensure!(count(&calls, "ADD") == 1 && count(&calls, "DEL") >= 1, "{calls}");
        Ok(())
    });
    untrace(machine)?;
    lived
}

/// `cnitool` with the node's first configuration, for a pod with an annotation.
fn cnitool(machine: &Machine, verb: &str, network: &Namespace) -> anyhow::Result<String> {
    cnitool_with(machine, verb, "first", network)
}

/// The same with the list of that name.
fn cnitool_with(machine: &Machine, verb: &str, list: &str, network: &Namespace) -> anyhow::Result<String> {
    let mut command = Command::new(nsm_kube::tool("cnitool")?);
    let annotations = json!({ "io.kubernetes.cri.pod-annotations": { ASKS: "kernel://icmp/nsm-1" } });
    command.env_clear().args([verb, list]).arg(network.path());
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

/// The list that the agent's entry is behind, as [`Machine::install`] writes it, with a first plugin whose own CHECK does not take the
/// addresses of all interfaces for its own.
const LOOPED: &str = "90-looped.conflist";

fn loop_first(machine: &Machine) -> anyhow::Result<()> {
    let installed: Value = serde_json::from_str(&machine.place().read(&format!("{CONF_DIR}/00-nsm.conflist"))?)?;
    let ours = installed["plugins"][1].clone();
    ensure!(ours["type"] == "nsm-cni", "{installed}");
    let plugins = json!([{ "type": "loopback" }, ours]);
    machine.configure(LOOPED, &json!({ "cniVersion": "1.1.0", "name": "looped", "plugins": plugins }))
}

/// What containerd never calls: CHECK, and GC of an attachment that the runtime has forgotten.
pub(crate) fn check_and_gc_by_libcni(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("libcni", &Value::Null)?;
    let machine = mesh.machine(1)?;
    serve(mesh, machine, &endpoint("libcni", "responder", machine, "icmp", "172.16.1.0/24"))?;
    let before = Traces::of(machine)?;
    loop_first(machine)?;
    let network = machine.place().run(|| Namespace::create("looped"))??;
    let call = |verb: &str| cnitool_with(machine, verb, "looped", &network);
    let links = || machine.place().run(|| interfaces(&network))?;
    let added = call("add")?;
    machine.place().run(|| reaches(&network, "nsm-1"))??;
    call("check")?;
    let result: Value = serde_json::from_str(&added)?;
    let of = |ip: &Value| ip["address"].as_str().filter(|address| address.starts_with("172.16.1.")).map(str::parse);
    let ips = result["ips"].as_array().context("no addresses")?;
    let addresses: Vec<IpNetwork> = ips.iter().filter_map(of).collect::<Result<_, _>>()?;
    ensure!(addresses.len() == 1, "{result}");
    machine.place().run(|| strip(&network, "nsm-1", &addresses))??;
    ensure!(call("check").is_err(), "CHECK does not see that the address has gone");
    // cnitool names no attachments that are in use, so that only what has lost its namespace is freed.
    machine.place().run(|| fs::remove_dir_all("/var/lib/cni/results"))??;
    call("gc")?;
    ensure!(links()? == ["nsm-1"], "GC without a list frees what lives");
    // A runtime that names those in use has forgotten this one.
    collect(machine, &json!([]))?;
    patiently("end of the interface", SOON, links, Vec::is_empty)?;
    // The record of the sandbox goes with its DEL, or some minutes after its namespace.
    call("del")?;
    machine.unconfigure(LOOPED)?;
    machine.place().run(|| drop(network))?;
    before.remain(machine)
}

/// GC as libcni calls it for a runtime that says which attachments are in use.
fn collect(machine: &Machine, valid: &Value) -> anyhow::Result<()> {
    let list: Value = serde_json::from_str(&machine.place().read(&format!("{CONF_DIR}/{LOOPED}"))?)?;
    let mut conf = list["plugins"][1].clone();
    for key in ["cniVersion", "name"] {
        conf[key] = list[key].clone();
    }
    conf["cni.dev/valid-attachments"] = valid.clone();
    let stdin = machine.place().dir().join("gc.json");
    fs::write(&stdin, conf.to_string())?;
    let mut command = Command::new(format!("{BIN_DIR}/nsm-cni"));
    command.env_clear().env("CNI_COMMAND", "GC").env("CNI_PATH", BIN_DIR).stdin(fs::File::open(stdin)?);
    machine.place().output(&mut command).map(drop)
}

/// Takes addresses of an interface away.
fn strip(network: &Namespace, interface: &str, addresses: &[IpNetwork]) -> anyhow::Result<()> {
    let mut socket = NetnsSocket::open(&Netns::open(network.path())?)?;
    let link = socket.link_by_name(&IfName::new(interface)?)?.context("no such interface")?;
    let without = LinkConfig { up: true, ..LinkConfig::default() };
    socket.reconfigure(link.index, &LinkConfig { addresses: addresses.to_vec(), ..without.clone() }, &without)?;
    Ok(())
}

/// The node's lease ends with its agent: what is registered there is no longer shown, and not waited for.
pub(crate) fn a_machine_that_is_lost_loses_its_endpoints(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("lost", &Value::Null)?;
    let [a, b] = [mesh.machine(0)?, mesh.machine(1)?];
    serve(mesh, b, &endpoint("lost", "there", b, "icmp", "172.16.1.0/24"))?;
    registered(a, "lost-there")?;
    mesh.create(&client("lost", "pod", a, ASKS, "kernel://icmp/nsm-1"))?;
    let told = |events: &Vec<String>| events.iter().any(|event| event.contains(b.name()) && event.contains("icmp"));
    patiently("an event that names the machine", SOON, || mesh.events("lost", "pod"), told)?;
    mesh.kill_agent(1)?;
    mesh.machine_mut(1)?.kill_kubelet()?;
    let a = mesh.machine(0)?;
    let shown = || a.nsmctl(&["get", "nse", "-o", "json"]);
    let ignored = patiently("that its endpoint is not shown", LEASE, shown, |list| !list.contains("lost-there"));
    // Its kubelet does not keep the cluster from going on without it.
    let healed = ignored.and_then(|_| {
        serve(mesh, a, &endpoint("lost", "here", a, "icmp", "172.16.2.0/24"))?;
        mesh.running("lost", "pod")?;
        let address = reaches(&mesh.network_of(a, "lost", "pod")?, "nsm-1")?;
        ensure!(address.to_string().starts_with("172.16.2."), "{address}");
        Ok(())
    });
    mesh.start_agent(1)?;
    mesh.machine_mut(1)?.start_kubelet()?;
    healed?;
    // The endpoint lives, and its process registers again with the agent that is back.
    registered(mesh.machine(0)?, "lost-there")
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
