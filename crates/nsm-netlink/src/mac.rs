//! [`Mac`]: an Ethernet address, six bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An Ethernet address, written `02:00:5e:10:00:01`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no Ethernet address; expected six bytes like 02:00:5e:10:00:01")]
pub struct InvalidMac(String);

impl Mac {
    /// A new unicast address of the locally administered kind, from the kernel's random numbers: 46 bits that nobody else has.
    pub fn random() -> Self {
        let mut octets = [0; 6];
        getrandom::fill(&mut octets).expect("the kernel gives random numbers");
        octets[0] = octets[0] & !0x01 | 0x02;
        Self(octets)
    }

    /// The six bytes, as on the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// The address in the kernel's bytes; `None` for links whose addresses are not six bytes long.
    pub(crate) fn from_kernel(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, octet) in self.0.iter().enumerate() {
            write!(f, "{}{octet:02x}", if at == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mac({self})")
    }
}

impl FromStr for Mac {
    type Err = InvalidMac;

    fn from_str(text: &str) -> Result<Self, InvalidMac> {
        let invalid = || InvalidMac(text.to_owned());
        let mut octets = [0; 6];
        let mut parts = text.split(':');
        for octet in &mut octets {
            let part = parts.next().ok_or_else(invalid)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(invalid());
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        if parts.next().is_some() { Err(invalid()) } else { Ok(Self(octets)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = InvalidMac;

    fn try_from(text: String) -> Result<Self, InvalidMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let mac: Mac = "02:00:5E:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        assert_eq!(serde_json::to_string(&mac).unwrap(), "\"02:00:5e:10:00:ff\"");
    }

    #[test]
    fn refuses_the_rest() {
        for text in
            ["", "02:00:5e:10:00", "02:00:5e:10:00:01:02", "02-00-5e-10-00-01", "2:0:5:1:0:1", "02:00:5e:10:00:+1"]
        {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn random_ones_are_local_unicast_and_differ() {
        let (one, two) = (Mac::random(), Mac::random());
        assert_eq!(one.octets()[0] & 0x03, 0x02);
        assert_ne!(one, two);
    }
}
