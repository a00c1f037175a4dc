//! What the definitions take and refuse, and one that is not ours.

use anyhow::ensure;
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually};
use serde_json::{Value, json};

use crate::{SOON, caller};

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let metadata = json!({ "name": name, "namespace": "default" });
    json!({ "apiVersion": "networkservicemesh.io/v1", "kind": kind, "metadata": metadata, "spec": spec })
}

pub(crate) fn good_and_bad_objects() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let v1 = json!({
        "payload": "ETHERNET",
        "matches": [
            { "source_selector": { "app": "a" }, "routes": [{ "destination_selector": { "app": "b" }, "weight": 3 }] },
            { "fallthrough": true, "metadata": { "labels": { "p2p": "true" } }, "routes": [{ "destination_selector": {} }] },
        ],
    });
    let headings = json!({ "payload": "IP", "matches": [{
        "match": null, "sourceSelector": { "app": "a" }, "route": [{ "destination": null, "destinationSelector": { "app": "b" } }],
    }] });
    let nested = json!({ "match": [{ "match": {
        "sourceSelector": { "app": "a" }, "route": [{ "destination": { "destinationSelector": { "app": "b" }, "weight": 1 } }],
    } }] });
    for (name, spec) in [("v1", &v1), ("headings", &headings), ("nested", &nested), ("empty", &json!({}))] {
        for version in ["v1", "v1alpha1"] {
            let mut service = object("NetworkService", &format!("{name}-{version}"), spec);
            service["apiVersion"] = format!("networkservicemesh.io/{version}").into();
            let made = cluster.create(&service)?;
            ensure!(made.is_ok(), "{name} in {version}: {made:?}");
        }
    }
    // As the Go registry writes: its message, keys in snake_case, nothing that is empty.
    let written = json!({
        "name": "nse-1", "network_service_names": ["v1"], "network_service_labels": { "v1": { "labels": { "app": "b" } } },
        "url": "tcp://10.0.0.7:5001", "expiration_time": { "seconds": 2_000_000_000, "nanos": 5 },
        "initial_registration_time": { "seconds": 1_700_000_000, "nanos": 999_999_999 }, "path_ids": ["spiffe://a/b"],
    });
    for spec in
        [written, json!({ "name": "e" }), json!({ "networkServiceName": "v1", "expirationTime": { "seconds": 1 } })]
    {
        let made = cluster.create(&object("NetworkServiceEndpoint", &format!("e{}", spec.to_string().len()), &spec))?;
        ensure!(made.is_ok(), "{spec}: {made:?}");
    }
    let bad = [
        ("NetworkService", json!({ "payload": "TEA" }), r#"supported values: "IP", "ETHERNET""#),
        ("NetworkService", json!({ "machtes": [] }), r#"unknown field "spec.machtes""#),
        ("NetworkService", json!({ "matches": [], "match": [] }), "matches and match are two spellings of one key"),
        ("NetworkService", json!({ "matches": {} }), "must be of type array"),
        (
            "NetworkService",
            json!({ "matches": [{ "source_selector": { "a": "b" }, "sourceSelector": { "a": "b" } }] }),
            "source_selector may be written once",
        ),
        ("NetworkService", json!({ "matches": [{ "source_selector": { "port": 80 } }] }), "must be of type string"),
        ("NetworkService", json!({ "matches": [{ "routes": [{ "weight": -1 }] }] }), "greater than or equal to 0"),
        ("NetworkService", json!({ "name": "a b" }), "spec.name in body should match"),
        (
            "NetworkServiceEndpoint",
            json!({ "network_service_names": ["a@b"] }),
            "network_service_names[0] in body should match",
        ),
        (
            "NetworkServiceEndpoint",
            json!({ "network_service_names": ["a"], "networkServiceNames": ["a"] }),
            "are spellings of one key",
        ),
        ("NetworkServiceEndpoint", json!({ "expiration_time": "tomorrow" }), "must be of type object"),
        ("NetworkServiceEndpoint", json!({ "expiration_time": { "nanos": -1 } }), "greater than or equal to 0"),
    ];
    for (kind, spec, text) in bad {
        let refused = cluster.create(&object(kind, "bad", &spec))?;
        ensure!(refused.as_ref().is_err_and(|why| why.contains(text)), "{spec}: {refused:?}");
    }
    // What was taken in 2019's spelling is served in both versions, and means the same to an agent.
    let old = cluster.get("/apis/networkservicemesh.io/v1alpha1/namespaces/default/networkservices/nested-v1")?;
    ensure!(old["apiVersion"] == "networkservicemesh.io/v1alpha1", "{old}");
    let member = cluster.started("node-a")?;
    eventually("all services", SOON, || caller::known_services(&member.node), |names| names.len() == 8)?;
    let told = member.node.nsmctl(&["describe", "netsvc", "nested-v1alpha1", "--labels", "app=a"])?;
    ensure!(told.contains("from app=a   to app=b"), "{told}");
    Ok(())
}

/// As upstream's: no schema, no status, v1 alone.
fn upstream(plural: &str, kind: &str, short: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.networkservicemesh.io") },
        "spec": {
            "group": "networkservicemesh.io", "scope": "Namespaced",
            "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "shortNames": [short] },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
            } } }],
        },
    })
}

pub(crate) fn one_without_status_and_schema() -> anyhow::Result<()> {
    let cluster = Cluster::bare()?;
    for (plural, kind, short) in
        [("networkservices", "NetworkService", "netsvc"), ("networkserviceendpoints", "NetworkServiceEndpoint", "nse")]
    {
        cluster.create(&upstream(plural, kind, short))?.map_err(anyhow::Error::msg)?;
    }
    cluster.established()?;
    cluster.make_namespace("other")?;
    let member = cluster.started("node-a")?;
    let _endpoint = Endpoint::of("icmp").start(&member.node)?;
    ensure!(cluster.endpoints()?.len() == 1);
    // Nonsense gets in there, and does no harm.
    cluster.create(&object("NetworkServiceEndpoint", "nonsense", &json!({ "network_service_names": 7 })))?.ok();
    let mut second = object("NetworkService", "icmp", &json!({ "name": "icmp", "payload": "ETHERNET" }));
    second["metadata"]["namespace"] = "other".into();
    cluster.create(&second)?.map_err(anyhow::Error::msg)?;
    let events = || cluster.items("/api/v1/namespaces/other/events");
    let said = eventually("an event", SOON, events, |events| !events.is_empty())?;
    ensure!(said[0]["reason"] == "NameTaken" && said[0]["involvedObject"]["name"] == "icmp", "{said:?}");
    ensure!(caller::known_services(&member.node)? == ["icmp"]);
    ensure!(
        cluster.items("/api/v1/namespaces/nsm-system/events")?.is_empty(),
        "nothing is said of the one that counts"
    );
    Ok(())
}
