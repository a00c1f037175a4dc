//! Pods in the host's network: who they are.

use anyhow::{Context, bail, ensure};
use nsm_kube::pods::{ASKS, client, endpoint, reaches, serve};
use nsm_kube::{Machine, Mesh, SOON, Traces, patiently};
use serde_json::{Value, json};

const SERVICE: &str = "of-the-host";

/// An endpoint in the host's network, as root: who is not told from the host may everything.
fn responder(namespace: &str, machine: &Machine) -> Value {
    let mut pod = endpoint(namespace, "responder", machine, SERVICE, "172.16.9.0/24");
    pod["spec"]["hostNetwork"] = true.into();
    pod["spec"]["containers"][0]["securityContext"] =
        json!({ "runAsUser": 0, "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } });
    pod
}

pub(crate) fn an_endpoint_in_the_hosts_network_is_its_pods(mesh: &mut Mesh) -> anyhow::Result<()> {
    for namespace in ["host-good", "host-bad"] {
        mesh.namespace(namespace, &Value::Null)?;
    }
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    mesh.kubectl_apply(&json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": SERVICE, "namespace": "host-good" },
        "spec": { "allowed_endpoint_namespaces": ["host-good"] },
    }))?;
    mesh.create(&responder("host-bad", machine))?;
    let log = || Ok(mesh.kubectl(&["-n", "host-bad", "logs", "responder"]).unwrap_or_default());
    let refused = |log: &String| log.contains("namespace host-bad may not serve");
    patiently("a refusal that names the pod's namespace", SOON, log, refused)?;
    serve(mesh, machine, &responder("host-good", machine))?;
    let endpoints = mesh.cluster().endpoints()?;
    let of = |namespace: &str| endpoints.iter().find(|object| object["metadata"]["namespace"] == namespace);
    ensure!(of("host-bad").is_none() && of("nsm-system").is_none(), "{endpoints:?}");
    let object = of("host-good").context("no endpoint in its pod's namespace")?;
    let pod = mesh.pod("host-good", "responder")?;
    ensure!(object["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"], "{object}");

    mesh.create(&client("host-good", "pod", machine, ASKS, &format!("kernel://{SERVICE}/nsm-1")))?;
    mesh.running("host-good", "pod")?;
    reaches(&mesh.network_of(machine, "host-good", "pod")?, "nsm-1")?;
    mesh.delete("host-good", &["responder"])?;
    let left = || Ok(mesh.cluster().endpoints()?.len());
    patiently("withdrawal of the endpoint", SOON, left, |count| *count == 0)?;
    for namespace in ["host-good", "host-bad"] {
        let names: Vec<String> = mesh
            .pods(namespace)?
            .iter()
            .filter_map(|pod| pod["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        mesh.delete(namespace, &names)?;
        mesh.gone(namespace, &names)?;
    }
    before.remain(machine)
}

/// As by the chart's `hostPID: false`: root is taken for the operator, whose services no agent makes.
pub(crate) fn an_endpoint_that_is_not_seen_is_the_hosts(mesh: &mut Mesh) -> anyhow::Result<()> {
    let seeing = |processes: Value| {
        let patch = json!({ "spec": { "template": { "spec": { "hostPID": processes } } } }).to_string();
        mesh.kubectl(&["-n", "nsm-system", "patch", "daemonset", "nsm-agent", "--type=merge", "-p", &patch])?;
        mesh.rolled_out()
    };
    seeing(Value::Null)?;
    let outcome = unseen(mesh);
    seeing(true.into())?;
    outcome
}

fn unseen(mesh: &Mesh) -> anyhow::Result<()> {
    mesh.namespace("host-unseen", &Value::Null)?;
    let machine = mesh.machine(0)?;
    let before = Traces::of(machine)?;
    mesh.kubectl_apply(&json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": SERVICE, "namespace": "nsm-system" }, "spec": {},
    }))?;
    serve(mesh, machine, &responder("host-unseen", machine))?;
    let endpoints = mesh.cluster().endpoints()?;
    let [object] = endpoints.as_slice() else { bail!("one endpoint was expected: {endpoints:?}") };
    let metadata = &object["metadata"];
    ensure!(metadata["namespace"] == "nsm-system" && metadata["ownerReferences"].is_null(), "{object}");
    // Of pods with a network of their own all is known as ever.
    mesh.create(&endpoint("host-unseen", "seen", machine, "of-a-pod", "172.16.8.0/24"))?;
    mesh.running("host-unseen", "seen")?;
    let owned = |object: &Value| object["metadata"]["namespace"] == "host-unseen";
    patiently("its endpoint", SOON, || mesh.cluster().endpoints(), |all| all.iter().any(owned))?;
    mesh.create(&client("host-unseen", "pod", machine, ASKS, &format!("kernel://{SERVICE}/nsm-1")))?;
    mesh.running("host-unseen", "pod")?;
    reaches(&mesh.network_of(machine, "host-unseen", "pod")?, "nsm-1")?;
    let names = ["responder", "seen", "pod"];
    mesh.delete("host-unseen", &names)?;
    mesh.gone("host-unseen", &names)?;
    let left = || Ok(mesh.cluster().endpoints()?.len());
    patiently("withdrawal of the endpoints", SOON, left, |count| *count == 0)?;
    mesh.kubectl(&["-n", "nsm-system", "delete", "networkservices.networkservicemesh.io", SERVICE])?;
    before.remain(machine)
}
