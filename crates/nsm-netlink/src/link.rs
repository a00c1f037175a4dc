//! Links as the kernel describes them ([`LinkState`]) and the messages that ask for them.
//!
//! Attributes that this version of the libraries cannot read are skipped: a namespace with exotic links stays readable.

use netlink_packet_core::{NlasIterator, ParseableParametrized as _};
use netlink_packet_route::link::{
    InfoKind, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Subject;
use crate::transport::Request;
use crate::{Error, IfIndex, IfName, Mac, Nsid};

/// Length of `struct ifinfomsg`, before the attributes.
const HEADER_BYTES: usize = 16;

/// A link, as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// Its number in its namespace.
    pub index: IfIndex,
    /// Its name, whatever the namespace's owner gave it.
    pub name: String,
    /// Its Ethernet address, if that is what it has.
    pub mac: Option<Mac>,
    /// Its largest packet.
    pub mtu: u32,
    /// Whether it is set up.
    pub up: bool,
    /// Whether the other end is up too: packets can flow.
    pub running: bool,
    /// Its alias.
    pub alias: Option<String>,
    /// `veth`, `bridge`, …; none for hardware and loopback.
    pub kind: Option<String>,
    /// Its group.
    pub group: u32,
    /// The index of the other end of a pair, in that one's namespace.
    pub peer: Option<IfIndex>,
    /// The other end's namespace as seen from the namespace that asked; `None` when both ends are in the same one.
    pub peer_nsid: Option<Nsid>,
}

impl LinkState {
    /// Reads an `RTM_NEWLINK` or `RTM_DELLINK`.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let header = LinkHeader::parse(body).map_err(|e| e.to_string())?;
        let mut link = Self {
            index: IfIndex::new(header.index).ok_or("a link without an index")?,
            name: String::new(),
            mac: None,
            mtu: 0,
            up: header.flags.contains(LinkFlags::Up),
            running: header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            alias: None,
            kind: None,
            group: 0,
            peer: None,
            peer_nsid: None,
        };
        for attribute in NlasIterator::new(body.get(HEADER_BYTES..).unwrap_or_default()) {
            let attribute = attribute.map_err(|e| e.to_string())?;
            let Ok(attribute) = LinkAttribute::parse_with_param(&attribute, AddressFamily::Unspec) else { continue };
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Address(bytes) => link.mac = Mac::from_kernel(&bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::Link(index) => link.peer = IfIndex::new(index),
                LinkAttribute::LinkNetNsId(id) => link.peer_nsid = Nsid::new(id),
                LinkAttribute::LinkInfo(info) => link.kind = info.into_iter().find_map(kind),
                _ => {}
            }
        }
        Ok(link)
    }
}

fn kind(info: LinkInfo) -> Option<String> {
    match info {
        LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind),
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    }
}

/// Which link a question is about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which<'a> {
    Index(IfIndex),
    Name(&'a IfName),
}

/// Asks for one link, in the socket's namespace or in the one that it calls `nsid`.
pub(crate) fn get(which: Which<'_>, nsid: Option<Nsid>) -> Request {
    let mut message = LinkMessage::default();
    let operation = match which {
        Which::Index(index) => {
            message.header.index = index.get();
            format!("read interface {index}")
        }
        Which::Name(name) => {
            message.attributes.push(LinkAttribute::IfName(name.to_string()));
            format!("read interface {name}")
        }
    };
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    message.attributes.extend(nsid.map(|nsid| LinkAttribute::IfNetnsId(nsid.get())));
    Request::question(RouteNetlinkMessage::GetLink(message), Subject::Link, operation)
}

/// Asks for all links of the socket's namespace.
pub(crate) fn get_all() -> Request {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
    Request::question(RouteNetlinkMessage::GetLink(message), Subject::Link, "list interfaces")
}

/// Reads the answer to [`get`].
pub(crate) fn read(body: &[u8]) -> Result<LinkState, Error> {
    LinkState::parse(body).map_err(|detail| Error::Malformed { operation: "read an interface".into(), detail })
}
