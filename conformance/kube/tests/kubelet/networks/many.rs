//! Many pods with networks, on a machine of two processors.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_kube::{Mesh, is, patiently};
use serde_json::json;

use super::seen::addresses;
use super::{asking, bridge, by_meta_plugin};

const AT_ONCE: usize = 64;
/// For all of them.
const ALL: Duration = Duration::from_mins(3);
/// What an agent has, in MiB: of a debug build that has nothing to do up to 40.
const MEMORY: u32 = 96;

pub(crate) fn sixty_four_pods_at_once(mesh: &mut Mesh) -> anyhow::Result<()> {
    let limited = mesh.limit_agents(MEMORY);
    let lived = limited.and_then(|()| by_meta_plugin(mesh, 0, "density", &json!({}), |mesh| pods(mesh)));
    mesh.deploy()?;
    lived
}

fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.define("density", &[("many", bridge("br-many", "10.64.0.0/22"))])?;
    let mut created = BTreeMap::new();
    for at in 0..AT_ONCE {
        let name = format!("pod-{at}");
        mesh.create(&asking("density", &name, machine, "many"))?;
        created.insert(name, Instant::now());
    }
    let names: Vec<String> = created.keys().cloned().collect();
    let mut took = Vec::new();
    let mut look = || {
        for pod in mesh.pods("density")?.iter().filter(|pod| is(pod, "Ready")) {
            let began = created.remove(pod["metadata"]["name"].as_str().context("name")?);
            took.extend(began.map(|began| began.elapsed()));
        }
        Ok(created.len())
    };
    patiently("all pods ready", ALL, &mut look, |left| *left == 0)?;
    took.sort();
    let peak = peak_memory(mesh.agent_of(machine)?)?;
    eprintln!(
        "{AT_ONCE} pods with a network each, ready after: median {} ms, p99 {} ms; the agent had at most {peak} of {MEMORY} MiB",
        took[took.len() / 2].as_millis(),
        took[took.len() * 99 / 100].as_millis(),
    );
    ensure!(mesh.restarts_of_agent(machine)? == 0, "the agent needed more than {MEMORY} MiB");
    let given: BTreeSet<String> = machine.addresses_of("many")?.into_iter().collect();
    ensure!(given.len() == AT_ONCE, "{given:?}");
    for name in names.iter().step_by(8) {
        let [address] = addresses(&mesh.network_of(machine, "density", name)?, "net1")?[..] else {
            anyhow::bail!("one address of {name}")
        };
        ensure!(given.contains(&address.to_string()), "{name}: {address}");
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    mesh.delete("density", &names)?;
    patiently("all pods gone", ALL, || Ok(mesh.pods("density")?.len()), |count| *count == 0).map(drop)
}

/// The most memory that a process has had, in MiB.
fn peak_memory(process: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? / 1024)
}
