//! Objects as kubectl writes them: `apiVersion`, `kind`, `metadata`, `spec` in the v1 spelling.

use nsm_proto::{
    admin::{ConnectionInfo, Endpoint},
    connectioncontext::{ConnectionContext, Route},
    registry::{Match, NetworkService, NetworkServiceEndpoint},
};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use crate::kind::Kind;

/// Group and version of our objects.
pub(crate) const API_VERSION: &str = "networkservicemesh.io/v1";

/// A list as kubectl writes it.
pub(crate) fn list(items: &[Value]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "metadata": { "resourceVersion": "" }, "items": items })
}

/// A network service.
pub(crate) fn service(service: &NetworkService) -> Value {
    let mut spec = Map::new();
    spec.insert("payload".into(), json!(service.payload));
    if !service.matches.is_empty() {
        spec.insert("matches".into(), service.matches.iter().map(of_match).collect());
    }
    whole(Kind::Service, &service.name, &spec, None)
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

/// An endpoint, with what the agent knows about it as `status`.
pub(crate) fn endpoint(shown: &Endpoint) -> Value {
    let none = NetworkServiceEndpoint::default();
    let endpoint = shown.endpoint.as_ref().unwrap_or(&none);
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
    let status = json!({
        "owner": shown.owner,
        "reachable": shown.unreachable.is_empty(),
        "reason": shown.unreachable,
        "connections": shown.connections,
    });
    whole(Kind::Endpoint, &endpoint.name, &spec, Some(status))
}

/// A connection; its message under the field names of NSM v1.
pub(crate) fn connection(info: &ConnectionInfo) -> Value {
    let connection = info.connection.clone().unwrap_or_default();
    let segments = connection.path.as_ref().map(|path| path.path_segments.as_slice()).unwrap_or_default();
    let segments: Vec<Value> = segments
        .iter()
        .map(|segment| json!({ "name": segment.name, "id": segment.id, "expires": segment.expires.map(time) }))
        .collect();
    let mut spec = Map::new();
    spec.insert("network_service".into(), json!(connection.network_service));
    spec.insert("network_service_endpoint_name".into(), json!(connection.network_service_endpoint_name));
    spec.insert("payload".into(), json!(connection.payload));
    spec.insert("labels".into(), json!(connection.labels));
    if let Some(mechanism) = &connection.mechanism {
        let mechanism = json!({ "cls": mechanism.cls, "type": mechanism.r#type, "parameters": mechanism.parameters });
        spec.insert("mechanism".into(), mechanism);
    }
    if let Some(found) = &connection.context {
        spec.insert("context".into(), context(found));
    }
    spec.insert("path".into(), json!({ "path_segments": segments }));
    let status = json!({
        "phase": info.phase, "container_id": info.container_id, "ifname": info.ifname, "netns_path": info.netns_path,
        "pod_name": info.pod_name, "pod_namespace": info.pod_namespace, "owner": info.owner,
        "since": info.since.map(time), "endpoint_ifname": info.endpoint_ifname, "network": info.network,
    });
    whole(Kind::Connection, &connection.id, &spec, Some(status))
}

fn context(context: &ConnectionContext) -> Value {
    let mut object = Map::new();
    if let Some(ip) = &context.ip_context {
        let routes = |routes: &[Route]| -> Value {
            routes.iter().map(|route| json!({ "prefix": route.prefix, "nextHop": route.next_hop })).collect()
        };
        let ip = json!({
            "src_ip_addrs": ip.src_ip_addrs, "dst_ip_addrs": ip.dst_ip_addrs,
            "src_routes": routes(&ip.src_routes), "dst_routes": routes(&ip.dst_routes),
            "excluded_prefixes": ip.excluded_prefixes,
        });
        object.insert("ip_context".into(), ip);
    }
    if let Some(dns) = &context.dns_context {
        let of = dns.configs.iter();
        let configs: Vec<Value> = of
            .map(|dns| json!({ "dns_server_ips": dns.dns_server_ips, "search_domains": dns.search_domains }))
            .collect();
        object.insert("dns_context".into(), json!({ "configs": configs }));
    }
    if context.mtu != 0 {
        object.insert("MTU".into(), json!(context.mtu));
    }
    Value::Object(object)
}

fn time(time: Timestamp) -> Value {
    json!({ "seconds": time.seconds, "nanos": time.nanos })
}

fn whole(kind: Kind, name: &str, spec: &Map<String, Value>, status: Option<Value>) -> Value {
    let mut object = json!({
        "apiVersion": API_VERSION, "kind": kind.name(), "metadata": { "name": name }, "spec": spec,
    });
    if let (Some(status), Some(object)) = (status, object.as_object_mut()) {
        object.insert("status".into(), status);
    }
    object
}
