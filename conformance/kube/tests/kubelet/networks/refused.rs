//! What cannot be attached is told on the pod, and nothing is left of it.

use anyhow::{Context, ensure};
use nsm_kube::definitions::DEFAULT_NETWORK;
use nsm_kube::{Mesh, SOON, idle, patiently};
use serde_json::{Value, json};

use super::{asking, bridge, by_meta_plugin};

pub(crate) fn what_cannot_be_is_told(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("others", &Value::Null)?;
    by_meta_plugin(mesh, 0, "refused", &json!({ "namespaceIsolation": true }), |mesh| pods(mesh))
}

fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.define("others", &[("theirs", bridge("br-theirs", "10.67.9.0/24"))])?;
    let reaching = |key: &str, value: Value| {
        let mut network = bridge("br-reach", "10.67.8.0/24");
        network[key] = value;
        network
    };
    mesh.define("refused", &[
        ("good", bridge("br-good", "10.67.1.0/24")),
        ("multus", json!({ "cniVersion": "1.0.0", "type": "multus", "clusterNetwork": "/etc/cni/net.d/10-first.conflist" })),
        ("meta", json!({ "cniVersion": "1.0.0", "type": "nsm-cni", "delegates": [{ "type": "ptp" }] })),
        ("nested", reaching("ipam", json!({ "type": "multus" }))),
        ("reaching", reaching("cniDir", "/etc".into())),
        ("empty", json!({ "cniVersion": "1.0.0", "plugins": [] })),
        ("absent", json!({ "cniVersion": "1.0.0", "type": "not-there" })),
        ("broken", json!({ "cniVersion": "1.0.0", "type": "macvlan", "master": "eth7",
            "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.67.2.0/24" }]] } })),
        ("deaf", json!({ "cniVersion": "1.0.0", "type": "bridge", "bridge": "br-deaf" })),
    ])?;
    let object = |more: Value| {
        let mut all = json!({ "name": "good" });
        all.as_object_mut().into_iter().zip(more.as_object().cloned()).for_each(|(all, more)| all.extend(more));
        json!([all]).to_string()
    };
    // Which network, which plugin or key, and why.
    let cases: [(&str, String, &[&str]); 12] = [
        ("missing", "good,nowhere".into(), &["NetworkAttachmentDefinition", "nowhere", "refused"]),
        ("multus", "good,multus".into(), &["refused/multus", "type", "multus"]),
        ("meta", "meta".into(), &["refused/meta", "nsm-cni", "meta-plugin"]),
        ("nested", "nested".into(), &["refused/nested", "multus"]),
        ("reaching", "good,reaching".into(), &["refused/reaching", "cniDir"]),
        ("empty", "empty".into(), &["refused/empty", "plugins"]),
        ("absent", "good,absent".into(), &["refused/absent", "not-there", "/opt/cni/bin"]),
        ("broken", "good,broken".into(), &["refused/broken", "net2", "macvlan", "Link not found"]),
        ("isolated", "others/theirs".into(), &["others/theirs", "namespaceIsolation"]),
        (
            "undeclared",
            object(json!({ "bandwidth": { "ingressRate": 1000, "ingressBurst": 1000 } })),
            &["refused/good", "bandwidth"],
        ),
        ("deaf", json!([{ "name": "deaf", "ips": ["10.67.3.9"] }]).to_string(), &["refused/deaf", "10.67.3.9"]),
        ("annotation", object(json!({ "mac": "not one" })), &["k8s.v1.cni.cncf.io/networks", "not one"]),
    ];
    for (name, networks, _) in &cases {
        mesh.create(&asking("refused", name, machine, networks))?;
    }
    let mut first = idle("refused", "first", machine.name());
    first["metadata"]["annotations"] = json!({ DEFAULT_NETWORK: "others/theirs" });
    mesh.create(&first)?;
    let of_first: (&str, &[&str]) = ("first", &["others/theirs", "namespaceIsolation"]);
    for (name, words) in cases.iter().map(|(name, _, words)| (*name, *words)).chain([of_first]) {
        let told = |events: &Vec<String>| {
            events
                .iter()
                .any(|event| event.contains("FailedCreatePodSandBox") && words.iter().all(|word| event.contains(word)))
        };
        patiently(&format!("an event of {name} with {words:?}"), SOON, || mesh.events("refused", name), told)?;
    }
    // Undone, though the kubelet goes on trying.
    for network in ["good", "broken", "theirs", "net"] {
        patiently("no address in use", SOON, || machine.addresses_of(network), Vec::is_empty).context(network)?;
    }
    ensure!(mesh.pods("refused")?.iter().all(|pod| pod["status"]["phase"] == "Pending"), "one started");
    Ok(())
}
