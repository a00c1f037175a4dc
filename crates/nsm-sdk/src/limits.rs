//! How much a peer may say: bounds on every message, in both directions, before anything works on it.

use std::collections::BTreeMap;

use nsm_proto::{
    connection::{Connection, Mechanism, MonitorScopeSelector, PathSegment},
    connectioncontext::{ConnectionContext, DnsConfig, IpContext, Route},
};
use prost::Message;

use crate::{Error, Kind};

/// Largest message, in bytes.
pub const MESSAGE: usize = 1 << 20;
/// Longest name or id, in bytes (as DNS names, RFC 1035).
pub const NAME: usize = 253;
/// Longest token, in bytes.
pub const TOKEN: usize = 16 << 10;
/// Longest of all other texts, in bytes.
pub const TEXT: usize = 4096;
/// Most labels, parameters or metrics.
pub const ENTRIES: usize = 256;
/// Most addresses, routes, neighbours or policies.
pub const ROUTES: usize = 1000;
/// Most hops of a path.
pub const SEGMENTS: usize = 64;
/// Most bytes of all metrics of a path together.
pub const METRICS: usize = 256 << 10;
/// Most bytes of a watcher's selection: it is compared with each connection, at each change.
pub const SELECTOR: usize = 16 << 10;
/// Most mechanisms to choose from.
pub const PREFERENCES: usize = 32;

/// Refuses a connection that is out of bounds, naming what.
pub fn connection(connection: &Connection) -> Result<(), Error> {
    text("id", &connection.id, NAME)?;
    text("network_service", &connection.network_service, NAME)?;
    text("network_service_endpoint_name", &connection.network_service_endpoint_name, NAME)?;
    text("payload", &connection.payload, NAME)?;
    map("labels", &connection.labels)?;
    if let Some(mechanism) = &connection.mechanism {
        self::mechanism("mechanism", mechanism)?;
    }
    if let Some(path) = &connection.path {
        count("path.path_segments", path.path_segments.len(), SEGMENTS)?;
        for segment in &path.path_segments {
            self::segment("path.path_segments", segment)?;
        }
        // Together too: each of 64 segments with 256 long metrics would be more than a message.
        let metrics = path.path_segments.iter().flat_map(|segment| &segment.metrics);
        let bytes = metrics.map(|(key, value)| key.len() + value.len()).sum();
        within("path.path_segments.metrics", bytes, METRICS)?;
    }
    connection.context.as_ref().map_or(Ok(()), context)
}

/// Refuses a watcher's selection that is out of bounds.
pub fn selector(selector: &MonitorScopeSelector) -> Result<(), Error> {
    within("selector", selector.encoded_len(), SELECTOR)?;
    count("path_segments", selector.path_segments.len(), SEGMENTS)?;
    for segment in &selector.path_segments {
        self::segment("path_segments", segment)?;
    }
    texts("network_services", &selector.network_services, ENTRIES)
}

/// Refuses preferences that are out of bounds.
pub fn preferences(preferences: &[Mechanism]) -> Result<(), Error> {
    count("mechanism_preferences", preferences.len(), PREFERENCES)?;
    preferences.iter().try_for_each(|preference| mechanism("mechanism_preferences", preference))
}

fn segment(field: &str, segment: &PathSegment) -> Result<(), Error> {
    text(&format!("{field}.name"), &segment.name, NAME)?;
    text(&format!("{field}.id"), &segment.id, NAME)?;
    text(&format!("{field}.token"), &segment.token, TOKEN)?;
    values(&format!("{field}.metrics"), &segment.metrics, length)
}

fn mechanism(field: &str, mechanism: &Mechanism) -> Result<(), Error> {
    text(&format!("{field}.cls"), &mechanism.cls, NAME)?;
    text(&format!("{field}.type"), &mechanism.r#type, NAME)?;
    map(&format!("{field}.parameters"), &mechanism.parameters)
}

fn context(context: &ConnectionContext) -> Result<(), Error> {
    values("context.extra_context", &context.extra_context, length)?;
    if let Some(ip) = &context.ip_context {
        ip_context(ip)?;
    }
    if let Some(dns) = &context.dns_context {
        count("context.dns_context.configs", dns.configs.len(), ENTRIES)?;
        for DnsConfig { dns_server_ips, search_domains } in &dns.configs {
            texts("context.dns_context.configs.dns_server_ips", dns_server_ips, ENTRIES)?;
            texts("context.dns_context.configs.search_domains", search_domains, ENTRIES)?;
        }
    }
    if let Some(ethernet) = &context.ethernet_context {
        text("context.ethernet_context.src_mac", &ethernet.src_mac, NAME)?;
        text("context.ethernet_context.dst_mac", &ethernet.dst_mac, NAME)?;
    }
    Ok(())
}

fn ip_context(ip: &IpContext) -> Result<(), Error> {
    texts("context.ip_context.src_ip_addrs", &ip.src_ip_addrs, ROUTES)?;
    texts("context.ip_context.dst_ip_addrs", &ip.dst_ip_addrs, ROUTES)?;
    texts("context.ip_context.excluded_prefixes", &ip.excluded_prefixes, ROUTES)?;
    texts("context.ip_context.extra_prefixes", &ip.extra_prefixes, ROUTES)?;
    routes("context.ip_context.src_routes", &ip.src_routes)?;
    routes("context.ip_context.dst_routes", &ip.dst_routes)?;
    count("context.ip_context.ip_neighbors", ip.ip_neighbors.len(), ROUTES)?;
    for neighbour in &ip.ip_neighbors {
        text("context.ip_context.ip_neighbors.ip", &neighbour.ip, NAME)?;
        text("context.ip_context.ip_neighbors.hardware_address", &neighbour.hardware_address, NAME)?;
    }
    count("context.ip_context.extra_prefix_request", ip.extra_prefix_request.len(), ENTRIES)?;
    count("context.ip_context.policies", ip.policies.len(), ENTRIES)?;
    for policy in &ip.policies {
        for (field, value) in [
            ("from", &policy.from),
            ("proto", &policy.proto),
            ("dst_port", &policy.dst_port),
            ("src_port", &policy.src_port),
        ] {
            text(field, value, NAME)?;
        }
        routes("context.ip_context.policies.routes", &policy.routes)?;
    }
    // Together too: each of many policies with many routes would be a hundred thousand in one pod.
    let of_policies = ip.policies.iter().map(|policy| policy.routes.len()).sum();
    count("context.ip_context.policies.routes", of_policies, ROUTES)
}

fn routes(field: &str, routes: &[Route]) -> Result<(), Error> {
    count(field, routes.len(), ROUTES)?;
    routes.iter().try_for_each(|route| {
        text(field, &route.prefix, NAME)?;
        text(field, &route.next_hop, NAME)
    })
}

fn texts(field: &str, values: &[String], most: usize) -> Result<(), Error> {
    count(field, values.len(), most)?;
    values.iter().try_for_each(|value| text(field, value, NAME))
}

fn map(field: &str, entries: &BTreeMap<String, String>) -> Result<(), Error> {
    values(field, entries, text)
}

fn values(
    field: &str,
    entries: &BTreeMap<String, String>,
    check: fn(&str, &str, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    count(field, entries.len(), ENTRIES)?;
    entries.iter().try_for_each(|(key, value)| {
        text(field, key, NAME)?;
        check(field, value, TEXT)
    })
}

/// A text that logs and errors show: no control characters, with which it could pretend to be several lines.
fn text(field: &str, value: &str, most: usize) -> Result<(), Error> {
    if value.contains(char::is_control) {
        let start: String = value.chars().take(32).collect();
        return Err(Error::new(Kind::Invalid, format!("{field} {start:?} contains control characters")));
    }
    length(field, value, most)
}

fn length(field: &str, value: &str, most: usize) -> Result<(), Error> {
    if value.len() <= most {
        return Ok(());
    }
    let start: String = value.chars().take(32).collect();
    Err(Error::new(Kind::Invalid, format!("{field} {start:?}… has {} bytes: at most {most}", value.len())))
}

fn within(field: &str, bytes: usize, most: usize) -> Result<(), Error> {
    if bytes <= most {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("{field} has {bytes} bytes: at most {most}")))
}

fn count(field: &str, have: usize, most: usize) -> Result<(), Error> {
    if have <= most {
        return Ok(());
    }
    Err(Error::new(Kind::Invalid, format!("{field} has {have} entries: at most {most}")))
}

#[cfg(test)]
mod tests;
