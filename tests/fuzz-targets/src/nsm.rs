//! Messages of clients and endpoints.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use futures::executor::block_on;
use ipnetwork::IpNetwork;
use nsm_netlink::LinkConfig;
use nsm_proto::{admin::WatchEvent, connection::Connection, networkservice::NetworkServiceRequest};
use nsm_sdk::{Call, Chain, Request, ipam::PointToPoint, limits};
use prost::Message;

/// Most routes that one connection may lay into a pod: those that it names, one to each address, and those of its policies.
const MOST_ROUTES: usize = 3 * limits::ROUTES + 2 * limits::ENTRIES;

/// A Request or an answer, from the wire to what the kernel is told. What the limits let through stays within them; what is
/// planned is what the kernel would be told, and survives in a record.
pub fn connection(data: &[u8]) {
    if let Ok(request) = NetworkServiceRequest::decode(data) {
        let _ = limits::preferences(&request.mechanism_preferences);
        request.connection.iter().for_each(answered);
    }
    if let Ok(connection) = Connection::decode(data) {
        answered(&connection);
    }
}

fn answered(connection: &Connection) {
    if let Err(error) = limits::connection(connection) {
        let error = error.to_string();
        assert!(error.len() < 1000 && !error.contains(char::is_control), "{error:?}");
        return;
    }
    within_limits(connection);
    let Some(ends) = nsm_agent::fuzzing::planned(connection) else { return };
    let blocks: BTreeSet<u32> = ends.iter().flat_map(|config| &config.rules).map(|rule| rule.table >> 8).collect();
    assert!(blocks.len() <= 1, "tables in the blocks of several connections: {blocks:x?}");
    for config in &ends {
        assert!(config.routes.len() <= MOST_ROUTES, "{} routes", config.routes.len());
        assert!(config.rules.len() <= 2 * limits::ENTRIES, "{} rules", config.rules.len());
        assert!(nsm_netlink::fuzzing::comes_back(config), "it would be refused: {config:?}");
        let record = serde_json::to_string(config).expect("it can be recorded");
        assert_eq!(serde_json::from_str::<LinkConfig>(&record).ok().as_ref(), Some(config));
    }
    assert_eq!(nsm_agent::fuzzing::planned(connection).as_ref(), Some(&ends), "the same plan each time");
}

fn within_limits(connection: &Connection) {
    let name = |text: &str| text.len() <= limits::NAME && !text.contains(char::is_control);
    assert!(name(&connection.id) && name(&connection.network_service) && name(&connection.payload));
    assert!(connection.labels.len() <= limits::ENTRIES && connection.labels.keys().all(|key| name(key)));
    let segments = connection.path.iter().flat_map(|path| &path.path_segments);
    assert!(segments.clone().count() <= limits::SEGMENTS);
    assert!(segments.clone().all(|segment| name(&segment.id) && segment.token.len() <= limits::TOKEN));
}

/// What a client wishes for at an endpoint. Addresses are of the endpoint's prefixes, of no excluded one, and nobody else's.
pub fn addresses(data: &[u8]) {
    let Ok(asked) = Connection::decode(data) else { return };
    if limits::connection(&asked).is_err() {
        return;
    }
    let element = PointToPoint::new("10.0.0.0/29,fd00::/125".parse().expect("sound"));
    let chain = Chain::new([std::sync::Arc::new(element) as std::sync::Arc<dyn nsm_sdk::Element>]);
    let mut given: BTreeMap<IpAddr, &str> = BTreeMap::new();
    for id in ["a", "b", "a"] {
        let connection = Connection { id: id.into(), ..asked.clone() };
        let request = Request { connection, preferences: Vec::new(), call: Call::default() };
        let Ok(answer) = block_on(chain.request(request)) else { continue };
        let ip = answer.context.and_then(|context| context.ip_context).unwrap_or_default();
        let excluded: Vec<IpNetwork> = ip.excluded_prefixes.iter().filter_map(|text| text.parse().ok()).collect();
        for address in ip.src_ip_addrs.iter().filter_map(|text| text.parse::<IpNetwork>().ok()) {
            let ours = ["10.0.0.0/29", "fd00::/125"].map(|prefix| prefix.parse::<IpNetwork>().expect("sound"));
            if !ours.iter().any(|prefix| prefix.contains(address.ip())) {
                continue;
            }
            assert!(!excluded.iter().any(|prefix| prefix.contains(address.ip())), "{address} is excluded");
            let owner = given.entry(address.ip()).or_insert(id);
            assert_eq!(*owner, id, "{address} is given twice");
        }
    }
}

/// Registrations, found again by themselves and by what the database keeps; one decision chooses and explains. In the form
/// of an event that lists both kinds.
pub fn registry(data: &[u8]) {
    let Ok(both) = WatchEvent::decode(data) else { return };
    let services = both.network_services.unwrap_or_default().items;
    let endpoints = both.endpoints.unwrap_or_default().items.into_iter();
    let endpoints: Vec<_> = endpoints.filter_map(|item| item.endpoint).collect();
    nsm_agent::fuzzing::registry::register(services, &endpoints);
}
