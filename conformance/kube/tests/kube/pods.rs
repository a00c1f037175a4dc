//! Pods that ask by annotation.

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::eventually;
use serde_json::{Value, json};

use crate::SOON;

/// Events about a pod of one reason.
fn events(cluster: &Cluster, pod: &str, reason: &str) -> anyhow::Result<Vec<Value>> {
    let mut all = cluster.items("/api/v1/events")?;
    all.retain(|event| event["involvedObject"]["name"] == pod && event["reason"] == reason);
    Ok(all)
}

pub(crate) fn on_the_hosts_network_are_told_so() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    for (name, host, asks) in [("asks", true, true), ("silent", true, false), ("own", false, true)] {
        let annotations = if asks { json!({ "networkservicemesh.io": "kernel://icmp" }) } else { Value::Null };
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "annotations": annotations },
            "spec": { "nodeName": "node-a", "hostNetwork": host, "containers": [{ "name": "c", "image": "none" }] },
        });
        cluster.create(&pod)?.map_err(anyhow::Error::msg)?;
    }
    let of = |name: &str| events(&cluster, name, "NetworkServiceHostNetwork");
    let told = eventually("the event", SOON, || of("asks"), |events| events.len() == 1)?;
    let event = told.first().context("none")?;
    ensure!(event["type"] == "Warning" && event["count"] == 1, "{event}");
    ensure!(event["message"].as_str().unwrap_or_default().contains("set hostNetwork: false"), "{event}");
    // A change of the pod, and a restart of the agent, are no news.
    cluster.patch("/api/v1/namespaces/default/pods/asks", &json!({ "metadata": { "labels": { "a": "b" } } }))?;
    a.node.kill_agent()?;
    a.node.start_agent()?;
    let writes = || {
        let asked = cluster.asked()?;
        let of_events = asked.into_iter().filter(|asked| asked.resource == "events");
        Ok(of_events.map(|asked| asked.verb).collect::<Vec<_>>())
    };
    eventually("the word of the new agent", SOON, writes, |writes| writes.len() == 2)?;
    ensure!(writes()? == ["create", "create"], "{:?}", writes()?);
    ensure!(of("asks")?.len() == 1 && of("asks")?[0]["count"] == 1);
    ensure!(of("silent")?.is_empty() && of("own")?.is_empty());
    Ok(())
}
