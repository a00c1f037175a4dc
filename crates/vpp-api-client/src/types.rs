//! Types that Rust has a better form for than VPP's definitions.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::wire::{DecodeError, DecodeProblem, EncodeError, Input, Wire};

/// An interface of VPP (`sw_if_index`). A freed one is given to the next interface at once: keep none longer than what it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceIndex(pub u32);

impl InterfaceIndex {
    /// No interface; in dumps, all of them.
    pub const NONE: Self = Self(u32::MAX);
}

impl fmt::Display for InterfaceIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Wire for InterfaceIndex {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.put(out)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        u32::take(input).map(Self)
    }

    fn initial() -> Self {
        Self(0)
    }
}

/// A MAC address. All zeroes: VPP makes one up, where it makes the interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&digits.join(":"))
    }
}

impl Wire for MacAddress {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.0.put(out)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        <[u8; 6]>::take(input).map(Self)
    }

    fn initial() -> Self {
        Self::default()
    }
}

/// IPv4 as VPP's `address_family`; IPv6 is 1.
const IP4: u8 = 0;
const IP6: u8 = 1;

impl Wire for IpAddr {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match self {
            Self::V4(address) => {
                IP4.put(out)?;
                address.put(out)?;
                [0_u8; 12].put(out)
            }
            Self::V6(address) => {
                IP6.put(out)?;
                address.put(out)
            }
        }
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let family = u8::take(input)?;
        let bytes = <[u8; 16]>::take(input)?;
        let [a, b, c, d, ..] = bytes;
        match family {
            IP4 => Ok(Ipv4Addr::new(a, b, c, d).into()),
            IP6 => Ok(Ipv6Addr::from(bytes).into()),
            other => Err(DecodeProblem::Value { value: other.into(), expected: "address_family" }.into()),
        }
    }

    fn initial() -> Self {
        Ipv4Addr::UNSPECIFIED.into()
    }
}

/// An address and how many of its bits count; the others may be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// A prefix longer than its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{address}/{length}: expected a prefix length of 0 to {most}")]
pub struct PrefixTooLong {
    address: IpAddr,
    length: u8,
    most: u8,
}

impl Prefix {
    /// That many bits of the address.
    ///
    /// # Errors
    /// It has not that many.
    pub fn new(address: impl Into<IpAddr>, length: u8) -> Result<Self, PrefixTooLong> {
        let address = address.into();
        let most = if address.is_ipv4() { 32 } else { 128 };
        if length > most { Err(PrefixTooLong { address, length, most }) } else { Ok(Self { address, length }) }
    }

    /// One address.
    pub fn host(address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        Self { address, length: if address.is_ipv4() { 32 } else { 128 } }
    }

    /// With the bits that do not count.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many bits count.
    pub fn length(&self) -> u8 {
        self.length
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Wire for Prefix {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.address.put(out)?;
        self.length.put(out)
    }

    fn take(input: &mut Input<'_>) -> Result<Self, DecodeError> {
        let address = IpAddr::take(input)?;
        let length = u8::take(input)?;
        Self::new(address, length)
            .map_err(|_| DecodeProblem::Value { value: length.into(), expected: "prefix length" }.into())
    }

    fn initial() -> Self {
        Self { address: IpAddr::initial(), length: 0 }
    }
}
