//! [`NetnsSocket`]: reads of what is inside another namespace. What it changes there is in `configure` and `change`.
//!
//! # Guarantees
//!
//! - What it works with was opened by threads that entered the namespace and ended; the calling thread never leaves its own.
//! - All sockets of one [`Netns`] and its clones work through one [`Door`], each request of theirs for itself.
//! - It pins the namespace until dropped.

use std::sync::{Arc, MutexGuard};

use netlink_packet_core::DecodeError;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use nix::errno::Errno;

use crate::door::Door;
use crate::error::Subject;
use crate::link::Which;
use crate::transport::{Body, Request, Transport};
use crate::usable::AddressEvents;
use crate::{
    Address, Error, Family, IfIndex, IfName, IpNetwork, LinkState, NeighbourEntry, Netns, NetnsId, RouteEntry, Rule,
    link, message,
};

/// Netlink inside a namespace, and the door to its IPv6 settings.
pub struct NetnsSocket {
    netns: Netns,
    door: Arc<Door>,
    /// `None` until an IPv6 address is added.
    address_events: Option<AddressEvents>,
}

impl NetnsSocket {
    /// Opens a socket in a namespace, or shares the one that a clone of this [`Netns`] has opened.
    pub fn open(netns: &Netns) -> Result<Self, Error> {
        Ok(Self { netns: netns.clone(), door: netns.door()?, address_events: None })
    }

    /// The namespace it is in.
    pub fn netns(&self) -> NetnsId {
        self.netns.id()
    }

    /// For one conversation.
    pub(crate) fn transport(&self) -> MutexGuard<'_, Transport> {
        self.door.transport()
    }

    /// Hears of IPv6 addresses from now on.
    pub(crate) fn hear_addresses(&mut self) -> Result<(), Error> {
        if self.address_events.is_none() {
            self.address_events = Some(self.netns.run(AddressEvents::open)??);
        }
        Ok(())
    }

    /// Returns when all of these have been heard of, or after a bounded time.
    pub(crate) fn wait_for(&self, index: IfIndex, missing: Vec<IpNetwork>) {
        if let Some(events) = &self.address_events {
            events.wait_for(index, missing);
        }
    }

    /// The link with an index, if there is one.
    pub fn link(&mut self, index: IfIndex) -> Result<Option<LinkState>, Error> {
        self.link_at(Which::Index(index))
    }

    /// The link with a name (or alternative name), if there is one.
    pub fn link_by_name(&mut self, name: &IfName) -> Result<Option<LinkState>, Error> {
        self.link_at(Which::Name(name))
    }

    fn link_at(&mut self, which: Which<'_>) -> Result<Option<LinkState>, Error> {
        self.transport().ask(link::get(which, None))?.map(|body| link::read(&body)).transpose()
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<LinkState>, Error> {
        self.transport().dump(link::get_all())?.iter().map(|body| link::read(body)).collect()
    }

    /// All addresses, IPv4 before IPv6.
    pub fn addresses(&mut self) -> Result<Vec<Address>, Error> {
        self.both_families(Subject::Link, "list addresses", message::read_address, |family| {
            let mut message = AddressMessage::default();
            message.header.family = family.into();
            RouteNetlinkMessage::GetAddress(message)
        })
    }

    /// All unicast routes of all tables, IPv4 before IPv6.
    pub fn routes(&mut self) -> Result<Vec<RouteEntry>, Error> {
        self.routes_through(None)
    }

    /// The unicast routes of all tables through one link.
    pub(crate) fn routes_through(&mut self, index: Option<IfIndex>) -> Result<Vec<RouteEntry>, Error> {
        let mut routes = self.both_families(Subject::Route, "list routes", message::read_route, |family| {
            let mut message = RouteMessage::default();
            message.header.address_family = family.into();
            message.attributes.extend(index.map(|index| RouteAttribute::Oif(index.get())));
            RouteNetlinkMessage::GetRoute(message)
        })?;
        routes.retain(|entry| index.is_none() || entry.index == index);
        Ok(routes)
    }

    /// All policy rules that look into a table, of the kinds that [`Rule`] can say; their priorities are always given.
    pub fn rules(&mut self) -> Result<Vec<Rule>, Error> {
        self.both_families(Subject::Rule, "list rules", message::read_rule, |family| {
            let mut message = RuleMessage::default();
            message.header.family = family.into();
            RouteNetlinkMessage::GetRule(message)
        })
    }

    /// All neighbours, IPv4 before IPv6.
    pub fn neighbours(&mut self) -> Result<Vec<NeighbourEntry>, Error> {
        self.both_families(Subject::Neighbour, "list neighbours", message::read_neighbour, |family| {
            let mut message = NeighbourMessage::default();
            message.header.family = family.into();
            RouteNetlinkMessage::GetNeighbour(message)
        })
    }

    fn both_families<T>(
        &mut self,
        subject: Subject,
        operation: &str,
        read: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
        ask: impl Fn(Family) -> RouteNetlinkMessage,
    ) -> Result<Vec<T>, Error> {
        self.of_both_families(operation, read, |family| Request::question(ask(family), subject, operation))
    }

    pub(crate) fn of_both_families<T>(
        &mut self,
        operation: &str,
        read: impl Fn(&[u8]) -> Result<Option<T>, DecodeError>,
        ask: impl Fn(Family) -> Request,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            let bodies: Vec<Body> = match self.transport().dump(ask(family)) {
                // A kernel without IPv6 has no such table.
                Err(Error::Refused(refusal))
                    if family == Family::V6 && matches!(refusal.errno, Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT) =>
                {
                    continue;
                }
                other => other?,
            };
            for body in bodies {
                let read = read(&body)
                    .map_err(|e| Error::Malformed { operation: operation.to_owned(), detail: e.to_string() })?;
                all.extend(read);
            }
        }
        Ok(all)
    }

    /// Sets an IPv6 setting of one interface. False: there is no such setting, as the kernel or the interface has no IPv6.
    pub(crate) fn set_ipv6(&self, ifname: &str, setting: &str, value: &str) -> Result<bool, Error> {
        self.door.set_ipv6(ifname, setting, value)
    }
}
