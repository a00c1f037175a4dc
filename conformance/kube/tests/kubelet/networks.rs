//! Networks of pods by the meta-plugin, as whoever runs a cluster sees them.

mod added;
mod chains;
mod claims;
mod devices;
mod life;
mod many;
mod plugins;
mod recorder;
mod refused;
mod routes;
mod running;
mod seen;

use anyhow::Context;
use nsm_kube::definitions::NETWORKS;
use nsm_kube::{Machine, Mesh, Traces, idle};
use serde_json::{Value, json};

pub(crate) use added::pods_have_what_they_ask_for;
pub(crate) use chains::plugins_in_folders_follow;
pub(crate) use claims::each_network_has_a_device_of_a_claim;
pub(crate) use devices::each_network_has_a_device_of_the_pod;
pub(crate) use life::{sandboxes_and_machines_end, without_an_agent};
pub(crate) use many::sixty_four_pods_at_once;
pub(crate) use plugins::plugins_are_told_what_a_pod_asks_for;
pub(crate) use refused::what_cannot_be_is_told;
pub(crate) use routes::a_default_route_moves;
pub(crate) use running::{edited_networks_come_and_go, edited_through_the_door};

/// Before all others.
const FILE: &str = "00-meta.conf";

/// A story on a machine whose pods get their networks by the meta-plugin, with these keys more. After it the pods of the namespace
/// end, nothing is left of them, and the machine is as it was.
fn by_meta_plugin(
    mesh: &mut Mesh,
    at: usize,
    namespace: &str,
    keys: &Value,
    story: impl FnOnce(&mut Mesh) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    mesh.namespace(namespace, &Value::Null)?;
    let before = Traces::of(mesh.machine(at)?)?;
    configure(mesh.machine(at)?, keys)?;
    let lived = story(mesh);
    // While the configuration is there.
    let ended = ended(mesh, namespace).and_then(|()| before.remain(mesh.machine(at)?));
    mesh.machine(at)?.unconfigure(FILE)?;
    lived.and(ended)
}

/// Writes the meta-plugin's configuration with these keys more.
fn configure(machine: &Machine, keys: &Value) -> anyhow::Result<()> {
    let mut config = machine.meta_plugin();
    let more = keys.as_object().context("keys")?.clone();
    config.as_object_mut().context("a configuration")?.extend(more);
    machine.configure(FILE, &config)
}

/// Ends all pods of a namespace.
fn ended(mesh: &Mesh, namespace: &str) -> anyhow::Result<()> {
    let pods = mesh.pods(namespace)?;
    let names: Vec<&str> = pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).collect();
    mesh.delete(namespace, &names)?;
    mesh.gone(namespace, &names)
}

/// A bridge of the machine for pods, with addresses by host-local.
fn bridge(name: &str, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "type": "bridge", "bridge": name,
        "ipam": { "type": "host-local", "ranges": [[{ "subnet": subnet }]] },
    })
}

/// A pod that asks for networks.
fn asking(namespace: &str, name: &str, machine: &Machine, networks: &str) -> Value {
    let mut pod = idle(namespace, name, machine.name());
    pod["metadata"]["annotations"] = json!({ NETWORKS: networks });
    pod
}
