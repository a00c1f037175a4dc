//! From the addresses and routes that client and endpoint agreed on to the configuration of two interfaces.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nsm_netlink::{Family, IpNetwork, LinkConfig, Mac, Neighbour, PortRange, Route, Rule};
use nsm_proto::{connectioncontext as wire, payload};

use super::super::{Agreement, Error, Fault};

/// Policy tables are numbered from here, above those that people and routing daemons use. Each connection has a block of 256,
/// as many as it may have policies.
const FIRST_TABLE: u32 = 0x4e00_0000;

/// A destination and, when it was named, its gateway.
type Hop = (IpNetwork, Option<IpAddr>);

/// A context whose every text was understood.
#[derive(Debug, Default)]
pub(super) struct Context {
    sources: Vec<IpNetwork>,
    destinations: Vec<IpNetwork>,
    source_routes: Vec<Hop>,
    destination_routes: Vec<Hop>,
    neighbours: Vec<Neighbour>,
    policies: Vec<Policy>,
    resolves_neighbours: bool,
    first_table: u32,
}

#[derive(Debug)]
struct Policy {
    from: Option<IpNetwork>,
    protocol: Option<u8>,
    source_ports: Option<PortRange>,
    destination_ports: Option<PortRange>,
    routes: Vec<Hop>,
}

/// Reads what the endpoint answered; what makes no sense is the endpoint's fault.
pub(super) fn read(agreement: &Agreement) -> Result<Context, Error> {
    let connection = &agreement.connection;
    let empty = wire::IpContext::default();
    let ip = connection.context.as_ref().and_then(|context| context.ip_context.as_ref()).unwrap_or(&empty);
    Ok(Context {
        sources: addresses("src_ip_addrs", &ip.src_ip_addrs)?,
        destinations: addresses("dst_ip_addrs", &ip.dst_ip_addrs)?,
        source_routes: routes("src_routes", &ip.src_routes)?,
        destination_routes: routes("dst_routes", &ip.dst_routes)?,
        neighbours: ip.ip_neighbors.iter().map(neighbour).collect::<Result<_, _>>()?,
        policies: ip.policies.iter().map(policy).collect::<Result<_, _>>()?,
        resolves_neighbours: connection.payload != payload::ETHERNET,
        first_table: first_table(&agreement.id),
    })
}

impl Context {
    /// The client's end: its addresses, the ways to the endpoint, what the endpoint wants routed to it.
    pub(super) fn configure_client(&self, config: &mut LinkConfig, endpoint: Mac) {
        self.configure(config, &self.sources, &self.destinations, &self.source_routes, endpoint);
        config.neighbours.extend(self.neighbours.iter().copied());
        for (table, policy) in (self.first_table..).zip(&self.policies) {
            for family in policy.families(&self.sources) {
                config.rules.push(Rule {
                    family,
                    table,
                    from: policy.from,
                    protocol: policy.protocol,
                    source_ports: policy.source_ports,
                    destination_ports: policy.destination_ports,
                    priority: None,
                });
            }
            for (destination, gateway) in policy.routes_or_default(&self.sources) {
                let gateway = gateway.or_else(|| first_of(&self.destinations, destination.ip()));
                config.routes.push(Route { destination, gateway, table: Some(table), metric: None });
            }
        }
    }

    /// The endpoint's end, the other way round.
    pub(super) fn configure_endpoint(&self, config: &mut LinkConfig, client: Mac) {
        self.configure(config, &self.destinations, &self.sources, &self.destination_routes, client);
    }

    fn configure(&self, config: &mut LinkConfig, own: &[IpNetwork], other: &[IpNetwork], routes: &[Hop], mac: Mac) {
        config.addresses = own.to_vec();
        for network in other {
            if !own.iter().any(|own| own.contains(network.ip())) {
                push_new(&mut config.routes, Route::on_link(IpNetwork::from(network.ip())));
            }
            if self.resolves_neighbours {
                config.neighbours.push(Neighbour { ip: network.ip(), mac });
            }
        }
        for (destination, next_hop) in routes {
            let is_own =
                |own: &IpNetwork| own.network() == destination.network() && own.prefix() == destination.prefix();
            if own.iter().any(is_own) {
                continue; // the kernel makes this one with the address
            }
            let gateway = next_hop.or_else(|| first_of(other, destination.ip()));
            let route = match gateway {
                Some(gateway) if *destination != IpNetwork::from(gateway) => Route::via(*destination, gateway),
                // The way to the other end itself is the wire.
                _ => Route::on_link(*destination),
            };
            push_new(&mut config.routes, route);
        }
    }
}

impl Policy {
    fn families(&self, sources: &[IpNetwork]) -> Vec<Family> {
        if let Some(from) = self.from {
            return vec![Family::of(from.ip())];
        }
        let addresses: Vec<IpAddr> = match self.routes.as_slice() {
            [] => sources.iter().map(IpNetwork::ip).collect(),
            routes => routes.iter().map(|(destination, _)| destination.ip()).collect(),
        };
        let mut families = Vec::new();
        for family in addresses.into_iter().map(Family::of) {
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }

    /// No routes mean a default route.
    fn routes_or_default(&self, sources: &[IpNetwork]) -> Vec<Hop> {
        if !self.routes.is_empty() {
            return self.routes.clone();
        }
        self.families(sources).into_iter().map(|family| (everything(family), None)).collect()
    }
}

fn everything(family: Family) -> IpNetwork {
    let any = match family {
        Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        Family::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    IpNetwork::new(any, 0).unwrap_or_else(|_| IpNetwork::from(any))
}

fn push_new(routes: &mut Vec<Route>, route: Route) {
    if !routes.iter().any(|known| known.destination == route.destination && known.table == route.table) {
        routes.push(route);
    }
}

fn first_of(networks: &[IpNetwork], family: IpAddr) -> Option<IpAddr> {
    networks.iter().map(IpNetwork::ip).find(|ip| ip.is_ipv4() == family.is_ipv4())
}

/// Tables that stay the same as long as the connection does, through heal and restart (FNV-1a of its id).
fn first_table(id: &str) -> u32 {
    let hash = id.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    FIRST_TABLE | ((hash ^ (hash >> 16)) & 0xffff) << 8
}

fn nonsense(field: &str, text: &str, expected: &str) -> Error {
    let shown: String = text.chars().take(60).collect();
    Error::new(Fault::Endpoint, format!("the endpoint answered {field} {shown:?}: expected {expected}"))
}

fn network(field: &str, text: &str) -> Result<IpNetwork, Error> {
    let expected = "an address or prefix with its length, e.g. 10.0.0.1/32";
    let network: IpNetwork = text.parse().map_err(|_| nonsense(field, text, expected))?;
    let (ip, alone) = (network.ip(), IpNetwork::from(network.ip()).prefix());
    if ip.is_multicast() || ip.is_loopback() || (ip.is_unspecified() && network.prefix() == alone) {
        return Err(nonsense(field, text, "one that an interface can have"));
    }
    Ok(network)
}

fn addresses(field: &str, texts: &[String]) -> Result<Vec<IpNetwork>, Error> {
    let mut networks = Vec::new();
    for text in texts {
        let network = network(field, text)?;
        if network.ip().is_unspecified() {
            return Err(nonsense(field, text, "one that an interface can have"));
        }
        if !networks.contains(&network) {
            networks.push(network);
        }
    }
    Ok(networks)
}

fn address(field: &str, text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| nonsense(field, text, "an address, e.g. 10.0.0.1"))
}

/// Destinations as the kernel wants them: without host bits.
fn destination(field: &str, text: &str) -> Result<IpNetwork, Error> {
    let network = network(field, text)?;
    IpNetwork::new(network.network(), network.prefix()).map_err(|_| nonsense(field, text, "a prefix"))
}

fn routes(field: &str, routes: &[wire::Route]) -> Result<Vec<Hop>, Error> {
    let hop = |route: &wire::Route| {
        let destination = destination(field, &route.prefix)?;
        let gateway = match route.next_hop.as_str() {
            "" => None,
            text => Some(address(field, text)?),
        };
        if gateway.is_some_and(|gateway| gateway.is_ipv4() != destination.is_ipv4()) {
            return Err(nonsense(field, &route.next_hop, &format!("a gateway of {destination}'s family")));
        }
        Ok((destination, gateway))
    };
    routes.iter().map(hop).collect()
}

fn neighbour(neighbour: &wire::IpNeighbor) -> Result<Neighbour, Error> {
    let mac = neighbour
        .hardware_address
        .parse()
        .map_err(|_| nonsense("ip_neighbors", &neighbour.hardware_address, "a hardware address"))?;
    Ok(Neighbour { ip: address("ip_neighbors", &neighbour.ip)?, mac })
}

fn policy(policy: &wire::PolicyRoute) -> Result<Policy, Error> {
    let ports = |field: &str, text: &str| match text {
        "" => Ok(None),
        text => text.parse().map(Some).map_err(|_| nonsense(field, text, "a port or a range, e.g. 80 or 80-90")),
    };
    let protocol = match policy.proto.to_ascii_lowercase().as_str() {
        "" => None,
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmpv6" | "ipv6-icmp" => Some(58),
        "sctp" => Some(132),
        text => Some(text.parse().map_err(|_| nonsense("policies.proto", text, "tcp, udp, icmp, sctp or a number"))?),
    };
    Ok(Policy {
        from: match policy.from.as_str() {
            "" => None,
            text if text.contains('/') => Some(destination("policies.from", text)?),
            text => Some(IpNetwork::from(address("policies.from", text)?)),
        },
        protocol,
        source_ports: ports("policies.src_port", &policy.src_port)?,
        destination_ports: ports("policies.dst_port", &policy.dst_port)?,
        routes: routes("policies.routes", &policy.routes)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_has_as_many_tables_as_policies() {
        let blocks: std::collections::BTreeSet<u32> = (0..1000).map(|id| first_table(&format!("c-{id}"))).collect();
        assert!(blocks.iter().all(|first| first % 256 == 0 && first >> 24 == FIRST_TABLE >> 24));
        // Of 65,536 blocks: a few share one.
        assert!(blocks.len() > 980, "{}", blocks.len());
    }
}
