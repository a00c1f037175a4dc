//! Network services by NetworkAttachmentDefinition, through Multus as it is.

use anyhow::{Context, ensure};
use nsm_kube::definitions::{NETWORK_STATUS, NETWORKS};
use nsm_kube::pods::{endpoint, interfaces, reaches, serve};
use nsm_kube::{BIN_DIR, Machine, Mesh, idle};
use serde_json::{Value, json};

/// Puts Multus before the first network, as its installer does.
pub(crate) fn install(mesh: &Mesh, machine: &Machine) -> anyhow::Result<()> {
    machine.add_plugin("multus")?;
    let kubeconfig = "/etc/cni/net.d/multus.d/multus.kubeconfig";
    machine.place().write(kubeconfig, &mesh.kubeconfig_for_machines("admin-token").to_string())?;
    machine.configure(
        "00-multus.conf",
        &json!({
            "cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus", "kubeconfig": kubeconfig,
            "delegates": [machine.first_network()], "binDir": BIN_DIR
        }),
    )
}

pub(crate) fn a_definition_of_our_type(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("multus", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("multus", "responder", machine, "icmp", "172.16.1.0/24"))?;
    let config = json!({
        "cniVersion": "1.0.0", "name": "icmp", "type": "nsm-cni", "networkService": "icmp",
        "labels": { "app": "responder" },
    });
    mesh.define("multus", &[("icmp", config)])?;
    install(mesh, machine)?;
    // Ours would come first, and be the only one.
    let result = through_multus(mesh, machine);
    machine.unconfigure("00-multus.conf")?;
    result
}

fn through_multus(mesh: &Mesh, machine: &Machine) -> anyhow::Result<()> {
    for (name, asks, interface) in [
        ("usual", "icmp".to_owned(), "net1"),
        ("named", json!([{"name": "icmp", "interface": "mesh0"}]).to_string(), "mesh0"),
    ] {
        let mut pod = idle("multus", name, machine.name());
        pod["metadata"]["annotations"] = json!({ NETWORKS: asks });
        mesh.create(&pod)?;
        let pod = mesh.running("multus", name)?;
        let network = mesh.network_of(machine, "multus", name)?;
        ensure!(interfaces(&network)? == ["eth0", interface], "{:?}", interfaces(&network)?);
        let peer = reaches(&network, interface)?;
        let annotations = &pod["metadata"]["annotations"];
        let status: Value =
            serde_json::from_str(annotations[NETWORK_STATUS].as_str().context("no status of networks")?)?;
        let ours: Vec<&Value> =
            status.as_array().into_iter().flatten().filter(|of| of["interface"] == interface).collect();
        let [one] = ours[..] else { anyhow::bail!("expected one entry of {interface}: {status}") };
        ensure!(one["name"] == "multus/icmp" && one["ips"][0].is_string(), "{one}, peer {peer}");
        ensure!(annotations["networkservicemesh.io/status"].is_null(), "Multus alone writes: {annotations}");
    }
    mesh.delete("multus", &["usual", "named"])?;
    mesh.gone("multus", &["usual", "named"])
}
