//! Plain data to messages and back: addresses, routes, rules, neighbours.
//!
//! What is read skips attributes it cannot read, and entries of kinds that this crate does not deal with.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use netlink_packet_core::{DecodeError, NlaBuffer, NlasIterator, Parseable as _, ParseableParametrized as _};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeader, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourHeader, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteNextHop,
    RouteNextHopFlags, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage, RulePortRange};
use netlink_packet_route::{AddressFamily, IpProtocol};

use crate::config::{MAIN_TABLE, network};
use crate::{
    Address, DefaultRoute, Family, Hop, IfIndex, Mac, Neighbour, NeighbourEntry, PortRange, Route, RouteEntry, Rule,
};

/// Lengths of the fixed parts, before the attributes.
const ADDRESS_HEADER: usize = 8;
const ROUTE_HEADER: usize = 12;
const RULE_HEADER: usize = 12;
const NEIGHBOUR_HEADER: usize = 12;

impl From<Family> for AddressFamily {
    fn from(family: Family) -> Self {
        match family {
            Family::V4 => Self::Inet,
            Family::V6 => Self::Inet6,
        }
    }
}

fn attributes(body: &[u8], header: usize) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(body.get(header..).unwrap_or_default()).map_while(Result::ok)
}

/// An address of a link. IPv6 ones are usable at once, without duplicate address detection.
pub(crate) fn address(index: IfIndex, address: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = Family::of(address.ip()).into();
    message.header.prefix_len = address.prefix();
    message.header.index = index.get();
    message.attributes.push(AddressAttribute::Local(address.ip()));
    message.attributes.push(AddressAttribute::Address(address.ip()));
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}

pub(crate) fn read_address(body: &[u8]) -> Result<Option<Address>, DecodeError> {
    let header = AddressHeader::parse(body)?;
    let (mut local, mut remote) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(header.flags.bits().into());
    for attribute in attributes(body, ADDRESS_HEADER) {
        match AddressAttribute::parse(&attribute) {
            Ok(AddressAttribute::Local(ip)) => local = Some(ip),
            Ok(AddressAttribute::Address(ip)) => remote = Some(ip),
            Ok(AddressAttribute::Flags(all)) => flags = all,
            _ => {}
        }
    }
    let network = local.or(remote).and_then(|ip| IpNetwork::new(ip, header.prefix_len).ok());
    Ok(network.zip(IfIndex::new(header.index)).map(|(network, index)| Address {
        index,
        network,
        tentative: flags.contains(AddressFlags::Tentative),
    }))
}

/// A route through a link; its gateway is taken to be on the link.
pub(crate) fn route(index: IfIndex, route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    let destination = network(route.destination);
    let table = route.table.unwrap_or(MAIN_TABLE);
    message.header.address_family = Family::of(destination.ip()).into();
    message.header.destination_prefix_length = destination.prefix();
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.table = u8::try_from(table).unwrap_or(RouteHeader::RT_TABLE_UNSPEC);
    if message.header.table == RouteHeader::RT_TABLE_UNSPEC {
        message.attributes.push(RouteAttribute::Table(table));
    }
    if destination.prefix() > 0 {
        message.attributes.push(RouteAttribute::Destination(destination.ip().into()));
    }
    if let Some(gateway) = route.gateway {
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    } else if destination.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    message.attributes.push(RouteAttribute::Oif(index.get()));
    message.attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}

pub(crate) fn read_route(body: &[u8]) -> Result<Option<RouteEntry>, DecodeError> {
    let header = RouteHeader::parse(body)?;
    let any: IpAddr = match header.address_family {
        AddressFamily::Inet => std::net::Ipv4Addr::UNSPECIFIED.into(),
        AddressFamily::Inet6 => std::net::Ipv6Addr::UNSPECIFIED.into(),
        _ => return Ok(None),
    };
    if header.kind != RouteType::Unicast || header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let (mut destination, mut gateway, mut metric, mut index) = (any, None, None, None);
    let mut table = u32::from(header.table);
    for attribute in attributes(body, ROUTE_HEADER) {
        let kinds = (header.address_family, header.kind, RouteLwEnCapType::None);
        match RouteAttribute::parse_with_param(&attribute, kinds) {
            Ok(RouteAttribute::Destination(ip)) => destination = ip_of(&ip).unwrap_or(any),
            Ok(RouteAttribute::Gateway(ip)) => gateway = ip_of(&ip),
            Ok(RouteAttribute::Oif(oif)) => index = IfIndex::new(oif),
            Ok(RouteAttribute::Priority(priority)) => metric = Some(priority),
            Ok(RouteAttribute::Table(number)) => table = number,
            _ => {}
        }
    }
    Ok(IpNetwork::new(destination, header.destination_prefix_length).ok().map(|destination| RouteEntry {
        index,
        route: Route { destination, gateway, table: Some(table), metric },
        protocol: header.protocol.into(),
    }))
}

/// `None`: another route, or one that a router announced.
pub(crate) fn read_default_route(body: &[u8]) -> Result<Option<DefaultRoute>, DecodeError> {
    let header = RouteHeader::parse(body)?;
    let family = match header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Ok(None),
    };
    let is_default = header.kind == RouteType::Unicast && header.destination_prefix_length == 0;
    if !is_default || header.protocol == RouteProtocol::Ra || header.flags.contains(RouteFlags::Cloned) {
        return Ok(None);
    }
    let (mut gateway, mut metric, mut index, mut several) = (None, None, None, Vec::new());
    let mut table = u32::from(header.table);
    for attribute in attributes(body, ROUTE_HEADER) {
        let kinds = (header.address_family, header.kind, RouteLwEnCapType::None);
        match RouteAttribute::parse_with_param(&attribute, kinds) {
            Ok(RouteAttribute::Gateway(ip)) => gateway = ip_of(&ip),
            Ok(RouteAttribute::Oif(oif)) => index = IfIndex::new(oif),
            Ok(RouteAttribute::Priority(priority)) => metric = Some(priority),
            Ok(RouteAttribute::Table(number)) => table = number,
            Ok(RouteAttribute::MultiPath(hops)) => several = hops,
            _ => {}
        }
    }
    let one = index.map(|index| Hop { index, gateway, onlink: header.flags.contains(RouteFlags::Onlink) });
    let hops: Vec<Hop> = one.into_iter().chain(several.iter().filter_map(hop)).collect();
    Ok((table == MAIN_TABLE && !hops.is_empty()).then_some(DefaultRoute { family, hops, metric }))
}

fn hop(hop: &RouteNextHop) -> Option<Hop> {
    let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(ip) => ip_of(ip),
        _ => None,
    });
    let index = IfIndex::new(hop.interface_index)?;
    Some(Hop { index, gateway, onlink: hop.flags.contains(RouteNextHopFlags::Onlink) })
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some((*ip).into()),
        RouteAddress::Inet6(ip) => Some((*ip).into()),
        _ => None,
    }
}

/// A policy rule.
pub(crate) fn rule(rule: &Rule) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = rule.family.into();
    message.header.action = RuleAction::ToTable;
    message.attributes.push(RuleAttribute::Table(rule.table));
    message.attributes.push(RuleAttribute::Protocol(RouteProtocol::Static));
    if let Some(from) = rule.from.map(network).filter(|from| from.prefix() > 0) {
        message.header.src_len = from.prefix();
        message.attributes.push(RuleAttribute::Source(from.ip()));
    }
    let range = |ports: PortRange| RulePortRange { start: ports.first(), end: ports.last() };
    let attributes = &mut message.attributes;
    attributes.extend(rule.protocol.map(|number| RuleAttribute::IpProtocol(IpProtocol::from(number))));
    attributes.extend(rule.source_ports.map(range).map(RuleAttribute::SourcePortRange));
    attributes.extend(rule.destination_ports.map(range).map(RuleAttribute::DestinationPortRange));
    attributes.extend(rule.priority.map(RuleAttribute::Priority));
    message
}

/// `None`: a rule of a kind that this crate never makes.
pub(crate) fn read_rule(body: &[u8]) -> Result<Option<Rule>, DecodeError> {
    let header = RuleHeader::parse(body)?;
    let family = match header.family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return Ok(None),
    };
    if header.action != RuleAction::ToTable || header.dst_len != 0 || header.tos != 0 || header.flags.bits() != 0 {
        return Ok(None);
    }
    let mut rule = Rule {
        family,
        table: header.table.into(),
        from: None,
        protocol: None,
        source_ports: None,
        destination_ports: None,
        priority: Some(0),
    };
    for attribute in attributes(body, RULE_HEADER) {
        match RuleAttribute::parse(&attribute) {
            Ok(RuleAttribute::Table(table)) => rule.table = table,
            Ok(RuleAttribute::Source(ip)) => rule.from = IpNetwork::new(ip, header.src_len).ok(),
            Ok(RuleAttribute::IpProtocol(protocol)) => rule.protocol = u8::try_from(i32::from(protocol)).ok(),
            Ok(RuleAttribute::SourcePortRange(range)) => {
                rule.source_ports = PortRange::new(range.start, range.end).ok();
            }
            Ok(RuleAttribute::DestinationPortRange(range)) => {
                rule.destination_ports = PortRange::new(range.start, range.end).ok();
            }
            Ok(RuleAttribute::Priority(priority)) => rule.priority = Some(priority),
            Ok(
                RuleAttribute::Iifname(_)
                | RuleAttribute::Oifname(_)
                | RuleAttribute::FwMark(_)
                | RuleAttribute::UidRange(_)
                | RuleAttribute::L3MDev(_),
            ) => return Ok(None),
            _ => {}
        }
    }
    Ok(Some(rule))
}

/// A permanent neighbour entry.
pub(crate) fn neighbour(index: IfIndex, neighbour: Neighbour) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = Family::of(neighbour.ip).into();
    message.header.ifindex = index.get();
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::Destination(neighbour.ip.into()));
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(neighbour.mac.octets().to_vec()));
    message
}

pub(crate) fn read_neighbour(body: &[u8]) -> Result<Option<NeighbourEntry>, DecodeError> {
    let header = NeighbourHeader::parse(body)?;
    let (mut ip, mut mac) = (None, None);
    for attribute in attributes(body, NEIGHBOUR_HEADER) {
        match NeighbourAttribute::parse_with_param(&attribute, header.family) {
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet(v4))) => ip = Some(v4.into()),
            Ok(NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6))) => ip = Some(v6.into()),
            Ok(NeighbourAttribute::LinkLayerAddress(bytes)) => mac = Mac::from_kernel(&bytes),
            _ => {}
        }
    }
    let permanent = header.state == NeighbourState::Permanent;
    Ok(ip.zip(IfIndex::new(header.ifindex)).map(|(ip, index)| NeighbourEntry { index, ip, mac, permanent }))
}
