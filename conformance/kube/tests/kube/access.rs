//! Which namespaces' pods may use and serve a service.

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, Node, Pod, eventually, registered};
use nsm_proto::registry::{Match, NetworkService};
use serde_json::{Value, json};

use crate::{SOON, caller};

const SERVICE: &str = "/apis/networkservicemesh.io/v1/namespaces/default/networkservices/firewall";

fn service(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": name, "namespace": "default" }, "spec": spec,
    })
}

/// An ADD for a pod of a namespace.
fn add(node: &Node, pod: &Pod, namespace: &str, of: &str) -> anyhow::Result<nsm_lab::Outcome> {
    let args =
        format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={0};K8S_POD_UID={0}", pod.container());
    node.cni().call(&nsm_lab::Call {
        command: "ADD",
        container: pod.container(),
        netns: Some(pod.namespace().path().to_owned()),
        ifname: "nsm-1",
        args: &args,
        stdin: node.conf(of).to_string(),
    })
}

/// A pod of a namespace, known as the plugin has brought it to another service.
fn known_pod(node: &Node, name: &str, namespace: &str) -> anyhow::Result<Pod> {
    let pod = node.pod(name)?;
    add(node, &pod, namespace, "first")?.ok()?;
    Ok(pod)
}

pub(crate) fn decides_who_serves_and_who_is_connected() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    for namespace in ["shop", "security"] {
        cluster.make_namespace(namespace)?;
    }
    let rule = json!({ "allowed_client_namespaces": ["shop"], "allowedEndpointNamespaces": ["security"] });
    cluster.create(&service("firewall", &rule))?.map_err(anyhow::Error::msg)?;
    let member = cluster.started("node-a")?;
    let node = &member.node;
    eventually("the service", SOON, || caller::known_services(node), |names| names == &["firewall"])?;
    let _first = Endpoint::of("first").start(node)?;
    // Who may not serve it is not registered, on the host's word is.
    let stranger = known_pod(node, "stranger", "shop")?;
    let error = caller::from(node, stranger.namespace(), async |registry| {
        Ok(registry.register_endpoint(caller::endpoint("stranger", "firewall"), None).await.unwrap_err())
    })?;
    ensure!(error.kind() == nsm_sdk::Kind::Denied, "{error}");
    ensure!(error.to_string().contains("namespace shop may not serve network service \"firewall\""), "{error}");
    let guard = known_pod(node, "guard", "security")?;
    let guard = Endpoint::of("firewall").name("guard").cidr("172.16.9.0/24").start_in(node, guard)?;
    ensure!(registered(node)?.contains(&guard.name().to_owned()));
    // Who may not use it is refused, and told why.
    let client = node.pod("client")?;
    let why = add(node, &client, "default", "firewall")?.refused(101)?;
    ensure!(
        why.contains("namespace default may not use network service") && why.contains("add default there"),
        "{why}"
    );
    let added = add(node, &client, "shop", "firewall")?.ok()?;
    client.ping(added.peer(false)?)?;
    let told = node.nsmctl(&["describe", "netsvc", "firewall", "-l", "namespace=default"])?;
    ensure!(told.contains("namespace default may not use network service"), "{told}");
    let told = node.nsmctl(&["describe", "netsvc", "firewall", "-l", "namespace=shop"])?;
    ensure!(told.contains("1 of 1 endpoints are candidates") && told.contains("shop"), "{told}");
    // An object of a namespace that may not serve decides nothing.
    let object = json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkServiceEndpoint",
        "metadata": { "name": "forged", "namespace": "shop" },
        "spec": { "network_service_names": ["firewall"], "url": "tcp://10.0.0.7:5001" },
    });
    cluster.create(&object)?.map_err(anyhow::Error::msg)?;
    let describe = || node.nsmctl(&["describe", "netsvc", "firewall"]);
    let denied = |told: &String| told.contains("namespace shop may not serve network service");
    eventually("the verdict about the object", SOON, describe, denied)?;
    changed(&cluster, node, &client, &added)?;
    drop((guard, stranger));
    Ok(())
}

/// A rule that changes leaves the connection; new ones follow it at once.
fn changed(cluster: &Cluster, node: &Node, client: &Pod, added: &nsm_lab::Outcome) -> anyhow::Result<()> {
    cluster.patch(SERVICE, &json!({ "spec": { "allowed_client_namespaces": [] } }))?;
    let rule = || -> anyhow::Result<Value> {
        Ok(node.get("netsvc")?.first().context("none")?["spec"]["allowed_client_namespaces"].clone())
    };
    eventually("the new rule", SOON, rule, |rule| *rule == json!([]))?;
    client.ping(added.peer(false)?)?;
    let late = node.pod("late")?;
    let why = add(node, &late, "shop", "firewall")?.refused(101)?;
    ensure!(why.contains("its allowed_client_namespaces names none"), "{why}");
    // The endpoint's turn: it is not chosen any more, and does not get in again.
    cluster.patch(
        SERVICE,
        &json!({ "spec": { "allowed_client_namespaces": null, "allowedEndpointNamespaces": ["x"] } }),
    )?;
    let why = || add(node, &late, "shop", "firewall")?.refused(101);
    eventually("the refusal", SOON, why, |why| why.contains("namespace security may not serve network service"))?;
    client.ping(added.peer(false)?)?;
    Ok(())
}

pub(crate) fn of_services_that_say_nothing() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.create(&service("firewall", &json!({})))?.map_err(anyhow::Error::msg)?;
    let everybody = json!({ "allowed_client_namespaces": ["*"], "allowed_endpoint_namespaces": ["*"] });
    cluster.create(&service("first", &everybody))?.map_err(anyhow::Error::msg)?;
    let mut member = cluster.member("node-a")?;
    member.node.set("NSM_SERVICE_ACCESS", "own-namespace").start_agent()?;
    let node = &member.node;
    eventually("the services", SOON, || caller::known_services(node), |names| names == &["firewall", "first"])?;
    let _first = Endpoint::of("first").start(node)?;
    let stranger = known_pod(node, "stranger", "shop")?;
    let error = caller::from(node, stranger.namespace(), async |registry| {
        Ok(registry.register_endpoint(caller::endpoint("stranger", "firewall"), None).await.unwrap_err())
    })?;
    ensure!(
        error.to_string().contains("it is for its own namespace default (--service-access own-namespace)"),
        "{error}"
    );
    let guard = known_pod(node, "guard", "default")?;
    let guard = Endpoint::of("firewall").name("guard").cidr("172.16.9.0/24").start_in(node, guard)?;
    let client = node.pod("client")?;
    let why = add(node, &client, "shop", "firewall")?.refused(101)?;
    ensure!(why.contains("name shop in its allowed_client_namespaces"), "{why}");
    let added = add(node, &client, "default", "firewall")?.ok()?;
    client.ping(added.peer(false)?)?;
    drop(guard);
    Ok(())
}

pub(crate) fn lists_make_a_service_the_operators() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (a, b) = (cluster.started("node-a")?, cluster.started("node-b")?);
    let node = &a.node;
    let owner = node.pod("owner")?;
    let chain = || NetworkService { matches: vec![Match::default()], ..caller::service("firewall") };
    caller::from(node, owner.namespace(), async |registry| {
        registry.register_service(caller::service("firewall")).await?;
        registry.register_endpoint(caller::endpoint("guard", "firewall"), None).await?;
        Ok(())
    })?;
    let path = "/apis/networkservicemesh.io/v1/namespaces/nsm-system/networkservices/firewall";
    ensure!(cluster.get(path)?["metadata"]["annotations"]["networkservicemesh.io/node"] == "node-a");
    // An endpoint of another node serves it too: nothing is to be written for that.
    eventually("the service", SOON, || caller::known_services(&b.node), |names| names == &["firewall"])?;
    caller::from(&b.node, b.node.pod("second")?.namespace(), async |registry| {
        registry.register_service(caller::service("firewall")).await?;
        registry.register_endpoint(caller::endpoint("second", "firewall"), None).await?;
        let other = registry.register_service(chain()).await.unwrap_err();
        ensure!(other.kind() == nsm_sdk::Kind::Conflict, "{other}");
        registry.unregister_endpoint(caller::endpoint("second", "firewall"), None).await?;
        Ok(())
    })?;
    cluster.patch(path, &json!({ "spec": { "allowed_client_namespaces": ["shop"] } }))?;
    let rule = || Ok(node.get("netsvc")?.first().context("none")?["spec"]["allowed_client_namespaces"].clone());
    eventually("the rule", SOON, rule, |rule| *rule == json!(["shop"]))?;
    for pod in [&owner, &node.pod("other")?] {
        caller::from(node, pod.namespace(), async |registry| {
            // The service has no endpoint any more, when the other asks.
            let _ = registry.unregister_endpoint(caller::endpoint("guard", "firewall"), None).await;
            let error = registry.unregister_service(caller::service("firewall")).await.unwrap_err();
            ensure!(error.kind() == nsm_sdk::Kind::Denied, "{error}");
            let error = registry.register_service(chain()).await.unwrap_err();
            ensure!(error.kind() == nsm_sdk::Kind::Conflict, "{error}");
            registry.register_service(caller::service("firewall")).await?;
            Ok(())
        })?;
    }
    ensure!(caller::known(node)?.is_empty());
    ensure!(cluster.get(path)?["spec"]["allowed_client_namespaces"] == json!(["shop"]));
    // Nor is it an agent's, not on the operator's word either.
    let file = node.dir().join("service.yaml");
    std::fs::write(&file, service("firewall", &json!({})).to_string())?;
    for words in [&["apply", "-f", &*file.display().to_string()][..], &["delete", "netsvc", "firewall"]] {
        let done = node.nsmctl(words);
        let refusal = done.err().with_context(|| format!("nsmctl {words:?} is not refused"))?.to_string();
        ensure!(refusal.contains("use kubectl"), "{refusal}");
    }
    Ok(())
}
