//! The prefixes that a pod reaches, in few words: what an endpoint is told not to hand out again.
//!
//! Guarantees: an address is in the answer exactly when it is in one of the prefixes given, unless there are more than
//! [`MOST`] that cannot be joined: then the widest are kept and a log line says so (a Request with more would be refused, and
//! an endpoint that gives one of the others is refused when its answer is looked at).

use std::net::IpAddr;

use nsm_netlink::{IfName, IpNetwork, NetnsSocket};

use super::{super::Error, overlap};

/// Most prefixes that a Request names: half of what it may carry, for endpoint and client to add theirs.
const MOST: usize = nsm_sdk::limits::ROUTES / 2;

/// The prefixes that a pod reaches already, less those of the interfaces `aware` only: no endpoint should hand them out again.
pub fn present_prefixes(pod: &mut NetnsSocket, aware: &[IfName]) -> Result<Vec<IpNetwork>, Error> {
    let aware = overlap::found(pod, aware)?;
    Ok(in_few_words(&overlap::Present::read(pod, None, &aware)?.prefixes(), MOST))
}

fn in_few_words(prefixes: &[IpNetwork], most: usize) -> Vec<IpNetwork> {
    let mut joined = joined(prefixes);
    if joined.len() > most {
        tracing::warn!(
            prefixes = joined.len(),
            most,
            "the pod reaches more prefixes than a Request names: an endpoint may choose addresses of the others, and is refused then"
        );
        joined.sort_by_key(narrowness);
        joined.truncate(most);
    }
    joined
}

/// Covered ones go, and two halves become the whole; never everything, which would leave an endpoint nothing.
pub(crate) fn joined(prefixes: &[IpNetwork]) -> Vec<IpNetwork> {
    let mut prefixes: Vec<IpNetwork> = prefixes.iter().filter_map(|prefix| wide(prefix, prefix.prefix())).collect();
    prefixes.sort_by_key(|prefix| (prefix.is_ipv6(), prefix.ip(), prefix.prefix()));
    let mut joined: Vec<IpNetwork> = Vec::new();
    for mut prefix in prefixes {
        if joined.last().is_some_and(|last| covers(last, &prefix)) {
            continue;
        }
        while let Some(whole) = joined.last().and_then(|last| whole(last, &prefix)) {
            joined.pop();
            prefix = whole;
        }
        joined.push(prefix);
    }
    joined
}

fn covers(wide: &IpNetwork, narrow: &IpNetwork) -> bool {
    wide.is_ipv4() == narrow.is_ipv4() && wide.prefix() <= narrow.prefix() && wide.contains(narrow.ip())
}

/// What two prefixes are the halves of.
fn whole(one: &IpNetwork, other: &IpNetwork) -> Option<IpNetwork> {
    if one.prefix() != other.prefix() || one.prefix() <= 1 || one.ip() == other.ip() {
        return None;
    }
    let whole = wide(one, one.prefix() - 1)?;
    covers(&whole, other).then_some(whole)
}

/// The prefix of that length around one, without host bits.
pub(crate) fn wide(prefix: &IpNetwork, length: u8) -> Option<IpNetwork> {
    let wide = IpNetwork::new(prefix.ip(), length).ok()?;
    IpNetwork::new(wide.network(), length).ok()
}

/// Of its family's address space, in 128ths of its length.
fn narrowness(prefix: &IpNetwork) -> u16 {
    match prefix.ip() {
        IpAddr::V4(_) => u16::from(prefix.prefix()) * 4,
        IpAddr::V6(_) => u16::from(prefix.prefix()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNetwork> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn halves_are_joined_and_the_covered_go() {
        let given = networks(&["10.0.1.0/24", "10.0.0.7/24", "10.0.0.128/25", "10.0.2.0/23", "fd00::/65", "fd00::/64"]);
        assert_eq!(joined(&given), networks(&["10.0.0.0/22", "fd00::/64"]));
        let apart = networks(&["10.0.1.0/24", "10.0.2.0/24"]);
        assert_eq!(joined(&apart), apart, "they are no halves of one");
        let everything = networks(&["0.0.0.0/1", "128.0.0.0/1"]);
        assert_eq!(joined(&everything), everything);
    }

    #[test]
    fn ten_thousand_neighbours_are_one_and_strangers_are_bounded() {
        let network = |third: u32, length| IpNetwork::new(IpAddr::from((10 << 24 | third << 8).to_be_bytes()), length);
        let neighbours: Vec<_> = (0..16_384).map(|at| network(at, 24).unwrap()).collect();
        assert_eq!(in_few_words(&neighbours, MOST), networks(&["10.0.0.0/10"]));
        let mut strangers: Vec<_> = (0..2000).map(|at| network(2 * at, 24).unwrap()).collect();
        strangers.extend(networks(&["172.16.0.0/12"]));
        let told = in_few_words(&strangers, MOST);
        assert_eq!(told.len(), MOST);
        assert!(told.contains(&"172.16.0.0/12".parse().unwrap()), "the widest are kept");
    }

    fn any_network() -> impl Strategy<Value = IpNetwork> {
        // Close together, so that they meet.
        let v4 = (0..64_u8, 24..=32_u8)
            .prop_map(|(last, length)| IpNetwork::new(IpAddr::from([10, 0, 0, last * 4]), length).unwrap());
        let v6 = (0..16_u16, 120..=128_u8).prop_map(|(last, length)| {
            IpNetwork::new(IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last * 16]), length).unwrap()
        });
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn the_same_addresses_in_fewer_words(given in prop::collection::vec(any_network(), 0..40), last in any::<u8>()) {
            let told = joined(&given);
            prop_assert!(told.len() <= given.len());
            for address in [IpAddr::from([10, 0, 0, last]), IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, last.into()])] {
                let within = |all: &[IpNetwork]| all.iter().any(|prefix| prefix.contains(address));
                prop_assert_eq!(within(&given), within(&told), "{}: {:?} became {:?}", address, given, told);
            }
            for (at, one) in told.iter().enumerate() {
                for other in &told[at + 1..] {
                    prop_assert!(!covers(one, other) && !covers(other, one) && whole(one, other).is_none());
                }
            }
        }
    }
}
