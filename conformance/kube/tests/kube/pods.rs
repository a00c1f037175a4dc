//! Pods that ask by annotation.

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::eventually;
use serde_json::{Value, json};

use crate::SOON;

/// Events about a pod of one reason.
pub(crate) fn events(cluster: &Cluster, pod: &str, reason: &str) -> anyhow::Result<Vec<Value>> {
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

pub(crate) fn are_edited_by_nsmctl() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.member("node-a")?;
    cluster.make_pod("default", "web", "elsewhere")?;
    let path = "/api/v1/namespaces/default/pods/web";
    let kubeconfig = cluster.admin().display().to_string();
    let nsmctl = |args: &[&str]| a.node.nsmctl(&[args, &["-n", "default", "--kubeconfig", &kubeconfig]].concat());
    let annotations = || Ok::<_, anyhow::Error>(cluster.get(path)?["metadata"]["annotations"].clone());
    for said in ["pod/web annotated\n", "pod/web unchanged\n"] {
        ensure!(nsmctl(&["attach", "web", "kernel://firewall/fw0?app=x", "gateway"])? == said);
        let both = "kernel://firewall/fw0?app=x,kernel://gateway";
        ensure!(annotations()? == json!({ "networkservicemesh.io": both }), "{}", annotations()?);
    }
    let taken = nsmctl(&["attach", "web", "other/fw0"]).unwrap_err().to_string();
    ensure!(taken.contains("interface fw0 is asked for twice, for \"firewall\" and for \"other\""), "{taken}");
    let first = nsmctl(&["attach", "web", "other/eth0"]).unwrap_err().to_string();
    ensure!(first.contains("interface eth0 of \"other\" is the pod's already"), "{first}");
    let refused = nsmctl(&["attach", "web", "memif://x"]).unwrap_err().to_string();
    ensure!(refused.contains("expected kernel://"), "{refused}");
    let unknown = nsmctl(&["attach", "nobody", "x"]).unwrap_err().to_string();
    ensure!(unknown.contains("pod \"nobody\" is not in namespace default"), "{unknown}");
    // What others wrote stays as it is, form and all.
    cluster
        .patch(path, &json!({ "metadata": { "annotations": { "ns.networkservicemesh.io": "old?x=%31,older" } } }))?;
    for said in ["pod/web annotated\n", "pod/web unchanged\n"] {
        ensure!(nsmctl(&["detach", "web", "fw0", "older"])? == said);
        let left = json!({ "networkservicemesh.io": "kernel://gateway", "ns.networkservicemesh.io": "old?x=%31" });
        ensure!(annotations()? == left, "{}", annotations()?);
    }
    nsmctl(&["detach", "web", "gateway", "old"])?;
    ensure!(annotations()?.is_null(), "{}", annotations()?);
    let nobody = nsmctl(&["attach", "web", "gateway", "--wait", "--timeout", "1"]).unwrap_err().to_string();
    ensure!(nobody.contains("did not follow within 1s"), "{nobody}");
    Ok(())
}
