//! Pods that run gain and lose services.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_kube::{Mesh, SOON, idle, patiently};
use nsm_lab::{Namespace, Pinger, eventually};
use serde_json::Value;

use nsm_kube::pods::{ASKS, endpoint, interfaces, reaches, serve};

/// From an edit to an interface, on a busy machine.
const EDITED: Duration = Duration::from_secs(5);
const PACE: Duration = Duration::from_millis(10);

fn offers(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.namespace("running", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("running", "one", machine, "first", "172.16.1.0/24"))?;
    serve(mesh, machine, &endpoint("running", "two", machine, "second", "172.16.2.0/24"))?;
    mesh.create(&idle("running", "pod", machine.name()))?;
    mesh.running("running", "pod").map(drop)
}

/// An interface is there before its addresses and routes are.
fn attached(network: &Namespace, interface: &str) -> anyhow::Result<IpAddr> {
    eventually("the service", EDITED, || reaches(network, interface), |_| true)
}

pub(crate) fn an_edited_annotation_attaches_and_detaches(mesh: &mut Mesh) -> anyhow::Result<()> {
    offers(mesh)?;
    let machine = mesh.machine(0)?;
    let network = mesh.network_of(machine, "running", "pod")?;
    let annotate = |value: &str| mesh.kubectl(&["-n", "running", "annotate", "--overwrite", "pod", "pod", value]);
    let shows = |expected: &[&str]| {
        eventually("the pod's interfaces", EDITED, || interfaces(&network), |found| found == expected)
    };
    annotate(&format!("{ASKS}=kernel://first/nsm-1"))?;
    let began = Instant::now();
    shows(&["eth0", "nsm-1"])?;
    let address = attached(&network, "nsm-1")?;
    eprintln!("attached {} ms after kubectl annotate returned", began.elapsed().as_millis());
    let pinger = Pinger::start(&network, address, PACE)?;
    annotate(&format!("{ASKS}=kernel://first/nsm-1,kernel://second/nsm-2"))?;
    shows(&["eth0", "nsm-1", "nsm-2"])?;
    attached(&network, "nsm-2")?;
    annotate(&format!("{ASKS}=kernel://first/nsm-1"))?;
    shows(&["eth0", "nsm-1"])?;
    let pings = pinger.stop_behind(2);
    ensure!(pings.lost == 0, "the other service was touched: {pings:?}");
    annotate(&format!("{ASKS}-"))?;
    shows(&["eth0"])?;
    annotate(&format!("{ASKS}=kernel://nobody"))?;
    let refused = |events: &Vec<String>| events.iter().any(|event| event.starts_with("NetworkServiceRefused"));
    patiently("an event", SOON, || mesh.events("running", "pod"), refused).map(drop)
}

pub(crate) fn by_hand(mesh: &mut Mesh) -> anyhow::Result<()> {
    offers(mesh)?;
    let machine = mesh.machine(0)?;
    let network = mesh.network_of(machine, "running", "pod")?;
    let shows = |expected: &[&str]| {
        eventually("the pod's interfaces", EDITED, || interfaces(&network), |found| found == expected)
    };
    machine.nsmctl(&["attach", "-n", "running", "pod", "kernel://first/nsm-1"])?;
    shows(&["eth0", "nsm-1"])?;
    attached(&network, "nsm-1")?;
    let pod = mesh.pod("running", "pod")?;
    let asks = pod["metadata"]["annotations"][ASKS].as_str().context("no annotation")?;
    ensure!(asks.contains("first"), "{asks}");
    machine.nsmctl(&["detach", "-n", "running", "pod", "nsm-1"])?;
    shows(&["eth0"]).map(drop)
}
