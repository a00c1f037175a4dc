//! What a link is to be like ([`LinkConfig`]), and the addresses, routes, rules and neighbours in it: plain data.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{Error, IfIndex, Mac, Mtu};

/// All that a link is to have in its namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// By which the link is recognised as ours; at most 255 bytes.
    pub alias: Option<String>,
    /// Whether it carries packets. Routes need it.
    pub up: bool,
    /// Largest packet; `None` leaves it as it is.
    pub mtu: Option<Mtu>,
    /// Addresses with their prefix lengths, applied as given.
    pub addresses: Vec<IpNetwork>,
    /// Routes through the link.
    pub routes: Vec<Route>,
    /// Permanent neighbour entries on the link.
    pub neighbours: Vec<Neighbour>,
    /// Policy rules of the namespace. They are the only thing that does not vanish with the link.
    pub rules: Vec<Rule>,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

/// A route through the link.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Route {
    /// Where to; bits beyond the prefix are ignored.
    pub destination: IpNetwork,
    /// Through whom, taken to be on the link whatever the addresses say. `None`: the destination itself is on the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Which table; `None`: the main one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Preference, lower wins; `None`: the kernel's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
}

/// The number of the main routing table.
pub(crate) const MAIN_TABLE: u32 = 254;

impl Route {
    /// A route to what is on the link itself.
    pub const fn on_link(destination: IpNetwork) -> Self {
        Self { destination, gateway: None, table: None, metric: None }
    }

    /// A route through a gateway on the link.
    pub const fn via(destination: IpNetwork, gateway: IpAddr) -> Self {
        Self { destination, gateway: Some(gateway), table: None, metric: None }
    }

    /// The same route in another table.
    #[must_use]
    pub const fn in_table(mut self, table: u32) -> Self {
        self.table = Some(table);
        self
    }

    /// Whether `existing` does what this route wants; what it leaves open may be anything.
    pub(crate) fn is_met_by(&self, existing: &Self) -> bool {
        network(self.destination) == network(existing.destination)
            && self.gateway == existing.gateway
            && self.table.unwrap_or(MAIN_TABLE) == existing.table.unwrap_or(MAIN_TABLE)
            && (self.metric.is_none() || self.metric == existing.metric)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", network(self.destination))?;
        if let Some(gateway) = self.gateway {
            write!(f, " via {gateway}")?;
        }
        if let Some(table) = self.table {
            write!(f, " table {table}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        Ok(())
    }
}

/// A neighbour that need not be asked for its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address.
    pub mac: Mac,
}

impl fmt::Display for Neighbour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.ip, self.mac)
    }
}

/// A policy rule: packets like this look into that table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rule {
    /// Of which packets.
    pub family: Family,
    /// The table to look into.
    pub table: u32,
    /// Only packets from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<IpNetwork>,
    /// Only packets of this IP protocol (6 TCP, 17 UDP, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u8>,
    /// Only packets from these ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_ports: Option<PortRange>,
    /// Only packets to these ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination_ports: Option<PortRange>,
    /// Order among the rules, lower first; `None`: before all others but the local table's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
}

impl Rule {
    /// Whether `existing` is this rule; a priority left open may be any.
    pub(crate) fn is_met_by(&self, existing: &Self) -> bool {
        let any = |from: Option<IpNetwork>| from.map(network).filter(|from| from.prefix() > 0);
        self.family == existing.family
            && self.table == existing.table
            && any(self.from) == any(existing.from)
            && self.protocol == existing.protocol
            && self.source_ports == existing.source_ports
            && self.destination_ports == existing.destination_ports
            && (self.priority.is_none() || self.priority == existing.priority)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.from {
            Some(from) => write!(f, "from {}", network(from))?,
            None => f.write_str(if self.family == Family::V4 { "from any IPv4" } else { "from any IPv6" })?,
        }
        if let Some(protocol) = self.protocol {
            write!(f, " protocol {protocol}")?;
        }
        if let Some(ports) = self.source_ports {
            write!(f, " sport {ports}")?;
        }
        if let Some(ports) = self.destination_ports {
            write!(f, " dport {ports}")?;
        }
        write!(f, " table {}", self.table)?;
        if let Some(priority) = self.priority {
            write!(f, " priority {priority}")?;
        }
        Ok(())
    }
}

/// Ports from `first` to `last`, both included; written `80` or `8000-8099`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// Checks that the range is one: neither empty nor starting at 0.
    pub fn new(first: u16, last: u16) -> Result<Self, Error> {
        if first == 0 || first > last {
            return Err(Error::Invalid(format!(
                "{first}-{last} is no range of ports; expected 1 to 65535, the smaller first"
            )));
        }
        Ok(Self { first, last })
    }

    /// The smallest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The largest port.
    pub const fn last(self) -> u16 {
        self.last
    }
}

impl FromStr for PortRange {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let port = |part: &str| {
            part.trim()
                .parse()
                .map_err(|_| Error::Invalid(format!("{text:?} is no port or range of ports like 80 or 8000-8099")))
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Self::new(port(first)?, port(last)?)
    }
}

impl TryFrom<String> for PortRange {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<PortRange> for String {
    fn from(ports: PortRange) -> Self {
        ports.to_string()
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// An address that a link of the namespace has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// The link.
    pub index: IfIndex,
    /// The address and its prefix length.
    pub network: IpNetwork,
    /// Not usable yet: duplicate address detection is going on.
    pub tentative: bool,
}

/// A unicast route of the namespace, in any table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteEntry {
    /// The link; `None` for routes over several or none.
    pub index: Option<IfIndex>,
    /// The route; table and metric are always given, except for a metric of 0.
    pub route: Route,
    /// Who made it (`RTPROT_…`: 2 the kernel, 3 and 4 an administrator, …).
    pub protocol: u8,
}

/// A neighbour that the namespace knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NeighbourEntry {
    /// The link.
    pub index: IfIndex,
    /// Its IP address.
    pub ip: IpAddr,
    /// Its Ethernet address, where known.
    pub mac: Option<Mac>,
    /// It stays until removed.
    pub permanent: bool,
}

/// The network of an address: host bits cleared.
pub(crate) fn network(network: IpNetwork) -> IpNetwork {
    IpNetwork::new(network.network(), network.prefix()).unwrap_or(network)
}

impl LinkConfig {
    /// Finds what no kernel would take, before anything is sent.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if let Some(alias) = self.alias.as_deref().filter(|alias| alias.len() > 255 || alias.contains('\0')) {
            return Err(Error::Invalid(format!(
                "alias {alias:?} has {} bytes; expected at most 255, no NUL",
                alias.len()
            )));
        }
        for route in &self.routes {
            if route.gateway.is_some_and(|gateway| Family::of(gateway) != Family::of(route.destination.ip())) {
                return Err(Error::Invalid(format!("route {route} has a gateway of the other family")));
            }
        }
        if let Some(rule) = self.rules.iter().find(|r| r.from.is_some_and(|from| Family::of(from.ip()) != r.family)) {
            return Err(Error::Invalid(format!("rule {rule} has a source of the other family")));
        }
        if !self.up && !self.routes.is_empty() {
            return Err(Error::Invalid("routes need the interface up".into()));
        }
        Ok(())
    }

    /// Whether any address is IPv6.
    pub(crate) fn has_v6(&self) -> bool {
        self.addresses.iter().any(IpNetwork::is_ipv6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        assert_eq!("80".parse::<PortRange>().unwrap(), PortRange::new(80, 80).unwrap());
        assert_eq!("8000-8099".parse::<PortRange>().unwrap().to_string(), "8000-8099");
        for text in ["", "0", "90-80", "80-", "-80", "65536", "a", "1-2-3"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn contradictions_are_found() {
        let via_other = Route::via("10.0.0.0/8".parse().unwrap(), "fd00::1".parse().unwrap());
        let down = LinkConfig { routes: vec![Route::on_link("10.0.0.0/8".parse().unwrap())], ..LinkConfig::default() };
        assert!(down.check().is_err());
        assert!(LinkConfig { up: true, ..down }.check().is_ok());
        assert!(LinkConfig { up: true, routes: vec![via_other], ..LinkConfig::default() }.check().is_err());
        assert!(LinkConfig { alias: Some("x".repeat(256)), ..LinkConfig::default() }.check().is_err());
    }

    #[test]
    fn survives_storage() {
        let config = LinkConfig {
            alias: Some("nsm:1".into()),
            up: true,
            mtu: Some(Mtu::new(1500).unwrap()),
            addresses: vec!["172.16.0.1/32".parse().unwrap(), "fd00::1/128".parse().unwrap()],
            routes: vec![Route::via("0.0.0.0/0".parse().unwrap(), "172.16.0.0".parse().unwrap()).in_table(7)],
            neighbours: vec![Neighbour { ip: "172.16.0.0".parse().unwrap(), mac: Mac([2, 0, 0, 0, 0, 1]) }],
            rules: vec![Rule {
                family: Family::V4,
                table: 7,
                from: Some("172.16.0.1/32".parse().unwrap()),
                protocol: Some(6),
                source_ports: None,
                destination_ports: Some("80-90".parse().unwrap()),
                priority: None,
            }],
        };
        let stored = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<LinkConfig>(&stored).unwrap(), config);
    }
}
