//! The product as it is installed: manifests, a DaemonSet, an upgrade.

use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kube::pods::{ASKS, client, endpoint, file, interfaces, reaches, serve};
use nsm_kube::{BUSYBOX, CONF_DIR, Mesh, SOON, Traces, idle, is, patiently};
use nsm_lab::Pinger;
use serde_json::Value;

const PACE: Duration = Duration::from_millis(50);

/// The name under which an upgrade finds the image.
const NEXT: &str = "docker.io/library/nsm:next";

pub(crate) fn installs_itself(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.without_agents()?;
    mesh.deploy()?;
    for at in 0..mesh.len() {
        let machine = mesh.machine(at)?;
        let name = machine.first_configuration()?.context("no configuration")?;
        ensure!(name.starts_with("00-nsm"), "ours is to be first: {name}");
        let list: Value = serde_json::from_str(&machine.place().read(&format!("{CONF_DIR}/{name}"))?)?;
        let first = machine.first_network();
        ensure!(list["name"] == first["name"] && list["cniVersion"] == first["cniVersion"], "{list}");
        ensure!(list["plugins"][0]["ipam"] == first["plugins"][0]["ipam"], "{list}");
        let ours = &list["plugins"][1];
        ensure!(
            ours["type"] == "nsm-cni" && ours["capabilities"]["io.kubernetes.cri.pod-annotations"] == true,
            "{list}"
        );
        mesh.ready(machine.name())?;
    }
    mesh.namespace("deployed", &Value::Null)?;
    for at in 0..mesh.len() {
        let machine = mesh.machine(at)?;
        let before = Traces::of(machine)?;
        let service = format!("icmp-{at}");
        serve(mesh, machine, &endpoint("deployed", "responder", machine, &service, "172.16.1.0/24"))?;
        mesh.create(&client("deployed", "pod", machine, ASKS, &format!("kernel://{service}/nsm-1")))?;
        mesh.running("deployed", "pod")?;
        reaches(&mesh.network_of(machine, "deployed", "pod")?, "nsm-1").with_context(|| machine.name().to_owned())?;
        mesh.delete("deployed", &["pod", "responder"])?;
        mesh.gone("deployed", &["pod", "responder"])?;
        before.remain(machine)?;
    }
    Ok(())
}

/// The pods of a namespace with that label, all of them ready.
fn ready(mesh: &Mesh, namespace: &str, app: &str, count: usize) -> anyhow::Result<Vec<String>> {
    let look = || {
        let pods = mesh.pods(namespace)?;
        let of = pods.iter().filter(|pod| pod["metadata"]["labels"]["app"] == app && is(pod, "Ready"));
        Ok(of.filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned)).collect::<Vec<_>>())
    };
    let all = patiently(&format!("{count} pods {app}"), SOON, look, |names| names.len() == count);
    all.with_context(|| mesh.kubectl(&["-n", namespace, "get", "events"]).unwrap_or_default())
}

pub(crate) fn the_examples(mesh: &mut Mesh) -> anyhow::Result<()> {
    // What a connection needs is on one machine.
    for at in 1..mesh.len() {
        mesh.kubectl(&["cordon", mesh.machine(at)?.name()])?;
    }
    let machine = mesh.machine(0)?;
    machine.ctr(&["images", "tag", "--force", BUSYBOX, "docker.io/library/busybox:1.36"])?;
    for example in ["icmp-responder", "secure-intranet"] {
        mesh.kubectl(&["apply", "-f", &file(&format!("deploy/examples/{example}.yaml"))?])?;
    }
    let of = |namespace: &str, app: &str, count: usize, prefix: &str| -> anyhow::Result<()> {
        for name in ready(mesh, namespace, app, count)? {
            let network = mesh.network_of(machine, namespace, &name)?;
            let address = reaches(&network, "nsm-1")?;
            ensure!(address.to_string().starts_with(prefix), "{name} reaches {address}, expected {prefix}");
        }
        Ok(())
    };
    ready(mesh, "icmp-endpoints", "responder", 1)?;
    of("icmp-clients", "client", 1, "172.16.1.")?;
    ready(mesh, "intranet-endpoints", "firewall", 1)?;
    ready(mesh, "intranet-endpoints", "vpn-gateway", 1)?;
    // Those of the application go to the firewall, the firewall's own to the gateway.
    of("intranet-clients", "web", 2, "172.16.1.")?;
    of("intranet-clients", "inspector", 2, "172.16.2.")?;
    for at in 1..mesh.len() {
        mesh.kubectl(&["uncordon", mesh.machine(at)?.name()])?;
    }
    Ok(())
}

pub(crate) fn without_the_daemon_set(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("alone", &Value::Null)?;
    mesh.undeploy()?;
    let machine = mesh.machine(0)?;
    mesh.create(&idle("alone", "pod", machine.name()))?;
    let started = mesh.running("alone", "pod").and_then(|_| {
        mesh.delete("alone", &["pod"])?;
        mesh.gone("alone", &["pod"])
    });
    mesh.deploy()?;
    started
}

pub(crate) fn killed_and_replaced(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("replaced", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("replaced", "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client("replaced", "pod", machine, ASKS, "kernel://icmp/nsm-1"))?;
    mesh.running("replaced", "pod")?;
    let network = mesh.network_of(machine, "replaced", "pod")?;
    let pinger = Pinger::start(&network, reaches(&network, "nsm-1")?, PACE)?;
    let process = mesh.agent_of(machine)?;
    kill(Pid::from_raw(i32::try_from(process)?), Signal::SIGKILL)?;
    let another = || mesh.agent_of(machine);
    patiently("another agent", SOON, another, |now| *now != process)?;
    mesh.rolled_out()?;
    for at in 0..mesh.len() {
        mesh.machine(at)?.tag_image(NEXT)?;
    }
    mesh.upgrade(NEXT)?;
    // Pods come and go meanwhile, asking and not.
    let rolled = || {
        let pods = mesh.pods("nsm-system")?;
        let new = pods.iter().filter(|pod| pod["spec"]["containers"][0]["image"] == NEXT && is(pod, "Ready"));
        anyhow::Ok(new.count() == mesh.len() && pods.len() == mesh.len())
    };
    let mut turn = 0;
    while !rolled()? || turn < 4 {
        let names = [format!("asks-{turn}"), format!("plain-{turn}")];
        mesh.create(&client("replaced", &names[0], machine, ASKS, "kernel://icmp/nsm-1"))?;
        mesh.create(&idle("replaced", &names[1], machine.name()))?;
        for name in &names {
            mesh.running("replaced", name)?;
            let failed: Vec<String> = mesh.events("replaced", name)?;
            let failed: Vec<&String> = failed.iter().filter(|event| event.contains("FailedCreatePodSandBox")).collect();
            ensure!(failed.is_empty(), "a sandbox failed: {failed:?}");
        }
        let network = mesh.network_of(machine, "replaced", &names[0])?;
        ensure!(interfaces(&network)? == ["eth0", "nsm-1"]);
        turn += 1;
        ensure!(turn < 60, "the agents are not replaced");
    }
    let pings = pinger.stop();
    ensure!(pings.sent > 50 && pings.lost == 0, "{pings:?}");
    eprintln!("{turn} turns of two pods while the agents were replaced; {pings:?}");
    Ok(())
}
