use nsm_proto::{
    connection::{Path, PathSegment},
    connectioncontext::PolicyRoute,
};
use proptest::{collection::vec, prelude::*};

use super::*;

#[test]
fn what_is_too_much_is_named() {
    let mut long = Connection { network_service: "x".repeat(300), ..Connection::default() };
    let error = connection(&long).unwrap_err().to_string();
    assert!(error.contains("network_service") && error.contains("300 bytes: at most 253"), "{error}");
    long.network_service.truncate(253);
    assert!(connection(&long).is_ok());
    let route = Route { prefix: "10.0.0.0/8".into(), next_hop: String::new() };
    let ip = IpContext { src_routes: vec![route; 10_000], ..IpContext::default() };
    long.context = Some(ConnectionContext { ip_context: Some(ip), ..ConnectionContext::default() });
    let error = connection(&long).unwrap_err().to_string();
    assert!(error.contains("src_routes has 10000 entries"), "{error}");
}

#[test]
fn routes_of_all_policies_together_are_bounded() {
    let route = Route { prefix: "10.0.0.0/8".into(), next_hop: String::new() };
    let policy = PolicyRoute { routes: vec![route; ROUTES / 4], ..PolicyRoute::default() };
    let with = |policies| {
        let ip = IpContext { policies: vec![policy.clone(); policies], ..IpContext::default() };
        let context = ConnectionContext { ip_context: Some(ip), ..ConnectionContext::default() };
        connection(&Connection { context: Some(context), ..Connection::default() })
    };
    assert!(with(4).is_ok());
    assert!(with(5).unwrap_err().to_string().contains("policies.routes has 1250 entries"));
}

#[test]
fn what_a_watcher_selects_is_bounded_in_bytes() {
    let with = |network_services: Vec<String>, path_segments: Vec<PathSegment>| {
        selector(&MonitorScopeSelector { path_segments, network_services })
    };
    let segment = |name: &str| PathSegment { name: name.into(), ..PathSegment::default() };
    assert!(with(vec!["firewall".into()], vec![segment("nsc")]).is_ok());
    assert!(with(vec!["x".repeat(254)], vec![]).is_err());
    assert!(with(vec![], vec![segment(&"x".repeat(254))]).is_err());
    assert!(with(vec!["x".repeat(253); 200], vec![]).unwrap_err().to_string().contains("at most 16384"));
}

#[test]
fn metrics_of_all_segments_together_are_bounded() {
    let metrics = (0..ENTRIES).map(|number| (number.to_string(), "m".repeat(TEXT / 8))).collect();
    let segment = PathSegment { metrics, ..PathSegment::default() };
    let with = |segments| {
        let path = Path { index: 0, path_segments: vec![segment.clone(); segments] };
        connection(&Connection { path: Some(path), ..Connection::default() })
    };
    assert!(with(1).is_ok());
    assert!(with(SEGMENTS).unwrap_err().to_string().contains("metrics has"));
}

fn label() -> impl Strategy<Value = BTreeMap<String, String>> {
    proptest::collection::btree_map("[a-z]{1,253}", "\\PC{0,100}", 0..8)
}

fn valid() -> impl Strategy<Value = Connection> {
    let segment = ("[a-z0-9.-]{0,253}", "\\PC{0,60}", ".{0,100}").prop_map(|(name, id, note)| PathSegment {
        name,
        id,
        metrics: BTreeMap::from([("note".into(), note)]),
        ..PathSegment::default()
    });
    let route = ("[0-9./]{0,40}", "[0-9.]{0,40}").prop_map(|(prefix, next_hop)| Route { prefix, next_hop });
    let ip = vec(route, 0..20).prop_map(|src_routes| IpContext { src_routes, ..IpContext::default() });
    ("[a-z0-9-]{0,253}", label(), vec(segment, 0..=SEGMENTS), ip).prop_map(|(id, labels, path_segments, ip)| {
        Connection {
            id,
            labels,
            path: Some(Path { index: 0, path_segments }),
            context: Some(ConnectionContext { ip_context: Some(ip), ..ConnectionContext::default() }),
            ..Connection::default()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn what_is_within_bounds_is_taken(connection in valid()) {
        prop_assert!(super::connection(&connection).is_ok());
    }

    #[test]
    fn what_is_beyond_is_refused(mut connection in valid(), field in 0..7, by in 1..100_usize) {
        let long = "x".repeat(NAME + by);
        let name = match field {
            0 => { connection.id = long; "id" }
            1 => { connection.network_service_endpoint_name = long; "network_service_endpoint_name" }
            2 => { connection.labels.insert(long, String::new()); "labels" }
            3 => { connection.labels.insert("k".into(), "v".repeat(TEXT + by)); "labels" }
            4 => { connection.labels = (0..ENTRIES + by).map(|n| (n.to_string(), String::new())).collect(); "labels" }
            5 => {
                let path = connection.path.get_or_insert_default();
                path.path_segments.resize(SEGMENTS + by, PathSegment::default());
                "path_segments"
            }
            _ => {
                let context = connection.context.get_or_insert_default();
                context.ip_context.get_or_insert_default().src_routes.resize(ROUTES + by, Route::default());
                "src_routes"
            }
        };
        let error = super::connection(&connection).unwrap_err();
        prop_assert_eq!(error.kind(), Kind::Invalid);
        prop_assert!(error.to_string().contains(name), "{}", error);
        prop_assert!(error.to_string().len() < 500, "the error is short");
    }

    #[test]
    fn control_characters_do_not_reach_the_log(before in "\\PC{0,20}", control in "[\\x00-\\x1f\\x7f\\u{80}-\\u{9f}]") {
        let forged = Connection { network_service: format!("{before}{control}WARN"), ..Connection::default() };
        let error = super::connection(&forged).unwrap_err().to_string();
        prop_assert!(error.contains("network_service") && !error.contains(char::is_control), "{}", error);
    }
}
