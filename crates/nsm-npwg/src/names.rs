//! What names and addresses may look like.

/// Longest name of a Kubernetes object, and of a namespace, in bytes.
const LONGEST: (usize, usize) = (253, 63);

pub(crate) const OBJECT: &str = "lower-case letters, digits, '-' and '.', as names of objects are";
pub(crate) const NAMESPACE: &str = "lower-case letters, digits and '-', as names of namespaces are";
pub(crate) const INTERFACE: &str =
    "the name of an interface: at most 15 bytes, without '/', ':', '%' and spaces, not lo, all or default";
pub(crate) const MAC: &str = "6 bytes in hexadecimal with colons between, of one station: 02:00:00:00:00:01";
pub(crate) const GUID: &str = "8 bytes in hexadecimal with colons between: 24:8a:07:03:00:8d:ae:2e";

/// A DNS-1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

/// The name of a namespace.
pub(crate) fn is_namespace(text: &str) -> bool {
    text.len() <= LONGEST.1 && is_label(text)
}

/// The name of an object: DNS-1123 labels with dots between.
pub(crate) fn is_object(text: &str) -> bool {
    text.len() <= LONGEST.0 && text.split('.').all(is_label)
}

/// The name of an interface to be made; `lo` is every pod's.
pub(crate) fn is_interface(text: &str) -> bool {
    let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'%' | b'/' | b':'));
    plain && text.len() <= 15 && !matches!(text, "" | "." | ".." | "lo" | "all" | "default")
}

/// Bytes in hexadecimal with one separator, `:` or `-`, between.
fn bytes_of(text: &str) -> Option<Vec<u8>> {
    let separator = if text.contains('-') { '-' } else { ':' };
    let hex = |part: &str| {
        let sound = part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit());
        sound.then(|| u8::from_str_radix(part, 16).ok()).flatten()
    };
    text.split(separator).map(hex).collect()
}

/// A hardware address that an interface can have.
pub(crate) fn is_mac(text: &str) -> bool {
    let sound = |bytes: Vec<u8>| bytes.len() == 6 && bytes[0] & 1 == 0 && bytes.iter().any(|byte| *byte != 0);
    bytes_of(text).is_some_and(sound)
}

/// An InfiniBand GUID.
pub(crate) fn is_guid(text: &str) -> bool {
    bytes_of(text).is_some_and(|bytes| bytes.len() == 8 && bytes.iter().any(|byte| *byte != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_and_the_api_server_take() {
        for (name, sound) in [("a", true), ("a-b.c0", true), ("", false), ("A", false), ("a.", false), ("-a", false)] {
            assert_eq!(is_object(name), sound, "{name:?}");
        }
        assert!(!is_namespace("a.b") && !is_namespace(&"a".repeat(64)) && is_namespace("kube-system"));
        for (name, sound) in [("net1", true), ("a.b", true), ("lo", false), ("a b", false), ("sixteen-bytes-xx", false)]
        {
            assert_eq!(is_interface(name), sound, "{name:?}");
        }
        for (mac, sound) in [
            ("02:00:00:00:00:01", true),
            ("02-00-00-00-00-0A", true),
            ("01:00:00:00:00:01", false),
            ("00:00:00:00:00:00", false),
            ("02:00:00:00:00", false),
            ("2:0:0:0:0:1", false),
            ("02:00:00:00:00:+1", false),
        ] {
            assert_eq!(is_mac(mac), sound, "{mac:?}");
        }
        assert!(is_guid("24:8a:07:03:00:8d:ae:2e") && !is_guid("24:8a:07:03:00:8d"));
    }
}
