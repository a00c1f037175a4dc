//! A door for fuzz targets: the readers of the kernel's bytes without a kernel. No part of the API.

use netlink_packet_core::Emitable;
use netlink_packet_route::RouteNetlinkMessage;

use crate::config::LinkConfig;
use crate::events::read_nsid;
use crate::frame::Frames;
use crate::transport::{Answers, Table};
use crate::{IfIndex, LinkState, link, message};

/// Reads a datagram in every way that one is read: as a batch's answers, as a part of a table, and each body as whatever a
/// body may be.
pub fn read(datagram: &[u8]) {
    let batch: Vec<_> = (0..4).map(|_| link::get_all()).collect();
    let first = Frames::new(datagram).find_map(Result::ok).map_or(0, |frame| frame.sequence);
    let mut answers = Answers::new(&batch, first);
    if answers.read(datagram).is_ok() && answers.next_missing().is_none() {
        assert_eq!(answers.into_all().len(), batch.len(), "an answer for each request");
    }
    let _ = Table::new(&batch[0], first).read(datagram);
    let mut bytes = 0;
    for frame in Frames::new(datagram).map_while(Result::ok) {
        bytes += frame.payload.len();
        let _ = frame.content();
        bodies(frame.payload);
    }
    assert!(bytes <= datagram.len(), "messages of {bytes} bytes in {}", datagram.len());
    bodies(datagram);
}

fn bodies(body: &[u8]) {
    let _ = LinkState::parse(body);
    let _ = message::read_address(body);
    let _ = message::read_route(body);
    let _ = message::read_rule(body);
    let _ = message::read_neighbour(body);
    let _ = read_nsid(body);
}

/// Whether a configuration is one that would be sent. What it would send reads back as what it says.
pub fn comes_back(config: &LinkConfig) -> bool {
    let Some(index) = IfIndex::new(7).filter(|_| config.check().is_ok()) else { return false };
    for &address in &config.addresses {
        let read = message::read_address(&body(&RouteNetlinkMessage::NewAddress(message::address(index, address))));
        let read = read.ok().flatten().map(|read| (read.index, read.network, read.tentative));
        assert_eq!(read, Some((index, address, false)));
    }
    for route in &config.routes {
        let read = message::read_route(&body(&RouteNetlinkMessage::NewRoute(message::route(index, route))));
        let read = read.ok().flatten();
        let same = read.as_ref().is_some_and(|read| read.index == Some(index) && route.is_met_by(&read.route));
        assert!(same, "{route} came back as {read:?}");
    }
    for &neighbour in &config.neighbours {
        let read =
            message::read_neighbour(&body(&RouteNetlinkMessage::NewNeighbour(message::neighbour(index, neighbour))));
        let read = read.ok().flatten().map(|read| (read.index, read.ip, read.mac, read.permanent));
        assert_eq!(read, Some((index, neighbour.ip, Some(neighbour.mac), true)));
    }
    for rule in &config.rules {
        let read = message::read_rule(&body(&RouteNetlinkMessage::NewRule(message::rule(rule))));
        let read = read.ok().flatten();
        assert!(read.as_ref().is_some_and(|read| rule.is_met_by(read)), "{rule} came back as {read:?}");
    }
    true
}

fn body(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.emit(&mut bytes);
    bytes
}
