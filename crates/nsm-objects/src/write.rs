//! Writing: `apiVersion`, `kind`, `metadata`, `spec` in the v1 spelling, empty fields left out.

use nsm_proto::registry::{Match, NetworkService, NetworkServiceEndpoint};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    API_VERSION, Access,
    access::{CLIENTS, ENDPOINTS},
};

/// A list as kubectl writes it.
pub fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
}

/// A whole object of ours.
pub fn document(kind: &str, name: &str, spec: &Map<String, Value>) -> Value {
    json!({ "apiVersion": API_VERSION, "kind": kind, "metadata": { "name": name }, "spec": spec })
}

/// `spec` of a network service, less its name.
pub fn service_spec(service: &NetworkService, access: &Access) -> Map<String, Value> {
    let mut spec = Map::new();
    spec.insert("payload".into(), json!(service.payload));
    if !service.matches.is_empty() {
        spec.insert("matches".into(), service.matches.iter().map(of_match).collect());
    }
    if !service.path_ids.is_empty() {
        spec.insert("path_ids".into(), json!(service.path_ids));
    }
    for (key, namespaces) in [(CLIENTS, &access.clients), (ENDPOINTS, &access.endpoints)] {
        if let Some(namespaces) = namespaces {
            spec.insert(key.into(), json!(namespaces));
        }
    }
    spec
}

fn of_match(found: &Match) -> Value {
    let mut object = Map::new();
    if !found.source_selector.is_empty() {
        object.insert("source_selector".into(), json!(found.source_selector));
    }
    let routes = found.routes.iter().map(|route| {
        let mut object = Map::new();
        object.insert("destination_selector".into(), json!(route.destination_selector));
        if route.weight != 0 {
            object.insert("weight".into(), json!(route.weight));
        }
        Value::Object(object)
    });
    let routes: Vec<Value> = routes.collect();
    if !routes.is_empty() {
        object.insert("routes".into(), json!(routes));
    }
    if found.fallthrough {
        object.insert("fallthrough".into(), json!(true));
    }
    if let Some(metadata) = &found.metadata {
        object.insert("metadata".into(), json!({ "labels": metadata.labels }));
    }
    Value::Object(object)
}

/// `spec` of an endpoint, less its name.
pub fn endpoint_spec(endpoint: &NetworkServiceEndpoint) -> Map<String, Value> {
    let mut spec = Map::new();
    spec.insert("network_service_names".into(), json!(endpoint.network_service_names));
    let labels = endpoint.network_service_labels.iter();
    let labels: Map<_, _> = labels.map(|(name, of)| (name.clone(), json!({ "labels": of.labels }))).collect();
    if !labels.is_empty() {
        spec.insert("network_service_labels".into(), Value::Object(labels));
    }
    if !endpoint.url.is_empty() {
        spec.insert("url".into(), json!(endpoint.url));
    }
    for (key, time) in [
        ("expiration_time", endpoint.expiration_time),
        ("initial_registration_time", endpoint.initial_registration_time),
    ] {
        if let Some(time) = time {
            spec.insert(key.into(), self::time(time));
        }
    }
    if !endpoint.path_ids.is_empty() {
        spec.insert("path_ids".into(), json!(endpoint.path_ids));
    }
    spec
}

/// A time as the API server holds it.
pub fn time(time: Timestamp) -> Value {
    json!({ "seconds": time.seconds, "nanos": time.nanos })
}
