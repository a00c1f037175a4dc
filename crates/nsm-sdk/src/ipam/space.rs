//! Addresses of both families as ranges, and the choice of a pair among the free ones.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

use super::{
    pool::{Pair, Wish},
    ranges::Ranges,
};

/// A set of IPv4 and IPv6 addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Space {
    v4: Ranges,
    v6: Ranges,
}

impl Space {
    pub(super) fn insert(&mut self, prefix: IpNetwork) {
        let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
        self.of_mut(prefix.ip()).insert(first, last);
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.of(address).at(number(address)).is_some()
    }

    /// Takes a pair out of the set, from the first of the prefixes that has one: what is wished for, else the lowest even
    /// address with its odd neighbour, else any two.
    pub(super) fn pick(&mut self, prefixes: &[IpNetwork], wish: &Wish, without: &Self) -> Option<Pair> {
        let wished = prefixes.iter().find_map(|prefix| self.pick_wished(*prefix, wish, without));
        wished.or_else(|| prefixes.iter().find_map(|prefix| self.pick_lowest(*prefix, without)))
    }

    fn pick_wished(&mut self, prefix: IpNetwork, wish: &Wish, without: &Self) -> Option<Pair> {
        let fits = |space: &Self, address: IpAddr| {
            prefix.contains(address) && space.contains(address) && !without.contains(address)
        };
        let client = wish.client.iter().copied().find(|address| fits(self, *address));
        if let Some(address) = client {
            self.take(address);
        }
        let endpoint = wish.endpoint.iter().copied().find(|address| fits(self, *address));
        if let Some(address) = endpoint {
            self.take(address);
        }
        // Whoever names one end gets it, with its neighbour or any other address as the other end.
        let other = |space: &mut Self, known: IpAddr| {
            let neighbour = address(number(known) ^ 1, known);
            let other = if fits(space, neighbour) { Some(neighbour) } else { space.lowest(prefix, 1, without) };
            match other {
                Some(other) => space.take(other),
                None => space.insert(known.into()),
            }
            other
        };
        match (client, endpoint) {
            (Some(client), Some(endpoint)) => Some(Pair { endpoint, client }),
            (Some(client), None) => other(self, client).map(|endpoint| Pair { endpoint, client }),
            (None, Some(endpoint)) => other(self, endpoint).map(|client| Pair { endpoint, client }),
            (None, None) => None,
        }
    }

    fn pick_lowest(&mut self, prefix: IpNetwork, without: &Self) -> Option<Pair> {
        let pair = if let Some(endpoint) = self.lowest(prefix, 2, without) {
            self.take(endpoint);
            Pair { endpoint, client: address(number(endpoint) + 1, endpoint) }
        } else {
            let endpoint = self.lowest(prefix, 1, without)?;
            self.take(endpoint);
            let Some(client) = self.lowest(prefix, 1, without) else {
                self.insert(endpoint.into());
                return None;
            };
            Pair { endpoint, client }
        };
        self.take(pair.client);
        Some(pair)
    }

    fn lowest(&self, prefix: IpNetwork, step: u128, without: &Self) -> Option<IpAddr> {
        let (first, last) = (number(prefix.network()), number(prefix.broadcast()));
        let lowest = self.of(prefix.ip()).lowest(first, last, step, without.of(prefix.ip()))?;
        Some(address(lowest, prefix.ip()))
    }

    fn take(&mut self, address: IpAddr) {
        self.of_mut(address).take(number(address));
    }

    fn of(&self, address: IpAddr) -> &Ranges {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }

    fn of_mut(&mut self, address: IpAddr) -> &mut Ranges {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }
}

impl FromIterator<IpNetwork> for Space {
    fn from_iter<T: IntoIterator<Item = IpNetwork>>(prefixes: T) -> Self {
        let mut space = Self::default();
        prefixes.into_iter().for_each(|prefix| space.insert(prefix));
        space
    }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The address of that number, of the family of `like`.
fn address(number: u128, like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) =>
        {
            #[expect(clippy::cast_possible_truncation, reason = "of 32 bits, as it came, and within a prefix")]
            IpAddr::V4(Ipv4Addr::from_bits(number as u32))
        }
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}
