//! The cluster itself, with nothing of ours in it.

use std::time::Duration;

use anyhow::Context;
use nsm_kube::{Mesh, idle};
use nsm_lab::ping;
use serde_json::Value;

pub(crate) fn pods_of_the_first_network_reach_each_other(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("plain", &Value::Null)?;
    let machine = mesh.machine(0)?;
    for name in ["one", "two"] {
        mesh.create(&idle("plain", name, machine.name()))?;
    }
    mesh.running("plain", "one")?;
    let two = mesh.running("plain", "two")?;
    let address = two["status"]["podIP"].as_str().context("no address")?;
    mesh.kubectl(&["-n", "plain", "exec", "one", "--", "ping", "-c", "1", "-W", "2", address])?;
    let network = mesh.network_of(machine, "plain", "one")?;
    network.run(|| ping(address.parse()?, Duration::from_secs(2)).map_err(anyhow::Error::from))??;
    Ok(())
}
