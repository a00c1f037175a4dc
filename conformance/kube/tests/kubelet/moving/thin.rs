//! Multus as a plugin, in a configuration that is whoever's runs the node.

use nsm_kube::{BIN_DIR, CONF_DIR, Mesh, Traces};
use serde_json::{Value, json};

use super::lived::Called;
use super::{Node, OLD, ONE, PLAIN, TWO, is_told};

const CONFIGURATION: &str = "00-multus.conf";
const KUBECONFIG: &str = "/etc/cni/net.d/multus.d/multus.kubeconfig";

pub(crate) fn from_the_plugin_and_back(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("thin", &Value::Null)?;
    let node = Node { mesh, at: 0, namespace: "thin" };
    let machine = node.machine()?;
    let before = Traces::of(machine)?;
    node.define()?;
    machine.add_plugin("multus")?;
    // Where a package would have it.
    node.shell(&format!("mkdir -p /opt/multus && cp {BIN_DIR}/multus /opt/multus/multus"))?;
    machine.place().write(KUBECONFIG, &mesh.kubeconfig_for_machines("admin-token").to_string())?;
    machine.configure(
        CONFIGURATION,
        &json!({
            "cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus", "kubeconfig": KUBECONFIG,
            "clusterNetwork": format!("{CONF_DIR}/10-first.conflist"), "binDir": BIN_DIR,
            "logToStderr": false, "logFile": "/var/log/multus.log",
        }),
    )?;
    let lived = there_and_back(&node);
    if lived.is_err() {
        node.open().ok();
    }
    machine.unconfigure(CONFIGURATION)?;
    lived?;
    before.remain(machine)
}

fn there_and_back(node: &Node<'_>) -> anyhow::Result<()> {
    let all = [&PLAIN, &ONE, &TWO, &OLD];
    node.make(&all)?;
    node.exact(&all)?;
    let found = node.findings()?;
    is_told(&found, "warning", "configuration", &["kubeconfig has no effect", "logFile has no effect"])?;
    is_told(&found, "error", "definitions", &["thin/reaching", "ipam.kubernetes.kubeconfig", "ipam.log_file"])?;
    is_told(&found, "error", "pods", &["thin/old", "reaches into the host"])?;
    is_told(&found, "ok", "records", &["4 pods of Multus's"])?;
    let called = Called { plugin: "multus", configuration: CONFIGURATION };
    node.without_loss(|| node.replace("multus", &format!("{BIN_DIR}/nsm-cni")))?;
    node.exact(&all)?;
    node.ends_those_of_multus(&called)?;
    node.drained()?;
    node.replace("multus", "/opt/multus/multus")?;
    node.is_back()?;
    node.replace("multus", &format!("{BIN_DIR}/nsm-cni"))?;
    node.ends_the_last()
}
