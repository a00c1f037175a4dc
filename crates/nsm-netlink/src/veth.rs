//! Pairs of virtual Ethernet links.
//!
//! # Guarantees
//!
//! - One message makes both ends, each at once in its namespace with its final name, address and MTU: nothing is ever moved or
//!   renamed, and nothing is ever visible in the agent's own namespace.
//! - It is all or nothing; names are never made up by the kernel.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkInfo, LinkMessage};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd as _, AsRawFd as _};

use crate::error::Subject;
use crate::link::Which;
use crate::transport::{Request, Transport};
use crate::{Error, IfIndex, IfName, LinkIdentity, LinkState, Mac, Mtu, Netns, Nsid, link};

/// A pair to be made.
#[derive(Clone, Debug)]
pub struct VethPair<'a> {
    /// Its two ends; they may be in the same namespace.
    pub ends: [VethEnd<'a>; 2],
    /// Largest packet, for both ends; `None`: 1500.
    pub mtu: Option<Mtu>,
    /// Group of both ends; `None`: 0.
    pub group: Option<u32>,
}

/// One end of a pair to be made.
#[derive(Clone, Debug)]
pub struct VethEnd<'a> {
    /// Where it is to be.
    pub netns: &'a Netns,
    /// Its name there.
    pub name: IfName,
    /// Its Ethernet address. Until it has its alias, that is what tells that it is ours: write it down first.
    pub mac: Mac,
}

/// One end of a pair that was made.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VethLink {
    /// Its namespace, as the agent's own calls it.
    pub nsid: Nsid,
    /// Its index there.
    pub index: IfIndex,
    /// Its name there.
    pub name: IfName,
    /// Its Ethernet address.
    pub mac: Mac,
}

impl VethLink {
    /// By which the link is recognised later.
    pub fn identity(&self, alias: Option<String>) -> LinkIdentity {
        LinkIdentity { nsid: self.nsid, index: self.index, mac: self.mac, alias }
    }
}

/// Makes a pair, whose ends' namespaces the socket's calls `nsids`.
pub(crate) fn create(transport: &mut Transport, pair: &VethPair<'_>, nsids: [Nsid; 2]) -> Result<[VethLink; 2], Error> {
    let [first, second] = &pair.ends;
    if first.netns.id() == second.netns.id() && first.name == second.name {
        return Err(Error::Invalid(format!("both ends are to be called {} in the same namespace", first.name)));
    }
    match transport.change(creation(pair)) {
        Err(Error::Refused(refusal)) if refusal.errno == Errno::EEXIST => Err(taken(transport, pair, nsids, refusal)),
        Err(error) => Err(error),
        Ok(()) => {
            let [one, other] = made(transport, pair, nsids)?;
            Ok([one, other])
        }
    }
}

fn creation(pair: &VethPair<'_>) -> Request {
    let end = |end: &VethEnd<'_>| {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(end.name.to_string()));
        message.attributes.push(LinkAttribute::Address(end.mac.octets().to_vec()));
        message.attributes.push(LinkAttribute::NetNsFd(end.netns.as_fd().as_raw_fd()));
        message.attributes.extend(pair.mtu.map(|mtu| LinkAttribute::Mtu(mtu.get())));
        message.attributes.extend(pair.group.map(LinkAttribute::Group));
        // Else the kernel makes one for each processor and takes all but one back, waiting for RCU with its lock held.
        message.attributes.extend([LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)]);
        message
    };
    let [first, second] = &pair.ends;
    let mut message = end(first);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(end(second)))),
    ]));
    let operation = format!("create veth pair {} and {}", first.name, second.name);
    Request::change(RouteNetlinkMessage::NewLink(message), NLM_F_CREATE | NLM_F_EXCL, Subject::Link, operation)
}

/// The kernel does not say which of the two names it was: look.
fn taken(transport: &mut Transport, pair: &VethPair<'_>, nsids: [Nsid; 2], refusal: crate::Refusal) -> Error {
    for (end, nsid) in pair.ends.iter().zip(nsids) {
        if let Ok(Some(_)) = transport.ask(link::get(Which::Name(&end.name), Some(nsid))) {
            return Error::NameTaken { name: end.name.clone(), netns: end.netns.id() };
        }
    }
    // Gone again meanwhile.
    Error::Refused(refusal)
}

/// Reads back what was made: the kernel chose the indices.
fn made(transport: &mut Transport, pair: &VethPair<'_>, nsids: [Nsid; 2]) -> Result<[VethLink; 2], Error> {
    let [first, second] = &pair.ends;
    let questions =
        [link::get(Which::Name(&first.name), Some(nsids[0])), link::get(Which::Name(&second.name), Some(nsids[1]))];
    let mut found = Vec::with_capacity(2);
    for (answer, (end, nsid)) in transport.exchange(&questions)?.into_iter().zip(pair.ends.iter().zip(nsids)) {
        let body = answer.map_err(Error::Refused)?.unwrap_or_default();
        let state: LinkState = link::read(&body)?;
        if state.mac != Some(end.mac) {
            // Renamed or replaced by the namespace's owner within microseconds.
            return Err(Error::Malformed {
                operation: format!("read interface {} after creating it", end.name),
                detail: "another interface has its name".into(),
            });
        }
        found.push(VethLink { nsid, index: state.index, name: end.name.clone(), mac: end.mac });
    }
    <[VethLink; 2]>::try_from(found).map_err(|_| Error::Malformed {
        operation: format!("read interfaces {} and {}", first.name, second.name),
        detail: "an answer is missing".into(),
    })
}
