//! Making a configured link what another [`LinkConfig`] says, without making it anew.
//!
//! # Guarantees
//!
//! - Removed is what only the old configuration has; what others put on the link stays.
//! - Added is what the new one wants and the kernel lacks: also what somebody removed, or the kernel did when an address it
//!   depended on went away. Doing it twice changes nothing.
//! - Nothing of anybody else's is replaced: such a thing in the way is an error that names it.

use netlink_packet_route::RouteNetlinkMessage;

use crate::configure::{add_address, add_route, set_neighbour, settings};
use crate::error::Subject;
use crate::transport::Request;
use crate::{Error, IfIndex, LinkConfig, LinkState, Mac, NeighbourEntry, NetnsSocket, Rule, message};

impl NetnsSocket {
    /// Brings a link from one configuration to another.
    ///
    /// # Errors
    /// As [`NetnsSocket::configure`]. The link is then somewhere between; a repetition goes on from there.
    pub fn reconfigure(&mut self, index: IfIndex, old: &LinkConfig, new: &LinkConfig) -> Result<LinkState, Error> {
        new.check()?;
        let link = self.link(index)?.ok_or(Error::NoLink(index))?;
        self.prepare_ipv6(&link.name, new)?;
        let obsolete = obsolete_rules(old, new);
        self.remove_rules(&obsolete)?;
        self.removals(&obsolete_entries(index, old, new))?;
        self.apply(settings(index, new))?;
        self.add_missing(index, new)?;
        self.link(index)?.ok_or(Error::NoLink(index))
    }

    fn add_missing(&mut self, index: IfIndex, config: &LinkConfig) -> Result<(), Error> {
        let addresses = self.addresses()?;
        let has_address = |wanted| addresses.iter().any(|found| found.index == index && found.network == wanted);
        let missing: Vec<_> = config.addresses.iter().copied().filter(|&address| !has_address(address)).collect();
        let v6 = self.expect_v6(missing.iter().copied())?;
        self.apply(missing.into_iter().map(|address| add_address(index, address)).collect())?;
        self.wait_for(index, v6);

        let routes = self.routes_through(Some(index))?;
        let missing = config.routes.iter().filter(|wanted| !routes.iter().any(|found| wanted.is_met_by(&found.route)));
        let mut changes: Vec<_> = missing.map(|route| add_route(index, route)).collect();
        if !config.neighbours.is_empty() {
            let known = self.neighbours()?;
            let missing =
                config.neighbours.iter().filter(|wanted| !has_neighbour(&known, index, wanted.ip, wanted.mac));
            changes.extend(missing.map(|&neighbour| set_neighbour(index, neighbour)));
        }
        self.apply(changes)?;

        if !config.rules.is_empty() {
            let existing = self.rules()?;
            let missing: Vec<Rule> = config
                .rules
                .iter()
                .filter(|wanted| !existing.iter().any(|found| wanted.is_met_by(found)))
                .cloned()
                .collect();
            self.add_rules(&missing)?;
        }
        Ok(())
    }
}

pub(crate) fn has_neighbour(known: &[NeighbourEntry], index: IfIndex, ip: std::net::IpAddr, mac: Mac) -> bool {
    known.iter().any(|found| found.index == index && found.ip == ip && found.mac == Some(mac) && found.permanent)
}

fn obsolete_rules(old: &LinkConfig, new: &LinkConfig) -> Vec<Rule> {
    old.rules.iter().filter(|rule| !new.rules.contains(rule)).cloned().collect()
}

/// Routes before the addresses they may depend on.
fn obsolete_entries(index: IfIndex, old: &LinkConfig, new: &LinkConfig) -> Vec<Request> {
    let mut removals = Vec::new();
    for route in old.routes.iter().filter(|route| !new.routes.iter().any(|kept| kept.is_met_by(route))) {
        let message = RouteNetlinkMessage::DelRoute(message::route(index, route));
        removals.push(Request::change(message, 0, Subject::Route, format!("remove route {route}")));
    }
    for neighbour in old.neighbours.iter().filter(|n| !new.neighbours.iter().any(|kept| kept.ip == n.ip)) {
        let message = RouteNetlinkMessage::DelNeighbour(message::neighbour(index, *neighbour));
        removals.push(Request::change(message, 0, Subject::Neighbour, format!("remove neighbour {neighbour}")));
    }
    for address in old.addresses.iter().filter(|address| !new.addresses.contains(address)) {
        let message = RouteNetlinkMessage::DelAddress(message::address(index, *address));
        let subject = Subject::Address { v6: address.is_ipv6() };
        removals.push(Request::change(message, 0, subject, format!("remove address {address}")));
    }
    removals
}
