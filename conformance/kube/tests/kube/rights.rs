//! `deploy/rbac.yaml`: what is used is granted, what is not used is denied.

use std::collections::BTreeSet;

use anyhow::ensure;
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually};
use serde_json::json;

use crate::{SOON, caller};

pub(crate) fn used_ones_are_granted_and_others_denied() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let ours = "networkservicemesh.io";
    let granted = [
        ("list watch get create update delete", ours, "networkserviceendpoints", "default"),
        ("list watch get create update delete", ours, "networkservices", "default"),
        ("patch", ours, "networkservices/status", "default"),
        ("create patch", "", "events", "default"),
        ("get list watch", "", "pods", "default"),
        ("list watch", "", "namespaces", ""),
        ("list watch create patch", "coordination.k8s.io", "leases", "nsm-system"),
    ];
    let denied = [
        ("get list watch create update patch delete", "", "secrets", "nsm-system"),
        ("get list watch create update patch delete", "", "configmaps", "default"),
        ("get create", "", "nodes/proxy", ""),
        ("get list watch update patch", "", "nodes", ""),
        ("create update patch delete", "", "pods", "default"),
        ("get create update patch delete", "", "namespaces", ""),
        ("create", "", "pods/exec", "default"),
        ("patch update", "", "pods/status", "default"),
        ("patch deletecollection", ours, "networkserviceendpoints", "default"),
        ("patch deletecollection", ours, "networkservices", "default"),
        ("update", ours, "networkservices/status", "default"),
        ("patch update", ours, "networkserviceendpoints/status", "default"),
        ("get list watch update delete", "", "events", "default"),
        ("get update delete", "coordination.k8s.io", "leases", "nsm-system"),
        ("list watch create patch", "coordination.k8s.io", "leases", "kube-system"),
        ("create", "", "serviceaccounts/token", "nsm-system"),
        ("get list create bind escalate", "rbac.authorization.k8s.io", "clusterroles", ""),
        ("get list create", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ];
    for (verbs, group, resource, namespace) in granted {
        for verb in verbs.split(' ') {
            let may = || cluster.may(verb, group, resource, namespace);
            eventually(&format!("{verb} {resource} in {namespace}"), SOON, may, |may| *may)?;
        }
    }
    for (verbs, group, resource, namespace) in denied {
        for verb in verbs.split(' ') {
            ensure!(!cluster.may(verb, group, resource, namespace)?, "{verb} {resource} in {namespace} is allowed");
        }
    }
    // A life of an agent that needs all of it.
    cluster.make_namespace("other")?;
    let mut a = cluster.started("node-a")?;
    let one = Endpoint::of("icmp").name("one").start(&a.node)?;
    let service = json!({
        "apiVersion": format!("{ours}/v1"), "kind": "NetworkService", "metadata": { "name": "icmp", "namespace": "other" }, "spec": {},
    });
    cluster.create(&service)?.map_err(anyhow::Error::msg)?;
    let conditions = || Ok(cluster.asked()?.iter().filter(|asked| asked.resource == "networkservices/status").count());
    eventually("conditions", SOON, conditions, |count| *count >= 2)?;
    a.node.kill_agent()?;
    a.node.start_agent()?;
    eventually("the endpoint", SOON, || nsm_lab::registered(&a.node), |names| names == &["one"])?;
    let file = a.node.dir().join("service.yaml");
    let edited = "{apiVersion: networkservicemesh.io/v1, kind: NetworkService, metadata: {name: icmp}, spec: {payload: ETHERNET}}";
    std::fs::write(&file, edited)?;
    a.node.nsmctl(&["apply", "-f", &file.display().to_string()])?;
    a.node.nsmctl(&["delete", "nse", "one"])?;
    a.node.nsmctl(&["delete", "netsvc", "icmp"])?;
    let leases =
        || Ok(cluster.asked()?.iter().filter(|asked| asked.verb == "patch" && asked.resource == "leases").count());
    eventually("renewals", SOON, leases, |count| *count >= 3)?;
    let all = cluster.asked()?;
    let refused: Vec<_> = all.iter().filter(|asked| asked.code == 403).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let used: BTreeSet<(String, String)> = all.into_iter().map(|asked| (asked.resource, asked.verb)).collect();
    let of_grants: BTreeSet<(String, String)> = granted
        .iter()
        .flat_map(|(verbs, _, resource, _)| verbs.split(' ').map(|verb| ((*resource).to_owned(), verb.to_owned())))
        .collect();
    let unused: Vec<_> = of_grants.difference(&used).collect();
    // Events are for definitions without status, a pod is got for endpoints of known pods: other tests have them.
    let elsewhere = |(resource, verb): &&&(String, String)| {
        resource == "events" || (resource, verb) == (&"pods".into(), &"get".into())
    };
    ensure!(unused.iter().all(|grant| elsewhere(&grant)), "granted and not used: {unused:?}");
    drop(one);
    Ok(())
}

pub(crate) fn without_the_right_to_services() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.delete("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/nsm-agent-services")?;
    let may = || cluster.may("create", "networkservicemesh.io", "networkservices", "default");
    eventually("the right to be gone", SOON, may, |may| !may)?;
    let service = json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": "known", "namespace": "default" }, "spec": {},
    });
    cluster.create(&service)?.map_err(anyhow::Error::msg)?;
    let a = cluster.started("node-a")?;
    eventually("the service", SOON, || caller::known_services(&a.node), |names| names == &["known"])?;
    let pod = a.node.pod("p")?;
    let error = caller::from(&a.node, pod.namespace(), async |registry| {
        registry.register_service(caller::service("known")).await?;
        registry.register_endpoint(caller::endpoint("e", "known"), None).await?;
        Ok(registry.register_service(caller::service("unknown")).await.unwrap_err())
    })?;
    ensure!(error.kind() == nsm_sdk::Kind::Denied && error.to_string().contains("deploy/rbac.yaml"), "{error}");
    ensure!(cluster.services()?.len() == 1 && cluster.endpoints()?.len() == 1);
    Ok(())
}
