//! What is shown of an object, in the form of a document: `apiVersion`, `kind`, `metadata`, `spec`, and what the agent knows as `status`.

use nsm_objects::time;
use nsm_proto::{
    admin::{Access, ConnectionInfo, Endpoint, Namespaces, ServiceObject},
    connectioncontext::{ConnectionContext, Route},
    registry::NetworkService,
};
use serde_json::{Map, Value, json};

use crate::kind::Kind;

/// A network service, with who may use and serve it.
pub(crate) fn service(service: &NetworkService, access: Option<&Access>) -> Value {
    let names = |namespaces: &Option<Namespaces>| namespaces.as_ref().map(|namespaces| namespaces.names.clone());
    let access = access
        .map(|access| nsm_objects::Access { clients: names(&access.clients), endpoints: names(&access.endpoints) });
    let spec = nsm_objects::service_spec(service, &access.unwrap_or_default());
    nsm_objects::document(Kind::Service.name(), &service.name, &spec)
}

/// A network service of a document, for the agent.
pub(crate) fn sent(service: nsm_objects::Service) -> ServiceObject {
    let names = |names: Option<Vec<String>>| names.map(|names| Namespaces { names });
    let access = Access { clients: names(service.access.clients), endpoints: names(service.access.endpoints) };
    ServiceObject { network_service: Some(service.message), access: Some(access) }
}

/// An endpoint, with what the agent knows about it as `status`.
pub(crate) fn endpoint(shown: &Endpoint) -> Value {
    let endpoint = shown.endpoint.clone().unwrap_or_default();
    let status = json!({
        "owner": shown.owner,
        "reachable": shown.unreachable.is_empty(),
        "reason": shown.unreachable,
        "connections": shown.connections,
    });
    with_status(Kind::Endpoint, &endpoint.name, &nsm_objects::endpoint_spec(&endpoint), status)
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
    with_status(Kind::Connection, &connection.id, &spec, status)
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

fn with_status(kind: Kind, name: &str, spec: &Map<String, Value>, status: Value) -> Value {
    let mut object = nsm_objects::document(kind.name(), name, spec);
    object["status"] = status;
    object
}
