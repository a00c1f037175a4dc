//! `deploy/rbac.yaml`: what is used is granted, and whatever the file does not grant is denied.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use nsm_kube::{Cluster, deployed};
use nsm_lab::{Endpoint, eventually};
use nsm_proto::registry::{Match, NetworkService};
use serde_json::{Value, json};

use crate::{SOON, caller};

/// Every verb that the authoriser knows, also those of one resource only.
const VERBS: [&str; 13] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "bind",
    "escalate",
    "impersonate",
    "approve",
    "sign",
];

/// What every authenticated user may: ask about itself.
const EVERYBODY: [&str; 3] = ["selfsubjectaccessreviews", "selfsubjectrulesreviews", "selfsubjectreviews"];

/// Rights that would be worth most to whoever takes an agent over: the enumeration must have found each of them.
const WORST: [(&str, &str, &str); 14] = [
    ("get", "", "secrets"),
    ("list", "", "configmaps"),
    ("create", "", "nodes/proxy"),
    ("patch", "", "nodes"),
    ("create", "", "pods"),
    ("delete", "", "pods"),
    ("create", "", "pods/exec"),
    ("update", "", "namespaces"),
    ("create", "", "serviceaccounts/token"),
    ("create", "authentication.k8s.io", "tokenreviews"),
    ("escalate", "rbac.authorization.k8s.io", "clusterroles"),
    ("bind", "rbac.authorization.k8s.io", "clusterroles"),
    ("patch", "apiextensions.k8s.io", "customresourcedefinitions"),
    ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicies"),
];

/// One verb on one resource of a group, in one namespace; without one, in all.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    group: String,
    resource: String,
    namespace: String,
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned))
}

/// What the file grants on whole resources. What it grants on an object by name is seen in [`what_is_granted_is_used`], where nothing that
/// agents ask for is refused.
fn granted() -> anyhow::Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for object in serde_saphyr::from_multiple::<Value>(&deployed("rbac.yaml")?)? {
        let namespace = match object["kind"].as_str() {
            Some("ClusterRole") => String::new(),
            Some("Role") => object["metadata"]["namespace"].as_str().context("namespace")?.to_owned(),
            _ => continue,
        };
        for rule in object["rules"].as_array().into_iter().flatten() {
            ensure!(rule["nonResourceURLs"].is_null(), "{rule}");
            if !rule["resourceNames"].is_null() {
                continue;
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    rights.extend(texts(&rule["verbs"]).map(|verb| Right {
                        verb,
                        group: group.clone(),
                        resource: resource.clone(),
                        namespace: namespace.clone(),
                    }));
                }
            }
        }
    }
    ensure!(!rights.is_empty(), "deploy/rbac.yaml grants nothing");
    Ok(rights)
}

/// Every resource that the API server serves: group, name, and whether it is in namespaces.
fn resources(cluster: &Cluster) -> anyhow::Result<BTreeSet<(String, String, bool)>> {
    let groups = cluster.get("/apis")?["groups"].as_array().cloned().unwrap_or_default();
    let versions = groups.iter().flat_map(|group| group["versions"].as_array().into_iter().flatten());
    let versions = versions.filter_map(|version| version["groupVersion"].as_str());
    let paths = versions.map(|version| (version.split('/').next().unwrap_or_default(), format!("/apis/{version}")));
    let mut all = BTreeSet::new();
    for (group, path) in paths.chain([("", "/api/v1".to_owned())]) {
        for resource in cluster.get(&path)?["resources"].as_array().into_iter().flatten() {
            let name = resource["name"].as_str().context("a resource without name")?;
            all.insert((group.to_owned(), name.to_owned(), resource["namespaced"] == true));
        }
    }
    Ok(all)
}

pub(crate) fn what_the_file_does_not_grant_is_denied() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let granted = granted()?;
    for Right { verb, group, resource, namespace } in &granted {
        let namespace = if namespace.is_empty() { "default" } else { namespace };
        let may = || cluster.may(verb, group, resource, namespace);
        eventually(&format!("{verb} {resource} in {namespace}"), SOON, may, |may| *may)?;
    }
    let mut denied = BTreeSet::new();
    for (group, resource, namespaced) in resources(&cluster)? {
        let namespaces: &[&str] = if namespaced { &["default", "nsm-system", "kube-system"] } else { &[""] };
        for verb in VERBS {
            for namespace in namespaces {
                let is = |of: &str| {
                    let (verb, group, resource) = (verb.to_owned(), group.clone(), resource.clone());
                    granted.contains(&Right { verb, group, resource, namespace: of.to_owned() })
                };
                if is("") || is(namespace) || (verb == "create" && EVERYBODY.contains(&resource.as_str())) {
                    continue;
                }
                ensure!(
                    !cluster.may(verb, &group, &resource, namespace)?,
                    "{verb} {resource} ({group}) in {namespace:?} is allowed, and not in deploy/rbac.yaml"
                );
                denied.insert((verb, group.clone(), resource.clone()));
            }
        }
    }
    for (verb, group, resource) in WORST {
        ensure!(
            denied.contains(&(verb, group.to_owned(), resource.to_owned())),
            "{verb} {resource} was not asked about"
        );
    }
    ensure!(denied.len() > 500, "only {} rights were asked about", denied.len());
    Ok(())
}

pub(crate) fn what_is_granted_is_used() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let ours = "networkservicemesh.io";
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
    let pod = a.node.pod("p")?;
    caller::from(&a.node, pod.namespace(), async |registry| {
        let changed = NetworkService { matches: vec![Match::default()], ..caller::service("changed") };
        registry.register_service(caller::service("changed")).await?;
        registry.register_service(changed).await?;
        Ok(registry.unregister_service(caller::service("changed")).await?)
    })?;
    a.node.nsmctl(&["delete", "nse", "one"])?;
    let leases =
        || Ok(cluster.asked()?.iter().filter(|asked| asked.verb == "patch" && asked.resource == "leases").count());
    eventually("renewals", SOON, leases, |count| *count >= 3)?;
    let all = cluster.asked()?;
    let refused: Vec<_> = all.iter().filter(|asked| asked.code == 403).collect();
    ensure!(refused.is_empty(), "{refused:?}");
    let of_kinds = all.iter().any(|asked| asked.resource == "customresourcedefinitions" && asked.verb == "watch");
    ensure!(of_kinds, "nobody has asked for the kind of networks");
    let used: BTreeSet<(String, String)> = all.into_iter().map(|asked| (asked.resource, asked.verb)).collect();
    let of_grants: BTreeSet<(String, String)> =
        granted()?.into_iter().map(|right| (right.resource, right.verb)).collect();
    let unused: Vec<_> = of_grants.difference(&used).collect();
    // Other tests have these: definitions without status, endpoints of known pods, pods that ask by annotation,
    // networks, claims.
    let elsewhere = |(resource, verb): &&&(String, String)| {
        [
            "events",
            "pods/status",
            "networkserviceendpoints/status",
            "network-attachment-definitions",
            "resourceclaims",
            "resourceslices",
        ]
        .contains(&resource.as_str())
            || (resource, verb) == (&"pods".into(), &"get".into())
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
