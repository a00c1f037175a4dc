//! Endpoints of one node, and their objects.

use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually, registered};
use nsm_proto::registry::NetworkServiceEndpoint;
use serde_json::{Value, json};

use crate::{SOON, caller};

/// For the end of a process to be told to others.
const WITHDRAWN: Duration = Duration::from_secs(1);

pub(crate) fn from_registration_to_unregistration() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let member = cluster.started("node-a")?;
    let node = &member.node;
    let pod = node.pod("p")?;
    let (name, of) = ("Firewall_1", "Secure_Intranet");
    let renewed = caller::from(node, pod.namespace(), async |registry| {
        registry.register_service(caller::service(of)).await?;
        let template = NetworkServiceEndpoint { network_service_names: vec![of.into()], ..Default::default() };
        let mut changes = registry.watch_endpoints(template).await?;
        let first = registry.register_endpoint(caller::endpoint(name, of), None).await?;
        let seen = changes.message().await?.context("watch ended")?;
        ensure!(!seen.deleted && seen.network_service_endpoint.unwrap_or_default().name == name);
        let found = registry.find_endpoints(NetworkServiceEndpoint { name: name.into(), ..Default::default() }).await?;
        ensure!(found.len() == 1 && found[0].initial_registration_time == first.initial_registration_time);
        let until = |endpoint: &NetworkServiceEndpoint| endpoint.expiration_time.map(|time| (time.seconds, time.nanos));
        let mut last = until(&first);
        for _ in 0..5 {
            let again = registry.register_endpoint(caller::endpoint(name, of), None).await?;
            ensure!(until(&again) > last, "not renewed");
            last = until(&again);
        }
        Ok(last)
    })?;
    ensure!(renewed.is_some());
    let objects = cluster.endpoints()?;
    let [object] = &objects[..] else { anyhow::bail!("{objects:?}") };
    ensure!(object["spec"]["name"] == name && object["metadata"]["namespace"] == "nsm-system", "{object}");
    ensure!(object["metadata"]["annotations"]["networkservicemesh.io/node"] == "node-a", "{object}");
    ensure!(object["spec"]["expiration_time"].is_null(), "its time is the lease's: {object}");
    let service = &cluster.services()?[0];
    ensure!(service["spec"]["name"] == of && service["spec"]["payload"] == "IP", "{service}");
    let writes = |resource: &str| -> anyhow::Result<Vec<String>> {
        let asked = cluster.asked()?.into_iter();
        let written = asked.filter(|asked| asked.resource == resource && !["list", "watch"].contains(&&*asked.verb));
        Ok(written.map(|asked| asked.verb).collect())
    };
    ensure!(writes("networkserviceendpoints")? == ["get", "create"], "{:?}", writes("networkserviceendpoints"));
    let lists = cluster.asked()?.iter().filter(|asked| asked.verb == "list").count();
    // Two are about networks: those that there are not, and the kind that nobody has installed.
    ensure!(lists == 9, "{lists} lists, one for each kind that is watched: no look-up may list");
    caller::from(node, pod.namespace(), async |registry| {
        registry.unregister_endpoint(caller::endpoint(name, of), None).await?;
        Ok(())
    })?;
    ensure!(cluster.endpoints()?.is_empty());
    ensure!(caller::known(node)?.is_empty());
    let refused: Vec<_> = cluster.asked()?.into_iter().filter(|asked| asked.code == 403).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    Ok(())
}

pub(crate) fn belong_to_their_pod() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("apps")?;
    let uid = cluster.make_pod("apps", "gateway-0", "node-a")?;
    let member = cluster.started("node-a")?;
    let node = &member.node;
    let first = Endpoint::of("first").start(node)?;
    // The pod is known as the plugin has brought it.
    let pod = node.pod("gateway")?;
    let conf = node.conf("first");
    let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=apps;K8S_POD_NAME=gateway-0;K8S_POD_UID={uid}");
    let call = nsm_lab::Call {
        command: "ADD",
        container: "gateway",
        netns: Some(pod.namespace().path().to_owned()),
        ifname: "nsm-1",
        args: &args,
        stdin: conf.to_string(),
    };
    node.cni().call(&call)?.ok()?;
    let second = Endpoint::of("second").name("gateway").cidr("172.16.9.0/24").start_in(node, pod)?;
    let objects = cluster.endpoints()?;
    let of = |name: &str| {
        objects.iter().find(|object| object["spec"]["name"] == name).with_context(|| format!("{objects:?}"))
    };
    let object = of("gateway")?;
    ensure!(object["metadata"]["namespace"] == "apps", "{object}");
    let owner = &object["metadata"]["ownerReferences"][0];
    ensure!(owner["kind"] == "Pod" && owner["name"] == "gateway-0" && owner["uid"] == *uid, "{object}");
    ensure!(of(first.name())?["metadata"]["namespace"] == "nsm-system");
    ensure!(of(first.name())?["metadata"]["ownerReferences"].is_null());
    // The process ends: within a second nobody finds it any more.
    let left = second.kill()?;
    let names = || -> anyhow::Result<Vec<Value>> {
        Ok(cluster.endpoints()?.iter().map(|object| object["spec"]["name"].clone()).collect())
    };
    eventually("withdrawal", WITHDRAWN, names, |names| names.len() == 1)?;
    drop(left);
    Ok(())
}

pub(crate) fn of_go_programs() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let member = cluster.started("node-a")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    for (name, expires) in [("over", Some(now - 60)), ("short", Some(now + 6)), ("ever", None)] {
        let mut spec = json!({ "name": name, "network_service_names": ["s"], "url": "tcp://10.0.0.7:5001" });
        if let Some(seconds) = expires {
            spec["expiration_time"] = json!({ "seconds": seconds });
        }
        let object = json!({
            "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkServiceEndpoint",
            "metadata": { "name": name, "namespace": "default" }, "spec": spec,
        });
        cluster.create(&object)?.map_err(anyhow::Error::msg)?;
    }
    eventually("those that live", SOON, || caller::known(&member.node), |names| names == &["ever", "short"])?;
    eventually("expiry", SOON, || caller::known(&member.node), |names| names == &["ever"])?;
    let told = member.node.nsmctl(&["describe", "nse", "ever"])?;
    ensure!(told.contains("not reachable: its URL \"tcp://10.0.0.7:5001\" is none that this agent dials"), "{told}");
    ensure!(cluster.endpoints()?.len() == 3, "they are not this agent's to delete");
    Ok(())
}

pub(crate) fn edited_and_deleted_by_hand() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let member = cluster.started("node-a")?;
    let node = &member.node;
    let endpoint = Endpoint::of("icmp").set("NSM_LABELS", "app:one").start(node)?;
    let object = cluster.endpoints()?.remove(0);
    let path = format!(
        "/apis/networkservicemesh.io/v1/namespaces/nsm-system/networkserviceendpoints/{}",
        object["metadata"]["name"].as_str().context("name")?
    );
    let edit = json!({ "spec": { "network_service_labels": { "icmp": { "labels": { "app": "two" } } } } });
    cluster.patch(&path, &edit)?;
    let label = || -> anyhow::Result<Value> {
        let all = node.get("nse")?;
        Ok(all.first().context("none")?["spec"]["network_service_labels"]["icmp"]["labels"]["app"].clone())
    };
    eventually("the edited label", SOON, label, |label| label == "two")?;
    ensure!(registered(node)? == [endpoint.name()], "it can still be dialled");
    cluster.delete(&path)?;
    eventually("deletion", SOON, || caller::known(node), Vec::is_empty)?;
    Ok(())
}

pub(crate) fn outlive_older_objects_of_other_namespaces() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("elsewhere")?;
    let decoy = json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkServiceEndpoint",
        "metadata": { "name": "decoy", "namespace": "elsewhere" },
        "spec": { "name": "decoy", "network_service_names": ["icmp"], "url": "tcp://10.0.0.7:5001" },
    });
    cluster.create(&decoy)?.map_err(anyhow::Error::msg)?;
    let member = cluster.started("node-a")?;
    let node = &member.node;
    let _endpoint = Endpoint::of("icmp").name("one").start(node)?;
    // The older object takes the name of the one that lives.
    let path = "/apis/networkservicemesh.io/v1/namespaces/elsewhere/networkserviceendpoints/decoy";
    cluster.patch(path, &json!({ "spec": { "name": "one" } }))?;
    let ours = || {
        let all = cluster.endpoints()?;
        Ok(all.into_iter().find(|object| object["metadata"]["namespace"] == "nsm-system").unwrap_or_default())
    };
    let told = |object: &Value| object["status"]["conditions"][0]["reason"] == "NameTaken";
    let said = eventually("the word about the name", SOON, ours, told)?;
    let message = said["status"]["conditions"][0]["message"].as_str().unwrap_or_default();
    ensure!(message.contains("all nodes but node-a, where this one lives and is served"), "{message}");
    ensure!(registered(node)? == ["one"] && caller::known(node)? == ["one"]);
    let pod = node.pod("client")?;
    let added = node.cni().add(&pod, "nsm-1", &node.conf("icmp"))?.ok()?;
    pod.ping(added.peer(false)?)?;
    Ok(())
}

pub(crate) fn that_do_not_count_are_told() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let service = json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": "firewall", "namespace": "default" },
        "spec": { "allowed_endpoint_namespaces": ["a"] },
    });
    cluster.create(&service)?.map_err(anyhow::Error::msg)?;
    let _agents = [cluster.started("node-a")?, cluster.started("node-b")?];
    for namespace in ["a", "b", "c"] {
        cluster.make_namespace(namespace)?;
    }
    // In a and b of one name, of which a's is older or first; c's may not serve.
    for (namespace, name) in [("a", "one"), ("b", "one"), ("c", "other")] {
        let object = json!({
            "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkServiceEndpoint",
            "metadata": { "name": "e", "namespace": namespace },
            "spec": { "name": name, "network_service_names": ["firewall"], "url": "tcp://10.0.0.7:5001" },
        });
        cluster.create(&object)?.map_err(anyhow::Error::msg)?;
    }
    let told = |namespace: &str| -> anyhow::Result<(Value, Value)> {
        let path = format!("/apis/networkservicemesh.io/v1/namespaces/{namespace}/networkserviceendpoints/e");
        let condition = cluster.get(&path)?["status"]["conditions"][0].clone();
        Ok((condition["status"].clone(), condition["reason"].clone()))
    };
    let is =
        |status: &'static str, reason: &'static str| move |told: &(Value, Value)| told.0 == status && told.1 == reason;
    eventually("the word about the second", SOON, || told("b"), is("False", "NameTaken"))?;
    eventually("the word about the one that may not", SOON, || told("c"), is("False", "NotAllowed"))?;
    ensure!(told("a")?.0.is_null(), "nothing is said of those that count: {:?}", told("a"));
    let path = "/apis/networkservicemesh.io/v1/namespaces/default/networkservices/firewall";
    cluster.patch(path, &json!({ "spec": { "allowed_endpoint_namespaces": ["a", "c"] } }))?;
    eventually("the good word", SOON, || told("c"), is("True", "Accepted"))?;
    let writes = cluster.asked()?.into_iter().filter(|asked| asked.resource == "networkserviceendpoints/status");
    let writes: Vec<_> = writes.collect();
    ensure!(writes.len() <= 6 && writes.iter().all(|asked| asked.code == 200), "{writes:?}");
    Ok(())
}
