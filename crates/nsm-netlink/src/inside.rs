//! [`NetnsSocket`]: reads of what is inside another namespace. What it changes there is in `configure` and `change`.
//!
//! # Guarantees
//!
//! - It was opened by a thread that entered the namespace and ended; the calling thread never leaves its own.
//! - Its `sysctl` files are the namespace's too, whoever uses them: their directory is opened by the same thread.
//! - It does not keep the namespace alive for others to enter; the socket itself pins it until dropped.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;

use netlink_packet_core::DecodeError;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::neighbour::NeighbourMessage;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use netlink_packet_route::rule::RuleMessage;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::error::Subject;
use crate::link::Which;
use crate::transport::{Body, Request, Transport};
use crate::usable::AddressEvents;
use crate::{
    Address, Error, Family, IfIndex, IfName, LinkState, NeighbourEntry, Netns, NetnsId, RouteEntry, Rule, link, message,
};

/// Per-interface settings of IPv6; absent from kernels without it.
const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6/conf";

/// A netlink socket inside a namespace, and the door to its IPv6 settings.
pub struct NetnsSocket {
    pub(crate) transport: Transport,
    netns: NetnsId,
    /// `None`: no IPv6 in this kernel.
    ipv6: Option<OwnedFd>,
    pub(crate) address_events: AddressEvents,
}

impl NetnsSocket {
    /// Opens a socket in a namespace.
    pub fn open(netns: &Netns) -> Result<Self, Error> {
        let open = || Ok::<_, Error>((Transport::open()?, open_ipv6_settings()?, AddressEvents::open()?));
        let (transport, ipv6, address_events) = netns.run(open)??;
        Ok(Self { transport, netns: netns.id(), ipv6, address_events })
    }

    /// The namespace it is in.
    pub fn netns(&self) -> NetnsId {
        self.netns
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
        self.transport.ask(link::get(which, None))?.map(|body| link::read(&body)).transpose()
    }

    /// All links.
    pub fn links(&mut self) -> Result<Vec<LinkState>, Error> {
        self.transport.dump(link::get_all())?.iter().map(|body| link::read(body)).collect()
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
        let mut all = Vec::new();
        for family in [Family::V4, Family::V6] {
            let bodies: Vec<Body> = match self.transport.dump(Request::question(ask(family), subject, operation)) {
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
        let Some(directory) = &self.ipv6 else { return Ok(false) };
        let write = || -> io::Result<()> {
            let path = format!("{ifname}/{setting}");
            let file = openat(directory, path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            File::from(file).write_all(value.as_bytes())
        };
        match write() {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(format!("set {IPV6_SETTINGS}/{ifname}/{setting} to {value}"), e)),
        }
    }
}

fn open_ipv6_settings() -> Result<Option<OwnedFd>, Error> {
    match nix::fcntl::open(IPV6_SETTINGS, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::io(format!("open {IPV6_SETTINGS}"), errno.into())),
    }
}
