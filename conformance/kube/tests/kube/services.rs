//! Services of all namespaces.

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::eventually;
use serde_json::{Value, json};

use crate::{SOON, caller};

/// The condition of the service `firewall` of a namespace: status and reason.
fn accepted(cluster: &Cluster, namespace: &str) -> anyhow::Result<Option<(String, String)>> {
    let path = format!("/apis/networkservicemesh.io/v1/namespaces/{namespace}/networkservices/firewall");
    let object = cluster.get(&path)?;
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted");
    Ok(accepted.map(|condition| (text(&condition["status"]), text(&condition["reason"]))))
}

fn is(status: &'static str, reason: &'static str) -> impl Fn(&Option<(String, String)>) -> bool {
    move |seen| seen.as_ref().is_some_and(|seen| (seen.0.as_str(), seen.1.as_str()) == (status, reason))
}

pub(crate) fn the_oldest_of_a_name_counts() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let member = cluster.started("node-a")?;
    let other = cluster.started("node-b")?;
    // By name where they are of one second: "a" is before "b".
    for (namespace, payload) in [("a", "IP"), ("b", "ETHERNET")] {
        cluster.make_namespace(namespace)?;
        let service = json!({
            "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
            "metadata": { "name": "firewall", "namespace": namespace }, "spec": { "payload": payload },
        });
        cluster.create(&service)?.map_err(anyhow::Error::msg)?;
    }
    let payload = |node: &nsm_lab::Node| -> anyhow::Result<String> {
        let all = node.get("netsvc")?;
        Ok(all.first().context("none yet")?["spec"]["payload"].as_str().unwrap_or_default().to_owned())
    };
    for node in [&member.node, &other.node] {
        eventually("the older one", SOON, || payload(node), |payload| payload == "IP")?;
    }
    eventually("first's condition", SOON, || accepted(&cluster, "a"), is("True", "Accepted"))?;
    eventually("second's condition", SOON, || accepted(&cluster, "b"), is("False", "NameTaken"))?;
    cluster.delete("/apis/networkservicemesh.io/v1/namespaces/a/networkservices/firewall")?;
    for node in [&member.node, &other.node] {
        eventually("the one that is left", SOON, || payload(node), |payload| payload == "ETHERNET")?;
    }
    eventually("second's condition", SOON, || accepted(&cluster, "b"), is("True", "Accepted"))?;
    // An operator's word goes to the one that counts, and a template that cannot be read is said.
    let path = "/apis/networkservicemesh.io/v1/namespaces/b/networkservices/firewall";
    let broken = json!({ "spec": { "matches": [{ "routes": [{ "destination_selector": { "a": "{{ .b" } }] }] } });
    cluster.patch(path, &broken)?;
    eventually("the condition of what cannot be read", SOON, || accepted(&cluster, "b"), is("False", "Invalid"))?;
    eventually("none", SOON, || caller::known_services(&member.node), Vec::is_empty)?;
    let writes = cluster.asked()?.iter().filter(|asked| asked.resource == "networkservices/status").count();
    ensure!(writes <= 10, "{writes} writes of conditions for 4 changes and two agents");
    Ok(())
}
