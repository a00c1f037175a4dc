//! `deploy/admission.yaml`: an agent writes for its own node only, whatever RBAC grants.

use anyhow::{Context, ensure};
use nsm_kube::{Cluster, Member};
use nsm_lab::eventually;
use serde_json::{Value, json};

use crate::SOON;

const ENDPOINTS: &str = "/apis/networkservicemesh.io/v1/namespaces/default/networkserviceendpoints";
const SERVICES: &str = "/apis/networkservicemesh.io/v1/namespaces/default/networkservices";
const EVENTS: &str = "/api/v1/namespaces/default/events";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/nsm-system/leases";
const NODE: &str = "networkservicemesh.io/node";

/// More than `deploy/rbac.yaml` grants: what is refused then is refused by the policy.
const TOO_MUCH: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: too-much }
rules:
  - { apiGroups: ['', networkservicemesh.io, coordination.k8s.io], resources: ['*'], verbs: ['*'] }
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: too-much }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: too-much }
subjects: [ { kind: ServiceAccount, name: nsm-agent, namespace: nsm-system } ]
";

struct Setting {
    cluster: Cluster,
    a: Member,
}

impl Setting {
    fn new() -> anyhow::Result<Self> {
        let cluster = Cluster::start()?;
        cluster.apply(TOO_MUCH)?;
        let may = || cluster.may("deletecollection", "", "secrets", "default");
        eventually("more rights", SOON, may, |may| *may)?;
        let a = cluster.member("node-a")?;
        Ok(Self { cluster, a })
    }

    /// Node a's agent may do that; `as_before` is done by the administrator, who may everything.
    fn may(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        let done = self.cluster.call_as(&self.a.token, method, path, body)?;
        done.map_err(|why| anyhow::anyhow!("{method} {path} {body}: {why}"))
    }

    /// Node a's agent may not do that, for this reason, and the administrator may.
    fn may_not(&self, method: &str, path: &str, body: &Value, why: &str) -> anyhow::Result<()> {
        let done = self.cluster.call_as(&self.a.token, method, path, body)?;
        let refusal = done.err().with_context(|| format!("{method} {path} {body} is allowed"))?;
        ensure!(refusal.contains("ValidatingAdmissionPolicy") && refusal.contains(why), "{refusal}");
        let dry = format!("{path}?dryRun=All");
        let body = if method == "DELETE" { &Value::Null } else { body };
        let administrators = self.cluster.call(method, &dry, body)?;
        ensure!(administrators.is_ok(), "{method} {path} {body}: {administrators:?}");
        Ok(())
    }
}

fn endpoint(name: &str, node: Option<&str>) -> Value {
    let annotations = node.map_or(json!({}), |node| json!({ NODE: node }));
    json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkServiceEndpoint",
        "metadata": { "name": name, "namespace": "default", "annotations": annotations },
        "spec": { "network_service_names": ["s"] },
    })
}

pub(crate) fn of_endpoints() -> anyhow::Result<()> {
    let setting = Setting::new()?;
    let why = "the agent of node node-a may write endpoints whose annotation networkservicemesh.io/node is node-a";
    setting.may("POST", ENDPOINTS, &endpoint("mine", Some("node-a")))?;
    setting.may_not("POST", ENDPOINTS, &endpoint("nobodys", None), why)?;
    setting.may_not("POST", ENDPOINTS, &endpoint("others", Some("node-b")), why)?;
    for (name, node) in [("others", Some("node-b")), ("nobodys", None)] {
        setting.cluster.create(&endpoint(name, node))?.map_err(anyhow::Error::msg)?;
        let path = format!("{ENDPOINTS}/{name}");
        let mut object = setting.cluster.get(&path)?;
        object["spec"]["url"] = json!("tcp://10.0.0.7:5001");
        setting.may_not("PUT", &path, &object, why)?;
        // Nor may it take it over.
        object["metadata"]["annotations"][NODE] = json!("node-a");
        setting.may_not("PUT", &path, &object, why)?;
        setting.may_not("DELETE", &path, &Value::Null, why)?;
    }
    let path = format!("{ENDPOINTS}/mine");
    let mut object = setting.cluster.get(&path)?;
    object["spec"]["url"] = json!("tcp://10.0.0.7:5001");
    object = setting.may("PUT", &path, &object)?;
    for node in [json!("node-b"), Value::Null] {
        let mut given_away = object.clone();
        given_away["metadata"]["annotations"][NODE] = node;
        if given_away["metadata"]["annotations"][NODE].is_null() {
            given_away["metadata"]["annotations"] = json!({});
        }
        setting.may_not("PUT", &path, &given_away, why)?;
    }
    setting.may("DELETE", &path, &Value::Null)?;
    let told = setting.cluster.call_as("agent-token", "POST", ENDPOINTS, &endpoint("x", Some("node-a")))?;
    ensure!(told.as_ref().is_err_and(|why| why.contains("the agent's token names no node")), "{told:?}");
    Ok(())
}

fn service(name: &str, node: Option<&str>, spec: &Value) -> Value {
    let annotations = node.map_or(json!({}), |node| json!({ NODE: node }));
    json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": name, "namespace": "default", "annotations": annotations }, "spec": spec,
    })
}

pub(crate) fn of_services() -> anyhow::Result<()> {
    let setting = Setting::new()?;
    let why = "the agent of node node-a may write network services that endpoints of its node have registered";
    let plain = json!({ "payload": "IP" });
    setting.may("POST", SERVICES, &service("mine", Some("node-a"), &plain))?;
    setting.may_not("POST", SERVICES, &service("nobodys", None, &plain), "and this is an operator's: use kubectl")?;
    setting.may_not("POST", SERVICES, &service("others", Some("node-b"), &plain), why)?;
    let lists = [
        json!({ "allowed_client_namespaces": ["shop"] }),
        json!({ "allowedClientNamespaces": [] }),
        json!({ "allowed_endpoint_namespaces": ["*"] }),
        json!({ "allowedEndpointNamespaces": ["shop"] }),
    ];
    for spec in &lists {
        setting.may_not("POST", SERVICES, &service("listed", Some("node-a"), spec), "which are an operator's")?;
    }
    for (name, node) in [("others", Some("node-b")), ("nobodys", None)] {
        setting.cluster.create(&service(name, node, &plain))?.map_err(anyhow::Error::msg)?;
        let path = format!("{SERVICES}/{name}");
        let mut object = setting.cluster.get(&path)?;
        object["spec"]["payload"] = json!("ETHERNET");
        setting.may_not("PUT", &path, &object, why)?;
        // Nor may it take it over.
        object["metadata"]["annotations"][NODE] = json!("node-a");
        setting.may_not("PUT", &path, &object, why)?;
        setting.may_not("DELETE", &path, &Value::Null, why)?;
        // The condition is told by whoever comes first, and the rest is out of its reach.
        let accepted = json!([{
            "type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]);
        let mut status =
            json!({ "metadata": { "annotations": { NODE: "node-a" } }, "status": { "conditions": accepted } });
        let told = setting.may("PATCH", &format!("{path}/status"), &status)?;
        ensure!(told["metadata"]["annotations"][NODE] != "node-a", "{told}");
        ensure!(told["status"]["conditions"][0]["type"] == "Accepted", "{told}");
        status["status"]["conditions"][0]["type"] = json!("Ready");
        setting.may_not("PATCH", &format!("{path}/status"), &status, "and nothing else of its status")?;
    }
    let path = format!("{SERVICES}/mine");
    let mut object = setting.cluster.get(&path)?;
    object["spec"]["payload"] = json!("ETHERNET");
    let mut given_away = setting.may("PUT", &path, &object)?;
    given_away["metadata"]["annotations"] = json!({});
    setting.may_not("PUT", &path, &given_away, why)?;
    for spec in &lists {
        let mut listed = setting.cluster.get(&path)?;
        listed["spec"] = spec.clone();
        setting.may_not("PUT", &path, &listed, "which are an operator's")?;
        // Once an operator has said it, the service is an operator's.
        setting.cluster.patch(&path, &json!({ "spec": spec }))?;
        let mut listed = setting.cluster.get(&path)?;
        listed["spec"] = plain.clone();
        setting.may_not("PUT", &path, &listed, "which are an operator's")?;
        setting.may_not("DELETE", &path, &Value::Null, "which are an operator's")?;
        let nothing: serde_json::Map<_, _> =
            spec.as_object().into_iter().flatten().map(|(list, _)| (list.clone(), Value::Null)).collect();
        setting.cluster.patch(&path, &json!({ "spec": nothing }))?;
    }
    setting.may("DELETE", &path, &Value::Null)?;
    Ok(())
}

fn event(name: &str, component: &str, instance: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Event", "metadata": { "name": name, "namespace": "default" },
        "involvedObject": { "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default", "uid": "u" },
        "type": "Warning", "reason": "NetworkServiceRefused", "message": "no", "action": "Attach",
        "reportingComponent": component, "reportingInstance": instance, "count": 1,
    })
}

pub(crate) fn of_events() -> anyhow::Result<()> {
    const OURS: &str = "networkservicemesh.io/nsm-agent";
    let setting = Setting::new()?;
    let why = "may write events whose reportingComponent is networkservicemesh.io/nsm-agent and whose reportingInstance is node-a";
    setting.may("POST", EVENTS, &event("mine", OURS, "node-a"))?;
    let mut forged = event("forged", OURS, "node-a");
    forged["source"] = json!({ "component": "kubelet" });
    setting.may_not("POST", EVENTS, &forged, why)?;
    for (name, component, instance) in
        [("kubelets", "kubelet", "node-a"), ("nobodys", "", ""), ("others", OURS, "node-b")]
    {
        setting.may_not("POST", EVENTS, &event(name, component, instance), why)?;
        setting.cluster.create(&event(name, component, instance))?.map_err(anyhow::Error::msg)?;
        let path = format!("{EVENTS}/{name}");
        setting.may_not("PATCH", &path, &json!({ "message": "all is well" }), why)?;
        let taken = json!({ "reportingComponent": OURS, "reportingInstance": "node-a" });
        setting.may_not("PATCH", &path, &taken, why)?;
        setting.may_not("DELETE", &path, &Value::Null, why)?;
    }
    let path = format!("{EVENTS}/mine");
    setting.may("PATCH", &path, &json!({ "message": "still no", "count": 2 }))?;
    setting.may_not("PATCH", &path, &json!({ "reportingComponent": "kubelet" }), why)?;
    for change in [json!({ "involvedObject": { "uid": "v" } }), json!({ "reason": "Killing" })] {
        setting.may_not("PATCH", &path, &change, "not say it of something else")?;
    }
    Ok(())
}

fn lease(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": name, "namespace": "nsm-system", "annotations": { NODE: node } },
        "spec": { "holderIdentity": "x" },
    })
}

pub(crate) fn of_leases() -> anyhow::Result<()> {
    let setting = Setting::new()?;
    let why = "the agent of node node-a may write the lease nsm-node-a of that node only";
    // Under its own name for another node: what the annotation says counts.
    for (name, node) in [("nsm-node-b", "node-b"), ("nsm-node-b", "node-a"), ("nsm-node-a", "node-b")] {
        setting.may_not("POST", LEASES, &lease(name, node), why)?;
    }
    setting.may("POST", LEASES, &lease("nsm-node-a", "node-a"))?;
    setting.cluster.create(&lease("nsm-node-b", "node-b"))?.map_err(anyhow::Error::msg)?;
    let renewal = json!({ "spec": { "holderIdentity": "y" } });
    setting.may("PATCH", &format!("{LEASES}/nsm-node-a"), &renewal)?;
    setting.may_not("PATCH", &format!("{LEASES}/nsm-node-b"), &renewal, why)?;
    let renamed = json!({ "metadata": { "annotations": { NODE: "node-b" } } });
    setting.may_not("PATCH", &format!("{LEASES}/nsm-node-a"), &renamed, why)?;
    setting.may_not("DELETE", &format!("{LEASES}/nsm-node-b"), &Value::Null, why)?;
    Ok(())
}

pub(crate) fn of_the_status_of_pods() -> anyhow::Result<()> {
    let setting = Setting::new()?;
    for (name, node) in [("mine", "node-a"), ("others", "node-b")] {
        setting.cluster.make_pod("default", name, node)?;
    }
    let path = |name: &str| format!("/api/v1/namespaces/default/pods/{name}/status");
    let annotations = |key: &str, value: Value| json!({ "metadata": { "annotations": { key: value } } });
    let ours = ["networkservicemesh.io/status", "k8s.v1.cni.cncf.io/network-status"];
    for key in ours {
        for value in [json!("[]"), json!("[{}]"), Value::Null] {
            setting.may("PATCH", &path("mine"), &annotations(key, value))?;
        }
    }
    let others = annotations("networkservicemesh.io", json!("kernel://s"));
    setting.may_not("PATCH", &path("mine"), &others, "and no others")?;
    setting.cluster.patch("/api/v1/namespaces/default/pods/mine", &others)?;
    for value in [json!("kernel://t"), Value::Null] {
        setting.may_not("PATCH", &path("mine"), &annotations("networkservicemesh.io", value), "and no others")?;
    }
    setting.may("PATCH", &path("mine"), &annotations(ours[0], json!("[]")))?;
    let phase = json!({ "status": { "phase": "Failed" } });
    setting.may_not("PATCH", &path("mine"), &phase, "which is the kubelet's")?;
    for metadata in [json!({ "labels": { "a": "b" } }), json!({ "finalizers": ["example.org/stay"] })] {
        let why = "may not change labels, finalizers and owners of a pod";
        setting.may_not("PATCH", &path("mine"), &json!({ "metadata": metadata }), why)?;
    }
    let why = "the agent of node node-a may write the status of pods of its own node, and this pod is on node-b";
    let mut status = annotations(ours[0], json!("[]"));
    setting.may_not("PATCH", &path("others"), &status, why)?;
    status["spec"] = json!({ "nodeName": "node-a" });
    setting.may_not("PATCH", &path("others"), &status, why)?;
    Ok(())
}
