//! Numbers that must not be mixed up: [`Mtu`], [`IfIndex`], [`Nsid`].

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// Largest packet of a link, in bytes, without the Ethernet header: 68 (IPv4's minimum, RFC 791) to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mtu(u32);

/// A number that no Ethernet link takes as its MTU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes is no MTU; expected 68 to 65535")]
pub struct InvalidMtu(u32);

impl Mtu {
    /// Checks a number of bytes.
    pub const fn new(bytes: u32) -> Result<Self, InvalidMtu> {
        if bytes >= 68 && bytes <= 65535 { Ok(Self(bytes)) } else { Err(InvalidMtu(bytes)) }
    }

    /// The number of bytes.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mtu {
    type Error = InvalidMtu;

    fn try_from(bytes: u32) -> Result<Self, InvalidMtu> {
        Self::new(bytes)
    }
}

impl From<Mtu> for u32 {
    fn from(mtu: Mtu) -> Self {
        mtu.0
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A link's number in its namespace. Given again only when the kernel has counted through all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(NonZeroU32);

impl IfIndex {
    /// `None` for 0, which means no link.
    pub const fn new(index: u32) -> Option<Self> {
        match NonZeroU32::new(index) {
            Some(index) => Some(Self(index)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What one namespace (the agent's) calls another: a small number that works without a descriptor of the other one.
///
/// It is valid while the other namespace lives; the kernel gives the lowest free number to the next one. Whoever acts on a
/// number that was stored compares something else as well ([`LinkIdentity`](crate::LinkIdentity) does).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nsid(u32);

impl Nsid {
    /// `None` for negative numbers, by which the kernel says that there is none.
    pub fn new(id: i32) -> Option<Self> {
        u32::try_from(id).ok().map(Self)
    }

    /// The number, as in netlink messages.
    pub fn get(self) -> i32 {
        i32::try_from(self.0).unwrap_or(i32::MAX)
    }
}

impl fmt::Display for Nsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        assert!(Mtu::new(67).is_err() && Mtu::new(65536).is_err());
        assert_eq!(Mtu::new(1500).unwrap().get(), 1500);
        assert!(IfIndex::new(0).is_none());
        assert!(Nsid::new(-1).is_none());
        assert_eq!(Nsid::new(7).unwrap().get(), 7);
    }

    #[test]
    fn stored_as_checked_numbers() {
        assert_eq!(
            serde_json::to_string(&(Mtu::new(1500).unwrap(), IfIndex::new(3), Nsid::new(0))).unwrap(),
            "[1500,3,0]"
        );
        assert!(serde_json::from_str::<Mtu>("1").is_err());
        assert!(serde_json::from_str::<IfIndex>("0").is_err());
        assert!(serde_json::from_str::<Nsid>("-1").is_err());
    }
}
