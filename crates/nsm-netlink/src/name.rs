//! [`IfName`]: a name the kernel takes for an interface as it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest interface name, in bytes (the kernel's `IFNAMSIZ` less the terminator).
const MAX_BYTES: usize = 15;

/// The name of a network interface: 1 to 15 printable ASCII characters, none of `/`, `:`, `%`, and neither `.`, `..`, `all` nor
/// `default`.
///
/// The kernel would take a few names more (bytes above 127) and would read a `%` as a template; neither is wanted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct IfName(String);

/// Why a text is no interface name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIfName {
    /// Nothing at all.
    #[error("an interface name is empty; expected 1 to 15 characters")]
    Empty,
    /// More than 15 bytes.
    #[error("interface name {0:?} has {len} bytes; expected at most 15", len = .0.len())]
    TooLong(String),
    /// `.` or `..`: they would be directories in the kernel's file systems. `all` or `default`: there, their settings are those of all
    /// interfaces.
    #[error("{0:?} is not allowed as an interface name")]
    Reserved(String),
    /// A character that the kernel refuses or interprets.
    #[error(
        "interface name {name:?} contains {character:?}; expected printable ASCII without '/', ':', '%' and spaces"
    )]
    Character {
        /// The whole text.
        name: String,
        /// The first character that is wrong in it.
        character: char,
    },
}

impl IfName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidIfName> {
        let name = name.into();
        if name.is_empty() {
            return Err(InvalidIfName::Empty);
        }
        if let Some(character) = name.chars().find(|c| !c.is_ascii_graphic() || matches!(c, '/' | ':' | '%')) {
            return Err(InvalidIfName::Character { name, character });
        }
        if name.len() > MAX_BYTES {
            return Err(InvalidIfName::TooLong(name));
        }
        if matches!(name.as_str(), "." | ".." | "all" | "default") {
            return Err(InvalidIfName::Reserved(name));
        }
        Ok(Self(name))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IfName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for IfName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for IfName {
    type Err = InvalidIfName;

    fn from_str(name: &str) -> Result<Self, InvalidIfName> {
        Self::new(name)
    }
}

impl TryFrom<String> for IfName {
    type Error = InvalidIfName;

    fn try_from(name: String) -> Result<Self, InvalidIfName> {
        Self::new(name)
    }
}

impl TryFrom<&str> for IfName {
    type Error = InvalidIfName;

    fn try_from(name: &str) -> Result<Self, InvalidIfName> {
        Self::new(name)
    }
}

impl From<IfName> for String {
    fn from(name: IfName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_the_kernel_takes() {
        for name in ["a", "eth0", "nsm-1", "eth0.100", "veth@x", "a23456789012345", "..."] {
            assert_eq!(IfName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        assert_eq!(IfName::new(""), Err(InvalidIfName::Empty));
        assert_eq!(IfName::new("a234567890123456"), Err(InvalidIfName::TooLong("a234567890123456".into())));
        for name in [".", "..", "all", "default"] {
            assert_eq!(IfName::new(name), Err(InvalidIfName::Reserved(name.into())));
        }
        for (name, character) in
            [("a/b", '/'), ("a:1", ':'), ("a b", ' '), ("eth%d", '%'), ("a\n", '\n'), ("ä", 'ä'), ("a\0", '\0')]
        {
            assert_eq!(IfName::new(name), Err(InvalidIfName::Character { name: name.into(), character }));
        }
    }

    #[test]
    fn is_checked_when_deserialized() {
        assert_eq!(serde_json::from_str::<IfName>("\"eth0\"").unwrap().as_str(), "eth0");
        assert!(serde_json::from_str::<IfName>("\"../eth0\"").is_err());
    }
}
