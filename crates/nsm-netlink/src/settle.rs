//! Waiting for what the kernel does behind an answered request.
//!
//! # Guarantees
//!
//! - After [`NetnsSocket::settle`] the first packet counts: the link sends, and every IPv6 address of it is delivered to.
//! - It ends within [`BOUND`], whatever the kernel does.

use std::thread;
use std::time::{Duration, Instant};

use ipnetwork::{IpNetwork, Ipv6Network};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use crate::error::Subject;
use crate::transport::Request;
use crate::{Error, IfIndex, LinkConfig, NetnsSocket};

/// A worker of the kernel that has not come by within this time is not coming because of us.
const BOUND: Duration = Duration::from_secs(1);
/// The worker needs the lock that each question takes.
const PAUSE: Duration = Duration::from_micros(100);

impl NetnsSocket {
    /// Waits for two workers of the kernel, after both ends of a pair are configured. The end that was up first has had its
    /// carrier from the other one, and drops what it sends until the link watch has run: a read of the link makes it run (since
    /// Linux 6.8). The route that delivers to an IPv6 address is made by a worker too, without duplicate address detection as
    /// well, and nothing but a look at it tells when.
    pub fn settle(&mut self, index: IfIndex, config: &LinkConfig) -> Result<(), Error> {
        self.link(index)?.ok_or(Error::NoLink(index))?;
        let until = Instant::now() + BOUND;
        for address in &config.addresses {
            let IpNetwork::V6(address) = address else { continue };
            while !self.delivers_to(*address)? {
                if Instant::now() >= until {
                    tracing::warn!(netns = %self.netns(), %address, "the kernel does not deliver to the address yet");
                    return Ok(());
                }
                thread::sleep(PAUSE);
            }
        }
        Ok(())
    }

    fn delivers_to(&mut self, address: Ipv6Network) -> Result<bool, Error> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet6;
        message.header.destination_prefix_length = 128;
        message.attributes.push(RouteAttribute::Destination(RouteAddress::Inet6(address.ip())));
        let question =
            Request::question(RouteNetlinkMessage::GetRoute(message), Subject::Route, format!("look up {address}"));
        match self.transport.ask(question) {
            Ok(Some(body)) => Ok(RouteHeader::parse(body.as_ref()).is_ok_and(|header| header.kind == RouteType::Local)),
            // No way to it at all, yet.
            Ok(None) | Err(Error::Refused(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
