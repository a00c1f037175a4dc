//! Names of kernel interfaces.

use std::{fmt, str::FromStr};

/// A name that the kernel takes for an interface: 1 to 15 bytes, printable ASCII without space, `/` and `:`; not `.`, `..`,
/// nor `all` and `default`, which sysctl uses; without `%`, which the kernel would replace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InterfaceName(String);

/// Not an [`InterfaceName`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no interface name: expected 1 to 15 bytes of printable ASCII without space, '/', ':' and '%'")]
pub struct InvalidInterfaceName(String);

impl InterfaceName {
    /// Most bytes of a name (`IFNAMSIZ` less its terminating zero).
    pub const MAX: usize = 15;

    /// A name that says the service and is the connection's own: `icmp-r-3f09qk2t`. Of 40 bits of the id's hash, so two
    /// among a thousand connections agree with a probability below one in a million.
    pub fn derived(service: &str, connection: &str) -> Self {
        let service: String = service
            .chars()
            .take_while(|c| *c != '@')
            .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
            .take(6)
            .collect();
        let mut name = if service.is_empty() { "nsm".to_owned() } else { service };
        name.push('-');
        let mut hash = fnv1a(connection.as_bytes());
        hash ^= hash >> 40;
        for _ in 0..8 {
            name.push(char::from(b"0123456789abcdefghjkmnpqrstvwxyz"[usize::try_from(hash & 31).unwrap_or_default()]));
            hash >>= 5;
        }
        Self(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InterfaceName {
    type Err = InvalidInterfaceName;

    fn from_str(text: &str) -> Result<Self, InvalidInterfaceName> {
        let bytes = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'));
        let reserved = matches!(text, "" | "." | ".." | "all" | "default");
        if bytes && !reserved && text.len() <= Self::MAX {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidInterfaceName(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// FNV-1a, 64 bits: the same in every release, unlike the standard library's hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn derived_names_are_valid_stable_and_differ() {
        let names: HashSet<_> =
            (0..10_000).map(|id| InterfaceName::derived("icmp-responder", &id.to_string())).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.as_str().parse().as_ref() == Ok(name)));
        for service in ["", "..", "/%:", "a b", "\u{e4}\u{f6}", "svc@domain", "x"] {
            let name = InterfaceName::derived(service, "id");
            assert_eq!(name.as_str().parse(), Ok(name));
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_refused() {
        for text in ["", ".", "..", "all", "default", "a/b", "a:b", "a b", "a%d", "sixteen-bytes-xx", "\u{e4}"] {
            assert!(text.parse::<InterfaceName>().is_err(), "{text}");
        }
    }
}
