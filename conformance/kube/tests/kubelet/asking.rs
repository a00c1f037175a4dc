//! Pods that ask by annotation, from their start.

use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_kube::{Mesh, SOON, Traces, idle, patiently};
use serde_json::{Value, json};

use nsm_kube::pods::{ASKS, ASKS_2019, client, endpoint, interfaces, reaches, serve};

/// Until the kubelet has tried again: 11 seconds after a failed ADD, and more on a busy machine.
const RETRIED: Duration = Duration::from_secs(40);

pub(crate) fn both_forms_of_the_annotation(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("asking", &Value::Null)?;
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    serve(mesh, machine, &endpoint("asking", "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client("asking", "new", machine, ASKS, "kernel://icmp/nsm-7?app=responder"))?;
    mesh.create(&client("asking", "old", machine, ASKS_2019, "icmp?app=responder"))?;
    for (pod, interface) in [("new", "nsm-7"), ("old", "nsm-1")] {
        mesh.running("asking", pod)?;
        let network = mesh.network_of(machine, "asking", pod)?;
        ensure!(interfaces(&network)? == ["eth0", interface], "{pod}: {:?}", interfaces(&network)?);
        let address = reaches(&network, interface)?.to_string();
        mesh.kubectl(&["-n", "asking", "exec", pod, "--", "ping", "-c", "1", "-W", "2", &address]).context(pod)?;
    }
    mesh.delete("asking", &["new", "old", "responder"])?;
    mesh.gone("asking", &["new", "old", "responder"])?;
    before.remain(machine)
}

pub(crate) fn a_namespace_asks_for_its_pods(mesh: &mut Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    mesh.namespace("offers", &Value::Null)?;
    serve(mesh, machine, &endpoint("offers", "one", machine, "first", "172.16.1.0/24"))?;
    serve(mesh, machine, &endpoint("offers", "two", machine, "second", "172.16.2.0/24"))?;
    mesh.namespace("asks", &json!({ ASKS: "kernel://first/nsm-1" }))?;
    mesh.create(&idle("asks", "plain", machine.name()))?;
    mesh.create(&client("asks", "more", machine, ASKS_2019, "second"))?;
    for (pod, expected) in [("plain", &["eth0", "nsm-1"][..]), ("more", &["eth0", "nsm-1", "nsm-2"])] {
        mesh.running("asks", pod)?;
        let network = mesh.network_of(machine, "asks", pod)?;
        ensure!(interfaces(&network)? == expected, "{pod}: {:?}", interfaces(&network)?);
        for interface in &expected[1..] {
            reaches(&network, interface)?;
        }
    }
    mesh.create(&client("asks", "twice", machine, ASKS, "kernel://second/nsm-1"))?;
    told(mesh, "asks", "twice", &["nsm-1"])?;
    // What the namespace says counts for pods that are made from then on.
    mesh.kubectl(&["annotate", "namespace", "asks", &format!("{ASKS}-")])?;
    let asks_no_more = || {
        let name = format!("later-{}", mesh.pods("asks")?.len());
        mesh.create(&idle("asks", &name, machine.name()))?;
        mesh.running("asks", &name)?;
        interfaces(&mesh.network_of(machine, "asks", &name)?)
    };
    patiently("pods without services", SOON, asks_no_more, |found| found == &["eth0"]).map(drop)
}

/// An event of the pod that has these words.
fn told(mesh: &Mesh, namespace: &str, pod: &str, words: &[&str]) -> anyhow::Result<String> {
    let has = |line: &String| words.iter().all(|word| line.contains(word));
    let events =
        patiently("an event of the pod", SOON, || mesh.events(namespace, pod), |events| events.iter().any(has))?;
    events.into_iter().find(|line| has(line)).context("just found")
}

pub(crate) fn a_wrong_annotation_is_told_and_mended(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("wrong", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("wrong", "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client("wrong", "pod", machine, ASKS, "kernel//icmp"))?;
    mesh.create(&client("wrong", "early", machine, ASKS, "kernel://nobody"))?;
    let event = told(mesh, "wrong", "pod", &["kernel//icmp"])?;
    ensure!(event.contains(ASKS), "which annotation: {event}");
    told(mesh, "wrong", "early", &["nobody"])?;
    for pod in ["pod", "early"] {
        mesh.kubectl(&["-n", "wrong", "annotate", "--overwrite", "pod", pod, &format!("{ASKS}=kernel://icmp/nsm-1")])?;
    }
    for pod in ["pod", "early"] {
        patiently("the pod", RETRIED, || mesh.pod("wrong", pod), |pod| nsm_kube::is(pod, "Ready"))?;
        reaches(&mesh.network_of(machine, "wrong", pod)?, "nsm-1")?;
    }
    Ok(())
}

pub(crate) fn a_pod_in_the_hosts_network_is_told(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("host", &Value::Null)?;
    let machine = mesh.machine(0)?;
    let mut pod = client("host", "pod", machine, ASKS, "kernel://icmp");
    pod["spec"]["hostNetwork"] = true.into();
    mesh.create(&pod)?;
    mesh.running("host", "pod")?;
    told(mesh, "host", "pod", &["NetworkServiceHostNetwork"]).map(drop)
}

/// Of the annotation in which the agent says what a pod has.
pub(crate) fn status(mesh: &Mesh, namespace: &str, pod: &str) -> anyhow::Result<Vec<Value>> {
    let pod = mesh.pod(namespace, pod)?;
    let text = pod["metadata"]["annotations"][format!("{ASKS}/status")].as_str().context("no status")?;
    Ok(serde_json::from_str(text)?)
}

pub(crate) fn the_pod_says_what_it_has(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("status", &Value::Null)?;
    let machine = mesh.machine(0)?;
    serve(mesh, machine, &endpoint("status", "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&client("status", "pod", machine, ASKS, "kernel://icmp/nsm-1"))?;
    mesh.running("status", "pod")?;
    let [one] = &patiently("its status", SOON, || status(mesh, "status", "pod"), |list| list.len() == 1)?[..] else {
        anyhow::bail!("one entry");
    };
    ensure!(one["service"] == "icmp" && one["interface"] == "nsm-1", "{one}");
    ensure!(one["endpoint"] == "status-responder", "{one}");
    let pod = mesh.pod("status", "pod")?;
    let networks =
        pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"].as_str().context("no networks")?;
    ensure!(networks.contains("\"nsm-1\""), "{networks}");
    Ok(())
}
