//! NetworkAttachmentDefinitions, and machines whose pods get their networks by the meta-plugin.

use serde_json::{Value, json};

use crate::agent::SOCKET;
use crate::machine::Machine;
use crate::mesh::{Mesh, SOON, patiently};
use crate::runtime::{BIN_DIR, CONF_DIR};

/// Of their kind.
pub const GROUP: &str = "k8s.cni.cncf.io";

/// The annotation by which a pod asks for networks.
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// The annotation by which a pod asks for another first network.
pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// The annotation that says what a pod has.
pub const NETWORK_STATUS: &str = "k8s.v1.cni.cncf.io/network-status";

/// The definition of definitions, as little of it as the specification needs.
pub fn kind() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("network-attachment-definitions.{GROUP}") },
        "spec": {
            "group": GROUP, "scope": "Namespaced",
            "names": { "plural": "network-attachment-definitions", "singular": "network-attachment-definition",
                "kind": "NetworkAttachmentDefinition", "shortNames": ["net-attach-def"] },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object",
                "properties": { "spec": { "type": "object", "properties": { "config": { "type": "string" } } } },
            } } }],
        },
    })
}

/// A definition.
pub fn definition(namespace: &str, name: &str, config: &Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": "NetworkAttachmentDefinition",
        "metadata": { "name": name, "namespace": namespace }, "spec": { "config": config.to_string() },
    })
}

impl Mesh {
    /// Defines networks, and that there are definitions.
    pub fn define(&self, namespace: &str, networks: &[(&str, Value)]) -> anyhow::Result<()> {
        self.kubectl_apply(&kind())?;
        let items = networks.iter().map(|(name, config)| definition(namespace, name, config));
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": items.collect::<Vec<_>>() });
        patiently("definitions of networks", SOON, || self.kubectl_apply(&list), |_| true).map(drop)
    }
}

impl Machine {
    /// The meta-plugin's configuration before the first network, which is a file: as whoever runs the cluster writes it.
    pub fn meta_plugin(&self) -> Value {
        json!({
            "cniVersion": self.first_network()["cniVersion"], "name": "networks", "type": "nsm-cni",
            "clusterNetwork": format!("{CONF_DIR}/10-first.conflist"), "binDir": BIN_DIR,
            "capabilities": { "io.kubernetes.cri.pod-annotations": true },
            "cniSocket": SOCKET, "agentWaitSeconds": 10,
        })
    }
}
