//! Writes those seeds that are no text, into `fuzz/seeds/`: `cargo run -p nsm-fuzz-targets --example seeds`.

use std::{collections::BTreeMap, fs, path::Path};

use nsm_proto::{
    admin::{Endpoint, EndpointList, NetworkServiceList, WatchEvent},
    connection::{Connection, Mechanism, Path as Segments, PathSegment},
    connectioncontext::{
        ConnectionContext, DnsConfig, DnsContext, EthernetContext, IpContext, IpNeighbor, PolicyRoute, Route,
    },
    networkservice::NetworkServiceRequest,
    registry::{Destination, Match, Metadata, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels},
};
use prost::Message;
use prost_types::Timestamp;

fn main() -> std::io::Result<()> {
    let full = connection();
    write("connection", "full", &full)?;
    write(
        "connection",
        "request",
        &NetworkServiceRequest {
            mechanism_preferences: full.mechanism.clone().into_iter().collect(),
            connection: Some(full.clone()),
        },
    )?;
    let policies = (0..20).map(|n| PolicyRoute { dst_port: (80 + n).to_string(), ..PolicyRoute::default() });
    let policies =
        IpContext { src_ip_addrs: texts(&["172.16.1.1/32"]), policies: policies.collect(), ..IpContext::default() };
    write("connection", "policies", &with(policies))?;
    let plain = Connection { id: "c".into(), network_service: "s".into(), ..Connection::default() };
    write("connection", "plain", &plain)?;
    write("addresses", "none", &plain)?;
    write("addresses", "named", &full)?;
    write(
        "addresses",
        "excluded",
        &with(IpContext {
            src_ip_addrs: texts(&["10.0.0.3/32"]),
            excluded_prefixes: texts(&["10.0.0.0/30", "fd00::/127"]),
            ..IpContext::default()
        }),
    )?;
    write(
        "registry",
        "both",
        &WatchEvent {
            network_services: Some(NetworkServiceList {
                items: vec![service(), bare_service()],
                access: BTreeMap::new(),
            }),
            endpoints: Some(EndpointList { items: ["nse-1", "nse-2"].map(endpoint).into() }),
            connections: None,
        },
    )?;
    for (name, fields) in vpp_messages() {
        let seed = nsm_fuzz_targets::vpp_message_seed(name, &fields).expect("a message of ours");
        save("vpp_message", name, &seed)?;
    }
    let stored = nsm_agent::fuzzing::registry::store(service(), endpoint("nse-1").endpoint.unwrap_or_default());
    for (name, bytes) in ["service", "endpoint"].into_iter().zip(stored) {
        save("stored", name, &bytes)?;
    }
    Ok(())
}

fn write(target: &str, name: &str, message: &impl Message) -> std::io::Result<()> {
    save(target, name, &message.encode_to_vec())
}

fn save(target: &str, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), bytes)
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn map(list: &[(&str, &str)]) -> BTreeMap<String, String> {
    list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn route(prefix: &str, next_hop: &str) -> Route {
    Route { prefix: prefix.into(), next_hop: next_hop.into() }
}

fn with(ip: IpContext) -> Connection {
    let context = ConnectionContext { ip_context: Some(ip), ..ConnectionContext::default() };
    Connection { id: "c".into(), context: Some(context), ..Connection::default() }
}

fn vpp_messages() -> [(&'static str, serde_json::Value); 7] {
    use serde_json::json;
    let path = json!({ "type": 0, "nh": { "address": { "ip4": "10.0.0.1" } }, "label_stack": [] });
    let rule = json!({ "is_permit": 1, "src_prefix": "10.0.0.0/8", "dst_prefix": "fd00::/64" });
    [
        ("sw_interface_details", json!({ "flags": 3, "interface_name": "memif0/7", "tag": "mine" })),
        ("memif_create_v2", json!({ "mode": 1, "id": 7, "secret": "abc" })),
        ("ip_route_v2_details", json!({ "route": { "prefix": "10.0.0.0/24", "paths": [path] } })),
        ("acl_details", json!({ "tag": "firewall", "r": [rule] })),
        ("tap_create_v3", json!({ "host_if_name": "tap7", "host_ip6_prefix": { "len": 64 }, "tag": "mine" })),
        ("want_ping_finished_events", json!({ "address": "fd00::1", "interval": 0.5 })),
        ("sw_interface_tx_placement_details", json!({ "threads": [1, 2, 3] })),
    ]
}

fn connection() -> Connection {
    let ip = IpContext {
        src_ip_addrs: texts(&["172.16.1.1/32", "fd00::1/128", "192.0.2.7/24"]),
        dst_ip_addrs: texts(&["172.16.1.0/32", "fd00::/128"]),
        src_routes: vec![
            route("172.16.1.0/32", ""),
            route("10.0.0.0/8", "172.16.1.0"),
            route("0.0.0.0/0", ""),
            route("fd01::/64", "fd00::"),
        ],
        dst_routes: vec![route("172.16.1.1/32", ""), route("fd00::1/128", "")],
        excluded_prefixes: texts(&["10.1.0.0/16"]),
        ip_neighbors: vec![IpNeighbor { ip: "172.16.1.9".into(), hardware_address: "02:00:00:00:00:09".into() }],
        policies: vec![
            PolicyRoute {
                from: "172.16.1.1/32".into(),
                proto: "tcp".into(),
                dst_port: "80-90".into(),
                src_port: "1024".into(),
                routes: vec![route("198.51.100.0/24", "172.16.1.0")],
            },
            PolicyRoute { proto: "17".into(), ..PolicyRoute::default() },
        ],
        ..IpContext::default()
    };
    let dns = DnsConfig { dns_server_ips: texts(&["172.16.1.53"]), search_domains: texts(&["example.org"]) };
    let segment = |name: &str| PathSegment {
        name: name.into(),
        id: format!("{name}-id"),
        token: "a.b.c".into(),
        expires: Some(Timestamp { seconds: 1_790_000_000, nanos: 5 }),
        metrics: map(&[("rx", "1")]),
    };
    Connection {
        id: "nsc-0".into(),
        network_service: "icmp-responder".into(),
        network_service_endpoint_name: "nse-1".into(),
        payload: "IP".into(),
        labels: map(&[("app", "a")]),
        mechanism: Some(Mechanism {
            cls: "LOCAL".into(),
            r#type: "KERNEL".into(),
            parameters: map(&[("inodeURL", "inode://4/4026531840"), ("name", "nsm-1"), ("MTU", "1400")]),
        }),
        context: Some(ConnectionContext {
            ip_context: Some(ip),
            dns_context: Some(DnsContext { configs: vec![dns] }),
            ethernet_context: Some(EthernetContext {
                src_mac: "02:00:00:00:00:01".into(),
                ..EthernetContext::default()
            }),
            extra_context: map(&[("k", "v\n")]),
            mtu: 1450,
        }),
        path: Some(Segments { index: 1, path_segments: ["nsc", "nsmgr"].map(segment).into() }),
        ..Connection::default()
    }
}

fn service() -> NetworkService {
    let to = |selector: &[(&str, &str)], weight| Destination { destination_selector: map(selector), weight };
    let matches = vec![
        Match {
            source_selector: map(&[("app", "a")]),
            routes: vec![to(&[("app", "{{ .app }}")], 3), to(&[("zone", "{{ index . \"app\" }}")], 0)],
            fallthrough: true,
            metadata: None,
        },
        Match { metadata: Some(Metadata { labels: map(&[("m", "n")]) }), ..Match::default() },
    ];
    NetworkService { name: "icmp".into(), payload: "IP".into(), matches, path_ids: texts(&["spiffe://x"]) }
}

fn bare_service() -> NetworkService {
    NetworkService { name: "bare".into(), ..NetworkService::default() }
}

fn endpoint(name: &str) -> Endpoint {
    let labels = NetworkServiceLabels { labels: map(&[("app", "a"), ("zone", "z")]) };
    let endpoint = NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: texts(&["icmp", "bare"]),
        network_service_labels: [("icmp".to_owned(), labels)].into(),
        url: "inode://4/7".into(),
        expiration_time: Some(Timestamp { seconds: 1_790_000_000, nanos: 5 }),
        ..NetworkServiceEndpoint::default()
    };
    Endpoint { endpoint: Some(endpoint), ..Endpoint::default() }
}
