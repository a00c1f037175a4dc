//! [`Netlink`]: from the agent's own namespace into all others, by their numbers.
//!
//! # Guarantees
//!
//! - Every namespace that a pair was made in has a number, so that its links' events come and they can still be deleted when nobody
//!   holds a descriptor of it.
//! - Clones share one socket for short questions; what takes long has a socket of its own.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::errno::Errno;
use std::os::fd::{AsFd as _, AsRawFd as _};

use crate::error::Subject;
use crate::events::{Events, lock, read_nsid};
use crate::link::Which;
use crate::transport::{Request, Transport};
use crate::veth::{self, VethLink, VethPair};
use crate::workers::Workers;
use crate::{Error, IfIndex, IfName, LinkEvent, LinkState, Netns, Nsid, link};

/// The agent's own namespace: pairs, deletions and events in all others. Cheap to clone.
#[derive(Clone)]
pub struct Netlink(Arc<Inner>);

struct Inner {
    netns: Netns,
    transport: Mutex<Transport>,
    events: Events,
    workers: Workers,
}

impl Netlink {
    /// Speaks from the calling thread's namespace.
    pub fn open() -> Result<Self, Error> {
        Self::open_in(&Netns::current()?)
    }

    /// Speaks from a given namespace, which is then the agent's own.
    pub fn open_in(netns: &Netns) -> Result<Self, Error> {
        let transport = netns.run(Transport::open)??;
        let events = Events::start(netns)?;
        let inner =
            Inner { netns: netns.clone(), transport: Mutex::new(transport), events, workers: Workers::default() };
        Ok(Self(Arc::new(inner)))
    }

    /// The agent's own namespace.
    pub fn netns(&self) -> &Netns {
        &self.0.netns
    }

    /// What the agent's own namespace calls another one; from now on it has a number for it.
    pub fn nsid(&self, netns: &Netns) -> Result<Nsid, Error> {
        let by = self.netns().id();
        if let Some(nsid) = netns.number(by) {
            return Ok(nsid);
        }
        let mut message = nsid_message(netns);
        message.attributes.push(NsidAttribute::Id(-1));
        let operation = format!("number network namespace {}", netns.id());
        let request = Request::change(RouteNetlinkMessage::NewNsId(message), 0, Subject::Netns, operation.as_str());
        let answer = lock(&self.0.transport).change(request);
        match answer {
            // It has one already.
            Err(Error::Refused(refusal)) if refusal.errno == Errno::EEXIST => {}
            other => other?,
        }
        let question = format!("read the number of network namespace {}", netns.id());
        let message = RouteNetlinkMessage::GetNsId(nsid_message(netns));
        let answer = lock(&self.0.transport).ask(Request::question(message, Subject::Netns, question))?;
        let nsid = answer
            .as_deref()
            .and_then(read_nsid)
            .ok_or_else(|| Error::Malformed { operation, detail: "it has no number afterwards".into() })?;
        netns.set_number(by, nsid);
        Ok(nsid)
    }

    /// Whether a number is any namespace's.
    fn is_known(&self, nsid: Nsid) -> Result<bool, Error> {
        let mut message = NsidMessage::default();
        message.attributes.push(NsidAttribute::Id(nsid.get()));
        let message = RouteNetlinkMessage::GetNsId(message);
        let question = Request::question(message, Subject::Netns, format!("look for network namespace {nsid}"));
        match lock(&self.0.transport).ask(question) {
            Ok(_) => Ok(true),
            Err(Error::Refused(refusal)) if refusal.errno == Errno::ENOENT => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a pair of virtual Ethernet links, both ends at once in their namespaces; down, and without alias.
    ///
    /// # Errors
    /// [`Error::NameTaken`] names the name and the namespace. When the outcome is unknown ([`Error::is_unknown_outcome`]), look
    /// for the MACs.
    pub fn create_veth(&self, pair: &VethPair<'_>) -> Result<[VethLink; 2], Error> {
        let [first, second] = &pair.ends;
        let nsids = [self.nsid(first.netns)?, self.nsid(second.netns)?];
        veth::create(&mut lock(&self.0.transport), pair, nsids)
    }

    /// A link of a namespace; `None`: there is no such link, or no such namespace.
    pub fn link(&self, nsid: Nsid, index: IfIndex) -> Result<Option<LinkState>, Error> {
        self.link_at(nsid, Which::Index(index))
    }

    /// A link of a namespace by its name; `None`: there is no such link, or no such namespace.
    pub fn link_by_name(&self, nsid: Nsid, name: &IfName) -> Result<Option<LinkState>, Error> {
        self.link_at(nsid, Which::Name(name))
    }

    fn link_at(&self, nsid: Nsid, which: Which<'_>) -> Result<Option<LinkState>, Error> {
        // Answered before the match: the lock must be free in its arms.
        let answer = lock(&self.0.transport).ask(link::get(which, Some(nsid)));
        match answer {
            // The kernel's way to say that the number is nobody's, among other things.
            Err(Error::Refused(refusal)) if refusal.errno == Errno::EINVAL && !self.is_known(nsid)? => Ok(None),
            other => other?.map(|body| link::read(&body)).transpose(),
        }
    }

    /// Calls `subscriber` for every event from now on, until it says [`ControlFlow::Break`].
    ///
    /// It is called on the thread that reads events: it must not block, subscribe, or own a [`Netlink`].
    pub fn subscribe(&self, subscriber: impl FnMut(&LinkEvent) -> ControlFlow<()> + Send + 'static) {
        self.0.events.subscribe(Box::new(subscriber));
    }

    pub(crate) fn events(&self) -> &Events {
        &self.0.events
    }

    pub(crate) fn workers(&self) -> &Workers {
        &self.0.workers
    }
}

fn nsid_message(netns: &Netns) -> NsidMessage {
    let mut message = NsidMessage::default();
    message.attributes.push(NsidAttribute::Fd(netns.as_fd().as_raw_fd().unsigned_abs()));
    message
}
