//! A door for fuzz targets: what the agent reads of peers and of its own disk, without a node. No part of the API.

use std::path::Path;

use nsm_netlink::{LinkConfig, Mac};
use nsm_proto::connection::Connection;

use crate::{
    forwarder::{Agreement, End, kernel::configurations},
    state::{Loaded, Record, Records, RoutePolicy},
};

pub use crate::registry::fuzzing as registry;

/// What an endpoint's answer makes of the two interfaces; `None`: it is refused.
pub fn planned(connection: &Connection) -> Option<[LinkConfig; 2]> {
    let end = || End { mechanism: connection.mechanism.clone().unwrap_or_default(), netns: None, mac: None };
    let agreement = Agreement {
        id: connection.id.clone(),
        connection: connection.clone(),
        client: end(),
        endpoint: end(),
        routes: RoutePolicy { default_route: true, overlap: true },
        aware: Vec::new(),
    };
    configurations(&agreement, [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])]).ok()
}

/// The record that a file of this boot holds, if it is one.
pub fn record<R: Record>(text: &[u8], boot_id: &str) -> Option<R> {
    match Records::read(text, Path::new("record.json"), boot_id) {
        Ok(Loaded::Good(record)) => Some(record),
        Ok(Loaded::EarlierBoot | Loaded::Damaged) | Err(_) => None,
    }
}
