//! The messages, generated from `api/*.txt`: a struct for each, with VPP's names.
//!
//! A request's `Default` has VPP's defaults, and all ones for an index where VPP has none: no such thing, all of them, or a new one, as the field says. What
//! has neither is zero: a `sw_if_index` that a call works on is 0, `local0`, until it is set. Fields that only say how many elements another one has are left
//! out. `Debug` shows no keys and secrets.
#![allow(clippy::all, clippy::pedantic, unused_variables, reason = "generated: names and shapes are VPP's")]

use crate::wire::Wire as _;

include!(concat!(env!("OUT_DIR"), "/messages.rs"));

impl From<std::net::IpAddr> for AddressUnion {
    fn from(address: std::net::IpAddr) -> Self {
        let mut bytes = [0; 16];
        match address {
            std::net::IpAddr::V4(address) => bytes[..4].copy_from_slice(&address.octets()),
            std::net::IpAddr::V6(address) => bytes = address.octets(),
        }
        Self(bytes)
    }
}

fn again<M: crate::message::Message>(body: &[u8]) -> Result<Vec<u8>, String> {
    let message = M::decode(&mut crate::wire::Input::new(body)).map_err(|error| error.to_string())?;
    let mut out = Vec::new();
    message.encode(&mut out).map_err(|error| error.to_string())?;
    Ok(out)
}
