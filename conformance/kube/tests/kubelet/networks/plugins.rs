//! What plugins are told of what a pod asks for, and where its networks are defined.

use anyhow::{Context, ensure};
use nsm_kube::definitions::{DEFAULT_NETWORK, NETWORKS, definition};
use nsm_kube::{Machine, Mesh, idle};
use serde_json::{Value, json};

use super::seen::{addresses, true_status};
use super::{asking, bridge, by_meta_plugin, recorder};

pub(crate) fn plugins_are_told_what_a_pod_asks_for(mesh: &mut Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    recorder::install(machine)?;
    let file = json!({ "cniVersion": "1.0.0", "name": "of-a-file", "plugins": [bridge("br-file", "10.69.1.0/24")] });
    machine.place().write("/etc/cni/multus/net.d/50-file.conflist", &file.to_string())?;
    by_meta_plugin(mesh, 0, "told", &json!({}), |mesh| {
        let result = told(mesh).and_then(|()| another_first_network(mesh)).and_then(|()| of_a_file(mesh));
        // Its namespace stays when the scenario has ended.
        let kind = "network-attachment-definitions.k8s.cni.cncf.io";
        mesh.kubectl(&["-n", "kube-system", "delete", "--ignore-not-found", kind, "other"])?;
        result
    })
}

/// Everything that goes to plugins by capabilities and arguments: for DEL the same as for ADD.
fn told(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let capabilities = json!({ "portMappings": true, "bandwidth": true, "infinibandGUID": true, "deviceID": true });
    let network = json!({ "cniVersion": "1.0.0", "type": "recorder", "capabilities": capabilities,
        "args": { "cni": { "kept": 1, "changed": 1 } } });
    mesh.define("told", &[("all", network)])?;
    let ports = json!([{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]);
    let bandwidth = json!({ "ingressRate": 2048, "ingressBurst": 1600 });
    let asks = json!([{ "name": "all", "portMappings": ports, "bandwidth": bandwidth, "deviceID": "0000:08:00.1",
        "infiniband-guid": "c2:11:22:33:44:55:66:77", "cni-args": { "changed": 2 } }]);
    mesh.create(&asking("told", "all", machine, &asks.to_string()))?;
    mesh.running("told", "all")?;
    mesh.delete("told", &["all"])?;
    mesh.gone("told", &["all"])?;
    let calls = recorder::calls(machine)?;
    let of = |what: &str| calls.iter().find(|(call, _)| call == what).map(|(_, conf)| conf).context(what.to_owned());
    let (added, deleted) = (of("ADD net1")?, of("DEL net1")?);
    let runtime = &added["runtimeConfig"];
    let port = &runtime["portMappings"][0];
    ensure!(port["hostPort"] == 8080 && port["containerPort"] == 80, "{added}");
    ensure!(port["protocol"].as_str().is_some_and(|protocol| protocol.eq_ignore_ascii_case("tcp")), "{added}");
    ensure!(runtime["bandwidth"]["ingressRate"] == 2048 && runtime["bandwidth"]["ingressBurst"] == 1600, "{added}");
    ensure!(runtime["infinibandGUID"] == "c2:11:22:33:44:55:66:77", "{added}");
    ensure!(runtime["deviceID"] == "0000:08:00.1", "{added}");
    ensure!(runtime.get("io.kubernetes.cri.pod-annotations").is_none(), "it is not declared: {added}");
    ensure!(added["args"]["cni"] == json!({ "kept": 1, "changed": 2 }), "{added}");
    for key in ["runtimeConfig", "args", "name", "cniVersion", "capabilities"] {
        ensure!(added[key] == deleted[key], "{key} of ADD {added} and of DEL {deleted}");
    }
    Ok(())
}

/// Instead of the cluster's, for one pod.
fn another_first_network(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.define("kube-system", &[("other", bridge("br-other", "10.69.2.0/24"))])?;
    let annotated = |name: &str, annotations: Value| {
        let mut pod = idle("told", name, machine.name());
        pod["metadata"]["annotations"] = annotations;
        pod
    };
    mesh.create(&annotated("other", json!({ DEFAULT_NETWORK: "other" })))?;
    mesh.create(&annotated("usual", json!({ NETWORKS: "" })))?;
    mesh.running("told", "other")?;
    mesh.running("told", "usual")?;
    let first = |name: &str| addresses(&mesh.network_of(machine, "told", name)?, "eth0");
    ensure!(first("other")?[0].to_string().starts_with("10.69.2."), "{:?}", first("other"));
    ensure!(machine.pod_network().contains(first("usual")?[0]), "{:?}", first("usual"));
    let status = true_status(mesh, machine, ("told", "other"), &[("kube-system/other", "eth0")])?;
    let pod = mesh.pod("told", "other")?;
    ensure!(pod["status"]["podIP"] == status[0]["ips"][0], "{status:?}, {}", pod["status"]);
    Ok(())
}

/// A definition without a configuration is a network of a file.
fn of_a_file(mesh: &Mesh) -> anyhow::Result<()> {
    let machine: &Machine = mesh.machine(0)?;
    let mut network = definition("told", "of-a-file", &Value::Null);
    network["spec"] = json!({});
    mesh.kubectl_apply(&network)?;
    mesh.create(&asking("told", "file", machine, "of-a-file"))?;
    mesh.running("told", "file")?;
    true_status(mesh, machine, ("told", "file"), &[("first", "eth0"), ("told/of-a-file", "net1")])?;
    ensure!(machine.addresses_of("of-a-file")?.len() == 1);
    Ok(())
}
