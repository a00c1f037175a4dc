//! Where a DEL is noted that the agent could not take.
//!
//! Guarantee: the name of a note is a function of its attachment, the same for plugin and agent in all versions.

use std::fmt::Write as _;

/// Longest part of a container id that a file name shows.
const SHOWN: usize = 100;

/// Different for different attachments: `@` and `~` are in no container id, and an interface name is escaped.
pub fn file_name(container_id: &str, ifname: &str) -> String {
    let mut name = container_id.get(..SHOWN).unwrap_or(container_id).to_owned();
    if name.len() < container_id.len() {
        let _ = write!(name, "~{:032x}", fnv(container_id.as_bytes()));
    }
    name.push('@');
    for byte in ifname.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name.push_str(".json");
    name
}

/// FNV-1a, 128 bits.
fn fnv(bytes: &[u8]) -> u128 {
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(start, |hash: u128, byte| (hash ^ u128::from(*byte)).wrapping_mul((1 << 88) + 0x13b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fit() {
        assert_eq!(file_name("c-1", "eth0"), "c-1@eth0.json");
        let (a, b) = ("a".repeat(4000), "a".repeat(4001));
        assert_ne!(file_name(&a, "eth0"), file_name(&b, "eth0"));
        assert!(file_name(&a, "€€€€€").len() < 220);
        assert_ne!(file_name("c", "é"), file_name("c", "e"));
    }
}
