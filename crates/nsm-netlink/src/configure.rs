//! Making a link what a [`LinkConfig`] says, and taking its rules back.
//!
//! # Guarantees
//!
//! - The alias comes first: from then on the link is recognised as ours, whatever fails later.
//! - Router advertisements are refused before the link is up: a peer's first one would become the namespace's default route.
//! - IPv6 addresses are usable at once, without duplicate address detection.
//! - Nothing that the namespace has is replaced: an address, a route or a rule that exists is an error that names it.
//! - After an error no rule of the configuration is left; all the rest goes away with the link.
//!
//! One datagram carries all changes but the rules, a second one the rules.

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use nix::errno::Errno;

use crate::error::Subject;
use crate::transport::Request;
use crate::{
    Error, IfIndex, IpNetwork, LinkConfig, LinkState, Neighbour, NetnsSocket, Refusal, Route, Rule, VethLink, message,
};

/// One change, with what it is about: so that a refusal can name it.
pub(crate) struct Change {
    pub(crate) request: Request,
    about: About,
}

enum About {
    Link(IfIndex),
    Address(IpNetwork),
    Route(Route),
    Neighbour,
    Rule(Rule),
}

impl About {
    /// The kernel's no, in terms of what was wanted.
    fn refused(&self, refusal: Refusal) -> Error {
        match (self, refusal.errno) {
            (Self::Link(index), Errno::ENODEV) => Error::NoLink(*index),
            (Self::Address(address), Errno::EEXIST) => Error::AddressTaken(*address),
            (Self::Route(route), Errno::EEXIST) => Error::RouteTaken(route.clone()),
            (Self::Rule(rule), Errno::EEXIST) => Error::RuleTaken(rule.clone()),
            (Self::Link(_) | Self::Address(_) | Self::Route(_) | Self::Neighbour | Self::Rule(_), _) => {
                Error::Refused(refusal)
            }
        }
    }
}

impl NetnsSocket {
    /// Makes a fresh link what `config` says.
    ///
    /// # Errors
    /// [`Error::RouteTaken`], [`Error::AddressTaken`], [`Error::RuleTaken`] when the namespace has such a thing already;
    /// [`Error::NoLink`]; or what the kernel said to which operation. Undo by deleting the link.
    pub fn configure(&mut self, index: IfIndex, config: &LinkConfig) -> Result<LinkState, Error> {
        config.check()?;
        let link = self.link(index)?.ok_or(Error::NoLink(index))?;
        self.prepare_ipv6(&link.name, config)?;
        self.add_all(index, config)?;
        self.state_after(index, &config.rules)
    }

    /// The same for an end of a pair that was made a moment ago, without looking at it before and after.
    ///
    /// # Errors
    /// As [`NetnsSocket::configure`].
    pub fn configure_made(&mut self, link: &VethLink, config: &LinkConfig) -> Result<(), Error> {
        config.check()?;
        if !self.refuse_advertisements(link.name.as_str())? || config.has_v6() {
            // Without IPv6, or renamed meanwhile.
            let found = self.link(link.index)?.ok_or(Error::NoLink(link.index))?;
            self.prepare_ipv6(&found.name, config)?;
        }
        self.add_all(link.index, config)
    }

    fn add_all(&mut self, index: IfIndex, config: &LinkConfig) -> Result<(), Error> {
        let v6 = self.expect_v6(config.addresses.iter().copied())?;
        let mut changes = settings(index, config);
        changes.extend(config.addresses.iter().map(|&address| add_address(index, address)));
        changes.extend(config.routes.iter().map(|route| add_route(index, route)));
        changes.extend(config.neighbours.iter().map(|&neighbour| set_neighbour(index, neighbour)));
        self.apply(changes)?;
        self.wait_for(index, v6);
        self.add_rules(&config.rules)
    }

    /// The IPv6 ones among addresses to be added; from now on their coming is heard.
    pub(crate) fn expect_v6(&mut self, addresses: impl Iterator<Item = IpNetwork>) -> Result<Vec<IpNetwork>, Error> {
        let v6: Vec<IpNetwork> = addresses.filter(IpNetwork::is_ipv6).collect();
        if !v6.is_empty() {
            self.hear_addresses()?;
        }
        Ok(v6)
    }

    /// The link as it has become; without it the rules are of no use.
    pub(crate) fn state_after(&mut self, index: IfIndex, rules: &[Rule]) -> Result<LinkState, Error> {
        let read = self.link(index).and_then(|link| link.ok_or(Error::NoLink(index)));
        if read.is_err() {
            self.take_back(rules);
        }
        read
    }

    /// Settings that must be right before the link is up.
    pub(crate) fn prepare_ipv6(&self, ifname: &str, config: &LinkConfig) -> Result<(), Error> {
        self.refuse_advertisements(ifname)?;
        if config.has_v6() && !self.set_ipv6(ifname, "disable_ipv6", "0")? {
            return Err(Error::Invalid(format!(
                "interface {ifname} has no IPv6 in this kernel or with this MTU; it needs 1280"
            )));
        }
        Ok(())
    }

    /// Keeps routers on a link from giving routes and addresses. False: the link has no IPv6, or is called otherwise.
    pub fn refuse_advertisements(&self, ifname: &str) -> Result<bool, Error> {
        self.set_ipv6(ifname, "accept_ra", "0")
    }

    /// Sends all changes; the first one refused is the error.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let (requests, about): (Vec<_>, Vec<_>) = changes.into_iter().map(|c| (c.request, c.about)).unzip();
        let answers = self.transport().exchange(&requests)?;
        for (answer, about) in answers.into_iter().zip(about) {
            answer.map_err(|refusal| about.refused(refusal))?;
        }
        Ok(())
    }

    /// Adds rules: all, or on error none.
    pub(crate) fn add_rules(&mut self, rules: &[Rule]) -> Result<(), Error> {
        for (at, rule) in rules.iter().enumerate() {
            let (request, about) = (add_rule(rule), About::Rule(rule.clone()));
            // One by one: which of them are ours must be known whatever happens.
            let outcome = self.transport().exchange(&[request]);
            let error = match outcome {
                Ok(mut answers) => match answers.pop() {
                    Some(Err(refusal)) => about.refused(refusal),
                    Some(Ok(_)) | None => continue,
                },
                Err(error) => error,
            };
            let unknown = usize::from(error.is_unknown_outcome());
            self.take_back(&rules[..at + unknown]);
            return Err(error);
        }
        Ok(())
    }

    /// After a failure that is being reported already.
    fn take_back(&mut self, rules: &[Rule]) {
        if let Err(error) = self.remove_rules(rules) {
            tracing::warn!(netns = %self.netns(), %error, "policy rules are left in the namespace");
        }
    }

    /// Removes policy rules; those that are not there are fine.
    pub fn remove_rules(&mut self, rules: &[Rule]) -> Result<(), Error> {
        if rules.is_empty() {
            return Ok(());
        }
        // The kernel removes the first rule that has what the message says: say all, as the kernel itself says it.
        let mut existing = self.rules()?;
        let mut requests = Vec::new();
        for rule in rules {
            if let Some(at) = existing.iter().position(|candidate| rule.is_met_by(candidate)) {
                let found = existing.swap_remove(at);
                let message = RouteNetlinkMessage::DelRule(message::rule(&found));
                requests.push(Request::change(message, 0, Subject::Rule, format!("remove rule {found}")));
            }
        }
        self.removals(&requests)
    }

    /// Sends removals; what is not there any more is fine.
    pub(crate) fn removals(&mut self, requests: &[Request]) -> Result<(), Error> {
        let answers = self.transport().exchange(requests)?;
        let refused = answers.into_iter().filter_map(Result::err).find(|refusal| !refusal.is_absent());
        refused.map_or(Ok(()), |refusal| Err(Error::Refused(refusal)))
    }
}

/// Alias, MTU and up, in an order in which a failure leaves the link recognisable.
pub(crate) fn settings(index: IfIndex, config: &LinkConfig) -> Vec<Change> {
    let set = |what: &str, change: &dyn Fn(&mut LinkMessage)| {
        let mut message = LinkMessage::default();
        message.header.index = index.get();
        change(&mut message);
        let operation = format!("set {what} of interface {index}");
        let request = Request::change(RouteNetlinkMessage::SetLink(message), 0, Subject::Link, operation);
        Change { request, about: About::Link(index) }
    };
    let mut changes = Vec::new();
    if let Some(alias) = &config.alias {
        changes.push(set("the alias", &|m| m.attributes.push(LinkAttribute::IfAlias(alias.clone()))));
    }
    if let Some(mtu) = config.mtu {
        changes.push(set(&format!("MTU {mtu}"), &|m| m.attributes.push(LinkAttribute::Mtu(mtu.get()))));
    }
    if config.up {
        changes.push(set("up", &|m| {
            m.header.flags = LinkFlags::Up;
            m.header.change_mask = LinkFlags::Up;
        }));
    }
    changes
}

pub(crate) fn add_address(index: IfIndex, address: IpNetwork) -> Change {
    let message = RouteNetlinkMessage::NewAddress(message::address(index, address));
    let subject = Subject::Address { v6: address.is_ipv6() };
    let request = Request::change(message, NLM_F_CREATE | NLM_F_EXCL, subject, format!("add address {address}"));
    Change { request, about: About::Address(address) }
}

pub(crate) fn add_route(index: IfIndex, route: &Route) -> Change {
    let message = RouteNetlinkMessage::NewRoute(message::route(index, route));
    let request = Request::change(message, NLM_F_CREATE | NLM_F_EXCL, Subject::Route, format!("add route {route}"));
    Change { request, about: About::Route(route.clone()) }
}

/// The link is ours, and so are the entries on it: the new one counts.
pub(crate) fn set_neighbour(index: IfIndex, neighbour: Neighbour) -> Change {
    let message = RouteNetlinkMessage::NewNeighbour(message::neighbour(index, neighbour));
    let operation = format!("add neighbour {neighbour}");
    let request = Request::change(message, NLM_F_CREATE | NLM_F_REPLACE, Subject::Neighbour, operation);
    Change { request, about: About::Neighbour }
}

fn add_rule(rule: &Rule) -> Request {
    let message = RouteNetlinkMessage::NewRule(message::rule(rule));
    Request::change(message, NLM_F_CREATE | NLM_F_EXCL, Subject::Rule, format!("add rule {rule}"))
}
