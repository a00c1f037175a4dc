//! The default routes of a namespace, whoever made them.
//!
//! Guarantee: what is removed is the route that was read, all its next hops; routes that routers announce are left alone, as they
//! would come back.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage, RouteProtocol, RouteScope, RouteType};

use crate::config::MAIN_TABLE;
use crate::error::Subject;
use crate::transport::Request;
use crate::{Error, Family, IfIndex, NetnsSocket, message};

/// Kinds of messages (linux/rtnetlink.h).
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

/// A default route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultRoute {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Where it leads; several: the kernel spreads packets over them.
    pub hops: Vec<Hop>,
    /// Preference, lower wins; `None`: 0.
    pub metric: Option<u32>,
}

/// A next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// The link.
    pub index: IfIndex,
    /// The gateway; `None`: everything is on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway is taken to be on the link whatever its addresses say.
    pub onlink: bool,
}

impl NetnsSocket {
    /// All of them, IPv4 before IPv6.
    pub fn default_routes(&mut self) -> Result<Vec<DefaultRoute>, Error> {
        const LIST: &str = "list routes";
        self.of_both_families(LIST, message::read_default_route, |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family.into();
            Request::of(RTM_GETROUTE, &message, 0, Subject::Route, LIST)
        })
    }

    /// Removes one; fine when it is gone.
    pub fn remove_default_route(&mut self, route: &DefaultRoute) -> Result<(), Error> {
        let mut message = default_route(route.family, route.metric);
        message.header.scope = RouteScope::NoWhere;
        message.header.kind = RouteType::Unspec;
        message.header.protocol = RouteProtocol::Unspec;
        if let [hop] = &*route.hops {
            message.attributes.push(RouteAttribute::Oif(hop.index.get()));
        }
        let request = Request::of(RTM_DELROUTE, &message, NLM_F_ACK, Subject::Route, "remove a default route");
        self.removals(&[request])
    }

    /// Adds one through a next hop. Its gateway must be on the link, unless the hop says that it is.
    pub fn add_default_route(&mut self, family: Family, hop: Hop, metric: Option<u32>) -> Result<(), Error> {
        let mut message = default_route(family, metric);
        match hop.gateway {
            Some(gateway) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
            None if family == Family::V4 => message.header.scope = RouteScope::Link,
            None => {}
        }
        if hop.onlink {
            message.header.flags = RouteFlags::Onlink;
        }
        message.attributes.push(RouteAttribute::Oif(hop.index.get()));
        let operation = match hop.gateway {
            Some(gateway) => format!("add default route via {gateway}"),
            None => "add default route".to_owned(),
        };
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK;
        let request = Request::of(RTM_NEWROUTE, &message, flags, Subject::Route, operation);
        self.transport().change(request)
    }
}

fn default_route(family: Family, metric: Option<u32>) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.into();
    message.header.protocol = RouteProtocol::Static;
    message.header.kind = RouteType::Unicast;
    message.header.table = u8::try_from(MAIN_TABLE).unwrap_or_default();
    message.attributes.extend(metric.map(RouteAttribute::Priority));
    message
}
