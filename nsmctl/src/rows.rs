//! What every kind looks like in a table: a row per object, few columns or all.

use nsm_proto::{
    admin::{Access, ConnectionInfo, Endpoint, Namespaces, WatchEvent},
    registry::NetworkService,
};
use serde_json::Value;

use crate::{kind::Kind, labels, object, time};

/// One listed object in every form that is written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) row: Vec<String>,
    pub(crate) object: Value,
}

/// The headings of a kind's table; the narrow one has the first so many.
pub(crate) fn headings(kind: Kind) -> (&'static [&'static str], usize) {
    match kind {
        Kind::Service => (&["NAME", "PAYLOAD", "MATCHES", "SELECTORS", "CLIENTS", "ENDPOINTS"], 3),
        Kind::Endpoint => (
            &["NAME", "NETWORK SERVICES", "CONNECTIONS", "EXPIRES IN", "REACHABLE", "AGE", "URL", "OWNER", "LABELS"],
            6,
        ),
        Kind::Connection => (
            &[
                "ID",
                "NETWORK SERVICE",
                "ENDPOINT",
                "PHASE",
                "CLIENT",
                "INTERFACE",
                "ADDRESSES",
                "AGE",
                "MECHANISM",
                "ENDPOINT ADDRESSES",
                "ENDPOINT INTERFACE",
                "NAMESPACE",
            ],
            8,
        ),
    }
}

/// The objects of a list.
pub(crate) fn listed(event: &WatchEvent) -> Vec<Listed> {
    let services = event
        .network_services
        .iter()
        .flat_map(|list| list.items.iter().map(|found| service(found, list.access.get(&found.name))));
    let endpoints = event.endpoints.iter().flat_map(|list| list.items.iter().map(endpoint));
    let connections = event.connections.iter().flat_map(|list| list.items.iter().map(connection));
    services.chain(endpoints).chain(connections).collect()
}

fn service(service: &NetworkService, access: Option<&Access>) -> Listed {
    let selector = |found: &nsm_proto::registry::Match| {
        let to = found.routes.iter().map(|route| labels::joined(&route.destination_selector));
        format!("{}→{}", labels::joined(&found.source_selector), to.collect::<Vec<_>>().join("|"))
    };
    let selectors = service.matches.iter().map(selector).collect::<Vec<_>>().join(" ");
    Listed {
        name: service.name.clone(),
        row: vec![
            service.name.clone(),
            service.payload.clone(),
            service.matches.len().to_string(),
            dash(selectors),
            namespaces(access.and_then(|access| access.clients.as_ref())),
            namespaces(access.and_then(|access| access.endpoints.as_ref())),
        ],
        object: object::service(service, access),
    }
}

fn endpoint(shown: &Endpoint) -> Listed {
    let endpoint = shown.endpoint.clone().unwrap_or_default();
    let all_labels = endpoint.network_service_labels.iter();
    let all_labels = all_labels.map(|(service, of)| format!("{service}:{}", labels::joined(&of.labels)));
    Listed {
        name: endpoint.name.clone(),
        row: vec![
            endpoint.name.clone(),
            endpoint.network_service_names.join(","),
            shown.connections.to_string(),
            time::left(endpoint.expiration_time),
            if shown.unreachable.is_empty() { "yes" } else { "no" }.to_owned(),
            time::age(endpoint.initial_registration_time),
            dash(endpoint.url.clone()),
            dash(shown.owner.clone()),
            dash(all_labels.collect::<Vec<_>>().join(" ")),
        ],
        object: object::endpoint(shown),
    }
}

fn connection(info: &ConnectionInfo) -> Listed {
    let connection = info.connection.clone().unwrap_or_default();
    let ip = connection.context.unwrap_or_default().ip_context.unwrap_or_default();
    let client = match (info.pod_name.as_str(), info.container_id.as_str()) {
        ("", "") => info.owner.clone(),
        ("", container) => container.chars().take(12).collect(),
        (pod, _) if info.pod_namespace.is_empty() => pod.to_owned(),
        (pod, _) => format!("{}/{pod}", info.pod_namespace),
    };
    Listed {
        name: connection.id.clone(),
        row: vec![
            connection.id.clone(),
            connection.network_service,
            dash(connection.network_service_endpoint_name),
            info.phase.clone(),
            dash(client),
            dash(info.ifname.clone()),
            dash(ip.src_ip_addrs.join(",")),
            time::age(info.since),
            dash(connection.mechanism.unwrap_or_default().r#type),
            dash(ip.dst_ip_addrs.join(",")),
            dash(info.endpoint_ifname.clone()),
            dash(info.netns_path.clone()),
        ],
        object: object::connection(info),
    }
}

/// The namespaces of a list; a dash where there is no list, `none` where there is an empty one.
pub(crate) fn namespaces(list: Option<&Namespaces>) -> String {
    match list {
        None => "-".to_owned(),
        Some(list) if list.names.is_empty() => "none".to_owned(),
        Some(list) => list.names.join(","),
    }
}

fn dash(text: String) -> String {
    if text.is_empty() { "-".to_owned() } else { text }
}
