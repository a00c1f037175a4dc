//! Networks of pods that run.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nsm_kube::definitions::NETWORKS;
use nsm_kube::pods::interfaces;
use nsm_kube::{Mesh, SOON, idle, patiently};
use nsm_lab::eventually;
use serde_json::json;

use super::seen::true_status;
use super::{asking, bridge, by_meta_plugin};

/// From an edit to an interface, on a busy machine.
const EDITED: Duration = Duration::from_secs(5);

pub(crate) fn edited_networks_come_and_go(mesh: &mut Mesh) -> anyhow::Result<()> {
    by_meta_plugin(mesh, 0, "edited", &json!({}), |mesh| pods(mesh))
}

fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.define("edited", &[("a", bridge("br-a", "10.63.1.0/24")), ("b", bridge("br-b", "10.63.2.0/24"))])?;
    mesh.create(&asking("edited", "some", machine, "a"))?;
    mesh.create(&idle("edited", "plain", machine.name()))?;
    let mut took = Vec::new();
    for (name, already) in [("some", true), ("plain", false)] {
        mesh.running("edited", name)?;
        let network = mesh.network_of(machine, "edited", name)?;
        let mut edit = |value: &str, expected: &[&str]| {
            let annotation = format!("{NETWORKS}{value}");
            mesh.kubectl(&["-n", "edited", "annotate", "--overwrite", "pod", name, &annotation])?;
            let began = Instant::now();
            eventually("interfaces", EDITED, || interfaces(&network), |found| found == expected)?;
            took.push(began.elapsed());
            anyhow::Ok(())
        };
        if !already {
            edit("=a", &["eth0", "net1"])?;
        }
        edit("=a,b@more0", &["eth0", "more0", "net1"])?;
        let shows = |added: &[(&str, &str)]| {
            let expected: Vec<(&str, &str)> = [("first", "eth0")].iter().chain(added).copied().collect();
            true_status(mesh, machine, ("edited", name), &expected)
        };
        shows(&[("edited/a", "net1"), ("edited/b", "more0")])?;
        edit("=b@more0", &["eth0", "more0"])?;
        shows(&[("edited/b", "more0")])?;
        edit("=a", &["eth0", "net1"])?;
        edit("-", &["eth0"])?;
        edit("=b", &["eth0", "net1"])?;
        let events = || mesh.events("edited", name);
        mesh.kubectl(&["-n", "edited", "annotate", "--overwrite", "pod", name, &format!("{NETWORKS}=b,nowhere")])?;
        patiently("an event", SOON, events, |all| all.iter().any(|event| event.contains("\"nowhere\"")))?;
        ensure!(interfaces(&network)? == ["eth0", "net1"], "{name}: what there was is untouched");
    }
    took.sort();
    let median = took[took.len() / 2];
    eprintln!("{} edits, in the pod {} ms after kubectl annotate returned (median)", took.len(), median.as_millis());
    ensure!(median < Duration::from_secs(1), "{took:?}");
    ensure!(machine.addresses_of("a")?.is_empty() && machine.addresses_of("b")?.len() == 2);
    Ok(())
}

/// By agents in containers, which have no plugin of their own to call.
pub(crate) fn edited_through_the_door(mesh: &mut Mesh) -> anyhow::Result<()> {
    let edited = by_meta_plugin(mesh, 0, "doors", &json!({}), |mesh| through_the_door(mesh));
    mesh.deploy()?;
    edited
}

fn through_the_door(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.define("doors", &[("a", bridge("br-a", "10.63.1.0/24")), ("b", bridge("br-b", "10.63.2.0/24"))])?;
    mesh.create(&asking("doors", "some", machine, "a"))?;
    mesh.running("doors", "some")?;
    let network = mesh.network_of(machine, "doors", "some")?;
    let edit = |value: &str| {
        let annotation = format!("{NETWORKS}={value}");
        mesh.kubectl(&["-n", "doors", "annotate", "--overwrite", "pod", "some", &annotation])
    };
    edit("a,b")?;
    let events = || mesh.events("doors", "some");
    let without = |all: &Vec<String>| all.iter().any(|event| event.contains("runningPodNetworks"));
    patiently("an event that says what is missing", SOON, events, without)?;
    ensure!(interfaces(&network)? == ["eth0", "net1"]);

    mesh.open_door(machine)?;
    let has =
        |expected: &[&str]| patiently("interfaces", SOON, || interfaces(&network), |found| found == expected).map(drop);
    // What was refused is tried again.
    has(&["eth0", "net1", "net2"])?;
    true_status(mesh, machine, ("doors", "some"), &[("first", "eth0"), ("doors/a", "net1"), ("doors/b", "net2")])?;
    edit("b")?;
    has(&["eth0", "net2"])?;
    true_status(mesh, machine, ("doors", "some"), &[("first", "eth0"), ("doors/b", "net2")])?;
    ensure!(machine.addresses_of("a")?.is_empty() && machine.addresses_of("b")?.len() == 1);
    Ok(())
}
