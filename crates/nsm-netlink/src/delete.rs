//! Deletion of links that are known to be ours, without waiting for the kernel's slow answer.
//!
//! # Guarantees
//!
//! - A link is deleted only after it was seen to have the expected MAC, and no other alias than the expected one. Names do not count:
//!   they are the namespace owner's.
//! - `Ok` means that the link and, for a pair, its other end are gone from their namespaces: names and addresses are free.
//! - Deleting twice is harmless.
//!
//! # How
//!
//! The kernel acknowledges only after an RCU barrier, some 25 ms later, in the sender's context. But it multicasts that a link is
//! gone as soon as that is so, a millisecond after the request. So a worker sends the request and waits for the answer, while the
//! caller waits for the event. An answer that says no still fails the call, and when events get lost the caller looks.
//!
//! # Assumptions
//!
//! - Between look and deletion (microseconds) the namespace's number is not given to another namespace with a link of the same
//!   index. Whoever holds the namespace open is sure of that.

use std::sync::Arc;
use std::time::Instant;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use serde::{Deserialize, Serialize};

use crate::error::Subject;
use crate::events::{Place, Woken};
use crate::transport::{DEADLINE, Request, Transport};
use crate::{Error, IfIndex, LinkState, Mac, Netlink, Netns, Nsid};

/// By which a link is known to be the one that was made: what a record of it holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkIdentity {
    /// Its namespace, as the agent's own calls it.
    pub nsid: Nsid,
    /// Its index there.
    pub index: IfIndex,
    /// Its Ethernet address: random, hence nobody else's.
    pub mac: Mac,
    /// Its alias. A link that has none yet is recognised by its MAC alone, one that has another is not ours.
    pub alias: Option<String>,
}

impl LinkIdentity {
    /// Whether a link is the one meant; why not otherwise.
    pub(crate) fn check(&self, link: &LinkState) -> Result<(), Error> {
        let not_ours = |expected: String, found: String| Error::NotOurs {
            index: self.index,
            name: link.name.clone(),
            expected,
            found,
        };
        if link.mac != Some(self.mac) {
            let found =
                link.mac.map_or_else(|| "no Ethernet address".to_owned(), |mac| format!("Ethernet address {mac}"));
            return Err(not_ours(self.mac.to_string(), found));
        }
        match (&self.alias, &link.alias) {
            (Some(expected), Some(found)) if expected != found => {
                Err(not_ours(format!("{expected:?}"), format!("alias {found:?}")))
            }
            (Some(_), Some(_) | None) | (None, _) => Ok(()),
        }
    }

    fn place(&self) -> Place {
        (self.nsid, self.index)
    }
}

/// What a deletion found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// The link was there and is gone now.
    Deleted,
    /// There was no such link, or no such namespace. The other end of the pair of a namespace that has just died may be there for
    /// some milliseconds yet: delete it by its own identity.
    AlreadyGone,
}

impl Netlink {
    /// Deletes a link, and the other end of its pair with it.
    ///
    /// # Errors
    /// [`Error::NotOurs`] when another link is in its place: nothing is deleted then. [`Error::Timeout`] when it is still there
    /// after the deadline.
    pub fn delete_link(&self, identity: &LinkIdentity) -> Result<Deletion, Error> {
        let until = Instant::now() + DEADLINE;
        let Some(link) = self.link(identity.nsid, identity.index)? else { return Ok(Deletion::AlreadyGone) };
        identity.check(&link)?;

        let peer = link.peer.map(|index| (link.peer_nsid.unwrap_or(identity.nsid), index));
        let waiter = self.events().expect([identity.place()].into_iter().chain(peer));
        let worker = Worker { netns: self.netns().clone(), place: identity.place() };
        let answered = Arc::clone(&waiter);
        if !self.workers().run(until, move || answered.answered(worker.run()))? {
            return Err(timed_out(identity));
        }

        loop {
            let woken = waiter.wait(until);
            return match woken {
                Woken::Vanished | Woken::Answered(Ok(())) => Ok(Deletion::Deleted),
                Woken::Answered(Err(error)) if error.is_gone() => Ok(Deletion::AlreadyGone),
                // From here on what counts is what is there.
                Woken::Answered(Err(_)) | Woken::Overrun | Woken::TimedOut if !self.is_there(identity)? => {
                    Ok(Deletion::Deleted)
                }
                Woken::Answered(Err(error)) => Err(error),
                Woken::Overrun => continue,
                Woken::TimedOut => Err(timed_out(identity)),
            };
        }
    }

    fn is_there(&self, identity: &LinkIdentity) -> Result<bool, Error> {
        let link = self.link(identity.nsid, identity.index)?;
        Ok(link.is_some_and(|link| identity.check(&link).is_ok()))
    }
}

fn timed_out(identity: &LinkIdentity) -> Error {
    Error::Timeout { operation: operation(identity.place()), after: DEADLINE }
}

fn operation((nsid, index): Place) -> String {
    format!("delete interface {index} of network namespace {nsid}")
}

/// Sends one deletion and waits for the kernel's answer, in a thread that is made for that.
struct Worker {
    netns: Netns,
    place: Place,
}

impl Worker {
    fn run(&self) -> Result<(), Error> {
        self.netns.enter()?;
        let (nsid, index) = self.place;
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        message.attributes.push(LinkAttribute::IfNetnsId(nsid.get()));
        let request = Request::change(RouteNetlinkMessage::DelLink(message), 0, Subject::Link, operation(self.place));
        Transport::open()?.change(request)
    }
}
