//! The networks of pods: what the agent plans of NetworkAttachmentDefinitions and annotations, and what it tells of the result.

use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_kube::definitions::{GROUP, NETWORK_STATUS, NETWORKS, definition, kind};
use nsm_lab::{Call, Node, binary, eventually};
use nsm_proto::cni::{
    AttachmentKey, PlanRequest, PlanResponse, Pod, SettledNetwork, SettledRequest, cni_client::CniClient,
};
use serde_json::{Map, Value, json};
use tonic::{Response, transport::Channel};

use crate::SOON;
use crate::asking::{Asking, with_log};
use crate::pods::events;

/// Makes the kind, and waits until it is served.
pub(crate) fn define(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.create(&kind())?.map_err(anyhow::Error::msg)?;
    let path = format!("/apis/{GROUP}/v1/network-attachment-definitions");
    let list = || Ok(cluster.get(&path).unwrap_or_default());
    eventually("the kind", SOON, list, |list| list["items"].is_array()).map(drop)
}

fn key(pod: &Asking<'_>) -> AttachmentKey {
    AttachmentKey { container_id: pod.sandbox.container().to_owned(), ifname: "eth0".into() }
}

fn of(pod: &Asking<'_>) -> Pod {
    Pod { name: pod.name.clone(), namespace: "default".into(), uid: pod.uid.clone() }
}

/// What the meta-plugin asks where the runtime gives no annotations. Of a refusal code and message.
fn plan(node: &Node, pod: &Asking<'_>, uid: &str) -> anyhow::Result<Result<PlanResponse, String>> {
    let conf = json!({
        "cniVersion": "1.0.0", "name": "meta", "type": "nsm-cni", "delegates": [{ "name": "own", "type": "ptp" }],
        "namespaceIsolation": true,
    });
    let request = PlanRequest {
        key: Some(key(pod)),
        pod: Some(Pod { uid: uid.to_owned(), ..of(pod) }),
        configuration: conf.to_string(),
        timeout_ms: 4000,
        ..PlanRequest::default()
    };
    let answer = call(node, async |mut agent| agent.plan(request).await)?;
    Ok(answer.map_err(|status| format!("{:?}: {}", status.code(), status.message())))
}

/// One call on the agent's private socket.
fn call<T, E>(
    node: &Node,
    work: impl AsyncFnOnce(CniClient<Channel>) -> Result<Response<T>, E>,
) -> anyhow::Result<Result<T, E>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
        let agent = nsm_fdpass::connect(&node.cni_socket(), deadline).await?;
        Ok(work(CniClient::new(agent.channel)).await.map(Response::into_inner))
    })
}

pub(crate) fn plans_follow_definitions() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let asks: Map<String, Value> = [(NETWORKS.to_owned(), "a,a@ext0".into())].into_iter().collect();
    let pod = Asking::annotated(&cluster, &a.node, "default", "web", &asks)?;
    let planned = || plan(&a.node, &pod, &pod.uid);
    let refused = |words: &[&str]| {
        let why = planned()?.err().context("a plan")?;
        ensure!(words.iter().all(|word| why.contains(word)), "{why}");
        anyhow::Ok(())
    };
    // Nobody has installed their kind.
    with_log(&a.node, refused(&["NotFound", "no NetworkAttachmentDefinition \"a\" in namespace \"default\""]))?;
    let told = eventually("the event", SOON, || events(&cluster, "web", "NoNetworkFound"), |all| all.len() == 1)?;
    ensure!(
        told[0]["type"] == "Warning" && told[0]["message"].to_string().contains("the pod does not start"),
        "{told:?}"
    );
    define(&cluster)?;
    cluster
        .create(&definition("default", "a", &json!({ "type": "macvlan", "master": "eth1" })))?
        .map_err(anyhow::Error::msg)?;
    // At once, also where the watch has not seen it yet.
    let plan_of = with_log(&a.node, planned()?.map_err(anyhow::Error::msg))?;
    let seen: Vec<_> = plan_of.networks.iter().map(|one| (&*one.name, &*one.ifname)).collect();
    ensure!(seen == [("own", "eth0"), ("default/a", "net1"), ("default/a", "ext0")], "{seen:?}");
    let list: Value = serde_json::from_str(&plan_of.networks[1].configuration)?;
    ensure!(list == json!({ "name": "a", "plugins": [{ "type": "macvlan", "master": "eth1" }] }), "{list}");
    // What reaches into the host is refused.
    let path = format!("/apis/{GROUP}/v1/namespaces/default/network-attachment-definitions/a");
    let reaching = json!({ "type": "sriov", "logFile": "/etc/shadow" }).to_string();
    cluster.patch(&path, &json!({ "spec": { "config": reaching } }))?;
    let why = || Ok(planned()?.err().unwrap_or_default());
    let now = with_log(&a.node, eventually("the refusal", SOON, why, |why| why.contains("logFile")))?;
    ensure!(now.starts_with("InvalidArgument"), "{now}");
    eventually("the event", SOON, || events(&cluster, "web", "NetworkRefused"), |all| all.len() == 1)?;
    cluster.delete(&path)?;
    with_log(&a.node, eventually("its end", SOON, why, |why| why.starts_with("NotFound")))?;
    let other = plan(&a.node, &pod, "another-uid")?.err().context("a plan")?;
    ensure!(other.starts_with("FailedPrecondition") && other.contains(&pod.uid), "{other}");
    Ok(())
}

pub(crate) fn what_was_made_is_told() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let _one = nsm_lab::Endpoint::of("one").start(&a.node)?;
    let asks: Map<String, Value> =
        [("networkservicemesh.io".to_owned(), "kernel://one/svc".into())].into_iter().collect();
    let pod = Asking::annotated(&cluster, &a.node, "default", "web", &asks)?;
    pod.add()?.ok()?;
    let result = |ifname: &str, address: &str| {
        let interfaces = json!([{ "name": ifname, "mac": "02:00:00:00:00:01", "sandbox": "/run/netns/x" }]);
        json!({ "cniVersion": "1.1.0", "interfaces": interfaces, "ips": [{ "interface": 0, "address": address }] })
    };
    let network = |name: &str, ifname: &str, address: &str| SettledNetwork {
        name: name.into(),
        ifname: ifname.into(),
        result: result(ifname, address).to_string(),
        default: ifname == "eth0",
        device_info: String::new(),
        note: String::new(),
    };
    let request = SettledRequest {
        key: Some(key(&pod)),
        pod: Some(of(&pod)),
        networks: vec![network("own", "eth0", "10.0.0.2/24"), network("default/a", "net1", "10.1.0.2/24")],
    };
    let settled = call(&a.node, async |mut agent| agent.settled(request).await)?;
    settled.map_err(|status| anyhow::anyhow!("{status}"))?;
    let names = || {
        let status = pod.told(NETWORK_STATUS)?;
        let name = |one: &Value| one["name"].as_str().unwrap_or_default().to_owned();
        Ok(status.as_array().map(|all| all.iter().map(name).collect::<Vec<_>>()).unwrap_or_default())
    };
    let expected = ["own", "default/a", "networkservicemesh.io/one"];
    with_log(&a.node, eventually("one status of all", SOON, names, |names| names == &expected))?;
    let status = pod.told(NETWORK_STATUS)?;
    ensure!(status[0]["default"] == true && status[1]["ips"] == json!(["10.1.0.2"]), "{status}");
    let told = eventually("the event", SOON, || events(&cluster, "web", "AddedInterface"), |all| all.len() == 1)?;
    let message = told[0]["message"].as_str().unwrap_or_default();
    ensure!(
        told[0]["type"] == "Normal" && message == "Add eth0 [10.0.0.2] from own, net1 [10.1.0.2] from default/a",
        "{told:?}"
    );
    Ok(())
}

pub(crate) fn of_every_pod_are_asked_and_collected() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    define(&cluster)?;
    let mut a = cluster.started("node-a")?;
    let plugin = binary("nsm-delegate")?;
    let (folder, log) = (plugin.parent().context("folder")?, a.node.dir().join("calls"));
    let config = |says: Value| {
        let plugin = json!({ "type": "nsm-delegate", "log": log, "says": says });
        json!({ "cniVersion": "1.1.0", "name": "cbr0", "plugins": [plugin] })
    };
    let full = config(json!({ "STATUS": { "error": { "code": 50, "msg": "no address left" } } }));
    cluster.create(&definition("kube-system", "first", &full))?.map_err(anyhow::Error::msg)?;
    let conf = json!({
        "cniVersion": "1.1.0", "name": "cluster", "type": "nsm-cni", "clusterNetwork": "first", "binDir": folder,
        "cniDir": a.node.dir().join("cni"), "cniSocket": a.node.cni_socket(),
    });
    let told = || -> anyhow::Result<Vec<Value>> {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        let calls = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
        Ok(calls.into_iter().filter(|call| call["command"] == "GC").collect())
    };
    let node = &a.node;
    let status = || Ok(node.cni().status(&conf)?.json["msg"].as_str().unwrap_or_default().to_owned());
    let asked = |why: &String| why.contains("no address left");
    with_log(node, eventually("STATUS of the cluster's network", SOON, status, asked))?;
    let path = format!("/apis/{GROUP}/v1/namespaces/kube-system/network-attachment-definitions/first");
    cluster.patch(&path, &json!({ "spec": { "config": config(json!({})).to_string() } }))?;
    with_log(node, eventually("a network that is ready", SOON, status, String::is_empty))?;
    // Without the agent nobody knows them: ADD cannot be served, and nothing of theirs is freed.
    let valid = [("one", "eth0")];
    a.node.stop_agent()?;
    let why = a.node.cni().status(&conf)?.refused(50)?;
    ensure!(why.contains("nsm-agent is not there"), "{why}");
    let words = a.node.cni().gc(&conf, Some(&valid))?.ok()?.stderr;
    ensure!(words.contains("GC leaves networks alone that are called by name") && told()?.is_empty(), "{words}");
    a.node.start_agent()?;
    with_log(&a.node, a.node.cni().gc(&conf, Some(&valid))?.ok())?;
    let calls = told()?;
    let expected = json!([{ "containerID": "one", "ifname": "eth0" }]);
    ensure!(calls.len() == 1 && calls[0]["conf"]["cni.dev/valid-attachments"] == expected, "{calls:?}");
    // A network that there is no more.
    cluster.delete(&path)?;
    let node = &a.node;
    let status = || Ok(node.cni().status(&conf)?.json["msg"].as_str().unwrap_or_default().to_owned());
    eventually("its end", SOON, status, |why| why.contains("no file in"))?;
    Ok(())
}

pub(crate) fn a_pod_that_asks_nothing_has_a_status() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    define(&cluster)?;
    let a = cluster.started("node-a")?;
    let plugin = binary("nsm-delegate")?;
    let folder = plugin.parent().context("folder")?;
    cluster
        .create(&definition("default", "extra", &json!({ "cniVersion": "1.0.0", "type": "nsm-delegate" })))?
        .map_err(anyhow::Error::msg)?;
    let pod = Asking::create(&cluster, &a.node, "default", "web", None)?;
    let conf = json!({
        "cniVersion": "1.0.0", "name": "cluster", "type": "nsm-cni", "binDir": folder, "cniDir": a.node.dir().join("cni"),
        "cniSocket": a.node.cni_socket(), "delegates": [{ "name": "own", "type": "nsm-delegate" }],
        "capabilities": { "io.kubernetes.cri.pod-annotations": true },
        "runtimeConfig": { "io.kubernetes.cri.pod-annotations": {} },
    });
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID={}", pod.uid);
    let call = |command: &'static str| Call {
        command,
        container: pod.sandbox.container(),
        netns: Some(pod.sandbox.namespace().path().to_owned()),
        ifname: "eth0",
        args: &args,
        stdin: conf.to_string(),
    };
    a.node.cni().call(&call("ADD"))?.ok()?;
    let shown = || {
        let status = pod.told(NETWORK_STATUS)?;
        let entry = |one: &Value| json!([one["name"], one["interface"], one["default"]]);
        Ok(status.as_array().map(|all| all.iter().map(entry).collect::<Vec<_>>()).unwrap_or_default())
    };
    let own = json!(["own", "eth0", true]);
    let alone = |all: &Vec<Value>| all == std::slice::from_ref(&own);
    with_log(&a.node, eventually("its first network", SOON, shown, alone))?;
    ensure!(events(&cluster, "web", "AddedInterface")?.is_empty(), "it asked for nothing");
    // Beside what it is given later.
    cluster.patch(&pod.path(), &json!({ "metadata": { "annotations": { NETWORKS: "extra" } } }))?;
    let both = |all: &Vec<Value>| all.len() == 2 && all[0] == own && all[1] == json!(["default/extra", "net1", null]);
    with_log(&a.node, eventually("both", SOON, shown, both))?;
    cluster.patch(&pod.path(), &json!({ "metadata": { "annotations": { NETWORKS: null } } }))?;
    with_log(&a.node, eventually("the first alone", SOON, shown, alone))?;
    a.node.cni().call(&call("DEL"))?.ok()?;
    Ok(())
}

/// An ADD that comes before the agent, or anybody, knows of its pod, by the plugin: nothing is made, and the runtime is to try again.
pub(crate) fn a_pod_that_is_not_known_starts_when_it_is() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    define(&cluster)?;
    let a = cluster.started("node-a")?;
    let plugin = binary("nsm-delegate")?;
    let (folder, log) = (plugin.parent().context("folder")?, a.node.dir().join("calls"));
    let extra = json!({ "cniVersion": "1.0.0", "type": "nsm-delegate", "log": log });
    cluster.create(&definition("default", "extra", &extra))?.map_err(anyhow::Error::msg)?;
    // The runtime says nothing of annotations.
    let conf = json!({
        "cniVersion": "1.0.0", "name": "cluster", "type": "nsm-cni", "binDir": folder, "cniDir": a.node.dir().join("cni"),
        "cniSocket": a.node.cni_socket(), "timeoutSeconds": 4,
        "delegates": [{ "name": "own", "type": "nsm-delegate", "log": log }],
    });
    let sandbox = a.node.pod("sandbox")?;
    let add = |uid: &str| {
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web;K8S_POD_UID={uid}");
        let netns = Some(sandbox.namespace().path().to_owned());
        let stdin = conf.to_string();
        a.node.cni().call(&Call { command: "ADD", container: "web", netns, ifname: "eth0", args: &args, stdin })
    };
    let refused = |uid: &str, code: i64, words: &str| -> anyhow::Result<()> {
        let told = with_log(&a.node, add(uid)?.refused(code))?;
        ensure!(told.contains(words), "{told}");
        ensure!(!log.exists() && !a.node.dir().join("cni/nsm-cni/web@eth0.json").exists(), "something was begun");
        Ok(())
    };
    refused("early", 11, "pod \"default/web\" is not known to nsm-agent yet")?;
    let asks: Map<String, Value> = [(NETWORKS.to_owned(), "extra".into())].into_iter().collect();
    let pod = Asking::annotated(&cluster, &a.node, "default", "web", &asks)?;
    // Not the one that was meant.
    refused("early", 100, &pod.uid)?;
    with_log(&a.node, add(&pod.uid)?.ok())?;
    let text = std::fs::read_to_string(&log)?;
    let calls = text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    let made: Vec<_> = calls.iter().map(|call| (&call["command"], &call["ifname"])).collect();
    ensure!(made == [(&json!("ADD"), &json!("eth0")), (&json!("ADD"), &json!("net1"))], "{made:?}");
    Ok(())
}
