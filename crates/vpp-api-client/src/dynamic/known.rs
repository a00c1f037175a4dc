//! Types that people write in a way of their own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value as Json, json};

use super::unfit;
use crate::definition::{Base, Definitions};
use crate::types::{MacAddress, Prefix};
use crate::wire::{DecodeError, EncodeError, Input, Wire};

/// No text of these is longer: an IPv6 prefix.
pub(super) const LONGEST: usize = 43;

/// A type's name, if it is such a one and as large as such a one.
pub(super) fn kind(definitions: &Definitions, name: &str) -> Option<Kind> {
    let (kind, size) = match name {
        "mac_address" => (Kind::Mac, 6),
        "ip4_address" => (Kind::Ip4, 4),
        "ip6_address" => (Kind::Ip6, 16),
        "address" => (Kind::Address, 17),
        "prefix" | "address_with_prefix" => (Kind::Prefix, 18),
        _ => return None,
    };
    (definitions.size(&Base::Named(name.into())) == Some(size)).then_some(kind)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Mac,
    Ip4,
    Ip6,
    Address,
    Prefix,
}

impl Kind {
    pub(super) fn put(self, json: &Json, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let Some(text) = json.as_str() else {
            return if json.is_null() { self.initial(out) } else { Err(unfit(self.example(), json)) };
        };
        let written = match self {
            Self::Mac => mac(text).map(|mac| mac.put(out)),
            Self::Ip4 => text.parse().ok().map(|address: Ipv4Addr| address.put(out)),
            Self::Ip6 => text.parse().ok().map(|address: Ipv6Addr| address.put(out)),
            Self::Address => text.parse().ok().map(|address: IpAddr| address.put(out)),
            Self::Prefix => prefix(text).map(|prefix| prefix.put(out)),
        };
        written.unwrap_or_else(|| Err(unfit(self.example(), json)))
    }

    fn initial(self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::Mac => MacAddress::initial().put(out),
            Self::Ip4 => Ipv4Addr::initial().put(out),
            Self::Ip6 => Ipv6Addr::initial().put(out),
            Self::Address => IpAddr::initial().put(out),
            Self::Prefix => Prefix::initial().put(out),
        }
    }

    pub(super) fn take(self, input: &mut Input<'_>) -> Result<Json, DecodeError> {
        Ok(match self {
            Self::Mac => json!(MacAddress::take(input)?.to_string()),
            Self::Ip4 => json!(Ipv4Addr::take(input)?.to_string()),
            Self::Ip6 => json!(Ipv6Addr::take(input)?.to_string()),
            Self::Address => json!(IpAddr::take(input)?.to_string()),
            Self::Prefix => json!(Prefix::take(input)?.to_string()),
        })
    }

    fn example(self) -> &'static str {
        match self {
            Self::Mac => "a MAC address like \"02:fe:00:00:00:01\"",
            Self::Ip4 => "an address like \"10.0.0.1\"",
            Self::Ip6 => "an address like \"fd00::1\"",
            Self::Address => "an address like \"10.0.0.1\" or \"fd00::1\"",
            Self::Prefix => "a prefix like \"10.0.0.1/24\" or \"fd00::1/64\"",
        }
    }
}

fn mac(text: &str) -> Option<MacAddress> {
    let mut bytes = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(MacAddress(bytes))
}

fn prefix(text: &str) -> Option<Prefix> {
    let (address, length) = text.split_once('/')?;
    Prefix::new(address.parse::<IpAddr>().ok()?, length.parse().ok()?).ok()
}

/// Bytes as digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    })
}

/// Digits as bytes.
pub(super) fn bytes(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x").unwrap_or(text).as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let nibble = |digit: u8| char::from(digit).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(nibble(pair[0])? << 4 | nibble(pair[1])?).ok();
    digits.chunks(2).map(byte).collect()
}
