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
        // Nobody has told the agent of the first network of a pod that asked nothing.
        let first = already.then_some(("first", "eth0"));
        let shows = |added: &[(&str, &str)]| {
            let expected: Vec<(&str, &str)> = first.iter().chain(added).copied().collect();
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
