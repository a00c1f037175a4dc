//! Names that Kubernetes takes, and who registered an object, in annotations.

use std::{fmt::Write, str::FromStr};

use nsm_fdpass::InodeId;

use crate::registry::Owner;

/// The node whose agent keeps an endpoint alive, or registered a service for one.
pub(super) const NODE: &str = "networkservicemesh.io/node";
/// Who registered an object there, as [`registrant`] writes it.
pub(super) const REGISTRANT: &str = "networkservicemesh.io/registrant";
/// Which agent has renewed a lease, in an annotation, as leases are watched without their content.
pub(super) const HOLDER: &str = "networkservicemesh.io/holder";
/// Label of the agents' leases.
pub(super) const AGENT: &str = "networkservicemesh.io/agent";

/// Longest part of a name that is kept readable.
const READABLE: usize = 180;

/// A network service's object: called as the service where Kubernetes allows it.
pub(super) fn of_service(name: &str) -> String {
    if is_subdomain(name) { name.to_owned() } else { hashed(name, &[name]) }
}

/// An endpoint's object: another one for another registrant of the same name.
pub(super) fn of_endpoint(name: &str, node: &str, registrant: &str) -> String {
    hashed(name, &[name, node, registrant])
}

/// A node's lease.
pub(super) fn of_lease(node: &str) -> String {
    let name = format!("nsm-{node}");
    if is_subdomain(&name) { name } else { hashed(&name, &[node]) }
}

/// RFC 1123: lower-case letters, digits, dashes and dots, parts that neither begin nor end with a dash.
fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        let inner = part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !part.is_empty() && inner && !part.starts_with('-') && !part.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(part)
}

/// What of the name can be kept, and a hash of all parts.
fn hashed(name: &str, parts: &[&str]) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let readable: String = name.chars().take(READABLE).map(plain).collect();
    let whole = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, parts.join("\0").as_bytes());
    let mut result = readable.trim_matches('-').to_owned();
    if !result.is_empty() {
        result.push('-');
    }
    for byte in &whole.as_bytes()[..5] {
        let _ = write!(result, "{byte:02x}");
    }
    result
}

/// An owner as an annotation: it means something on this machine until it boots again.
pub(super) fn registrant(boot: &str, owner: Owner) -> String {
    match owner {
        Owner::Operator => format!("{boot}/operator"),
        Owner::Elsewhere | Owner::Departed => format!("{boot}/elsewhere"),
        Owner::Peer { netns, uid } => format!("{boot}/{}:{}/{uid}", netns.dev, netns.ino),
        Owner::PodOfHost(pod) => format!("{boot}/pod/{pod}"),
    }
}

/// Whether an annotation, of whatever boot, names the operator.
pub(super) fn is_operator(annotation: &str) -> bool {
    annotation.split_once('/').is_some_and(|(_, who)| who == "operator")
}

/// The owner that an annotation of this boot names.
pub(super) fn owner(boot: &str, annotation: &str) -> Option<Owner> {
    let mut parts = annotation.strip_prefix(boot)?.strip_prefix('/')?.split('/');
    match (parts.next()?, parts.next(), parts.next()) {
        ("operator", None, None) => Some(Owner::Operator),
        ("pod", Some(uid), None) => Some(Owner::PodOfHost(number(uid)?)),
        (netns, Some(uid), None) => {
            let (dev, ino) = netns.split_once(':')?;
            let netns = InodeId { dev: number(dev)?, ino: number(ino)? };
            Some(Owner::Peer { netns, uid: number(uid)? })
        }
        _ => None,
    }
}

fn number<N: FromStr>(text: &str) -> Option<N> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_kept_where_they_can_be() {
        assert_eq!(of_service("icmp-responder.v2"), "icmp-responder.v2");
        assert!(of_service("Icmp_1").starts_with("icmp-1-"));
        assert_ne!(of_service("Icmp_1"), of_service("icmp_1"));
        assert_eq!(of_lease("worker-1"), "nsm-worker-1");
        assert_ne!(of_endpoint("e", "a", "x"), of_endpoint("e", "b", "x"));
    }

    #[test]
    fn owners_are_read_again_in_their_boot_only() {
        let peer = Owner::Peer { netns: InodeId { dev: 4, ino: 4_026_531_840 }, uid: 1000 };
        let of_host = Owner::PodOfHost("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0".parse().unwrap());
        for known in [peer, of_host, Owner::Operator] {
            assert_eq!(owner("b", &registrant("b", known)), Some(known));
            assert_eq!(owner("other", &registrant("b", known)), None);
            assert_eq!(is_operator(&registrant("b", known)), known == Owner::Operator);
        }
        for nonsense in ["b", "b/", "b/1:2", "b/1/2", "b/x:2/3", "b/1:2/3/4", "b/pod/1"] {
            assert_eq!(owner("b", nonsense), None, "{nonsense}");
        }
    }

    proptest! {
        #[test]
        fn every_name_becomes_a_subdomain(name in ".{0,260}") {
            prop_assert!(is_subdomain(&of_service(&name)));
            prop_assert!(is_subdomain(&of_endpoint(&name, "n", "r")));
            prop_assert!(is_subdomain(&of_lease(&name)));
        }
    }
}
