//! The product as it is installed: manifests, a DaemonSet, an upgrade.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_kube::pods::{ASKS, IMAGE, client, endpoint, file, interfaces, reaches, serve};
use nsm_kube::releases::{OWN, Other};
use nsm_kube::{BIN_DIR, BUSYBOX, CONF_DIR, Machine, Mesh, SOON, Traces, idle, is, patiently};
use nsm_lab::Pinger;
use serde_json::Value;

const PACE: Duration = Duration::from_millis(50);

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

/// Has all agents replaced by those of an image, while pods that ask and pods that do not come and go.
fn replace(mesh: &Mesh, image: &str) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.upgrade(image)?;
    let rolled = || {
        let pods = mesh.pods("nsm-system")?;
        let new = pods.iter().filter(|pod| pod["spec"]["containers"][0]["image"] == image && is(pod, "Ready"));
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
        // It was made by one of two versions, and ends with whichever is there then.
        mesh.delete("replaced", &[&names[0], &names[1]])?;
        mesh.gone("replaced", &[&names[0], &names[1]])?;
        turn += 1;
        ensure!(turn < 60, "the agents are not replaced");
    }
    eprintln!("{turn} turns of two pods while the agents were replaced by {image}");
    Ok(())
}

/// What `nsmctl check` of this release says of versions: for each the level and what was compared.
fn versions(machine: &Machine) -> anyhow::Result<Vec<(String, String)>> {
    let findings = machine.findings(&[])?;
    let of = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let versions = findings.iter().filter(|finding| of(finding, "subject").starts_with("versions"));
    Ok(versions.map(|finding| (of(finding, "level"), of(finding, "detail"))).collect())
}

/// The plugin on disk and the agent are of that version, as they say themselves, and `nsmctl` of this one tells.
fn is_of_version(mesh: &Mesh, version: &str) -> anyhow::Result<()> {
    for at in 0..mesh.len() {
        let machine = mesh.machine(at)?;
        let plugin = || machine.place().output(Command::new(format!("{BIN_DIR}/nsm-cni")).arg("--version"));
        patiently("the plugin's version", SOON, plugin, |said| said.trim() == format!("nsm-cni {version}"))?;
    }
    let machine = mesh.machine(0)?;
    let level = if version == OWN { "ok" } else { "warning" };
    let agent = format!("agent {version}, nsmctl {OWN}");
    let told = |found: &Vec<(String, String)>| found.contains(&(level.to_owned(), agent.clone()));
    patiently("what nsmctl check says of versions", SOON, || versions(machine), told).map(drop)
}

pub(crate) fn upgraded_and_rolled_back(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("replaced", &Value::Null)?;
    let other = Other::make()?;
    for at in 0..mesh.len() {
        mesh.machine(at)?.import(std::slice::from_ref(&other.archive))?;
    }
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    is_of_version(mesh, OWN)?;
    serve(mesh, machine, &endpoint("replaced", "responder", machine, "icmp", "172.16.1.0/24"))?;
    serve(mesh, machine, &endpoint("replaced", "other", machine, "more", "172.16.2.0/24"))?;
    mesh.create(&client("replaced", "pod", machine, ASKS, "kernel://icmp/nsm-1"))?;
    mesh.running("replaced", "pod")?;
    let network = mesh.network_of(machine, "replaced", "pod")?;
    let pinger = Pinger::start(&network, reaches(&network, "nsm-1")?, PACE)?;
    for (image, version) in [(other.name.as_str(), other.version.as_str()), (IMAGE, OWN)] {
        replace(mesh, image)?;
        is_of_version(mesh, version)?;
        // What the pod has is known, whoever wrote the record: another interface comes and goes beside it.
        let edit = |asked: &str| {
            let asked = format!("{ASKS}={asked}");
            mesh.kubectl(&["-n", "replaced", "annotate", "--overwrite", "pod", "pod", &asked])
        };
        edit("kernel://icmp/nsm-1,kernel://more/nsm-2")?;
        patiently("another interface", SOON, || interfaces(&network), |names| names.len() == 3)?;
        edit("kernel://icmp/nsm-1")?;
        patiently("its end", SOON, || interfaces(&network), |names| names.len() == 2)?;
    }
    let pings = pinger.stop_behind(50);
    ensure!(pings.lost == 0, "{pings:?}");
    eprintln!("{pings:?} during an upgrade and a rollback");
    mesh.delete("replaced", &["pod", "responder", "other"])?;
    mesh.gone("replaced", &["pod", "responder", "other"])?;
    before.remain(machine)
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
    let pings = pinger.stop_behind(20);
    ensure!(pings.lost == 0, "{pings:?}");
    Ok(())
}
