//! What became of a pod's default routes while its networks came, so that a network that goes gives back what it took.
//!
//! Guarantees: results say what is there, at any time; a network that has lost its default route to one that is gone has it again, as it
//! was.

use std::{collections::BTreeMap, net::IpAddr};

use nsm_cni_types::Error;
use nsm_netlink::{DefaultRoute, Family, Hop, IfIndex};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    inside::{Claim, Inside, defaults_of, forget_default, tell_gateway},
    network::Network,
};

/// Of one pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Defaults {
    /// Results as plugins gave them, where they were changed since; by interface.
    #[serde(skip_serializing_if = "Map::is_empty")]
    made: Map<String, Value>,
    /// Gateways that the pod asks for, by interface; empty: there is to be none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    asked: BTreeMap<String, Vec<IpAddr>>,
    /// What was taken away.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    taken: Vec<Taken>,
}

/// A next hop of a default route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Taken {
    /// The network's interface; none: of no network.
    pub(crate) ifname: Option<String>,
    pub(crate) family: Family,
    pub(crate) link: u32,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) onlink: bool,
    pub(crate) metric: Option<u32>,
}

impl Taken {
    pub(crate) fn of(ifname: Option<String>, route: &DefaultRoute, hop: Hop) -> Self {
        Self {
            ifname,
            family: route.family,
            link: hop.index.get(),
            gateway: hop.gateway,
            onlink: hop.onlink,
            metric: route.metric,
        }
    }

    pub(crate) fn hop(&self) -> Option<Hop> {
        let index = IfIndex::new(self.link)?;
        Some(Hop { index, gateway: self.gateway, onlink: self.onlink })
    }
}

impl Defaults {
    /// What the pod asks of its default routes by a network that it has; only that it wants none counts when others come.
    pub(crate) fn wants_none(&self, ifname: &str) -> Option<&[IpAddr]> {
        self.asked.get(ifname).filter(|gateways| gateways.is_empty()).map(Vec::as_slice)
    }

    /// Leaves one default route of each family; `results`, by interface, follow.
    pub(crate) fn settle(
        &mut self,
        inside: &Inside,
        claims: &[Claim<'_>],
        results: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        let before: Vec<Value> =
            claims.iter().map(|claim| results.get(&claim.network.ifname).cloned().unwrap_or_default()).collect();
        let mut after = before.clone();
        self.take(inside.settle_default_routes(claims, &mut after)?);
        for (claim, (before, after)) in claims.iter().zip(before.into_iter().zip(after)) {
            let ifname = &claim.network.ifname;
            if let Some(gateways) = claim.default_route {
                self.asked.insert(ifname.clone(), gateways.to_vec());
            }
            if before != after {
                self.made.entry(ifname.clone()).or_insert(before);
                results.insert(ifname.clone(), after);
            }
        }
        Ok(())
    }

    /// Notes all that [`Self::settle`] may take for the network of this interface, so that it is given back also where whoever settles is
    /// killed on the way.
    pub(crate) fn may_take(
        &mut self,
        ifname: &str,
        inside: &Inside,
        networks: &[Network],
        results: &Map<String, Value>,
    ) -> Result<(), Error> {
        let mut there = inside.defaults_of(networks, results)?;
        there.retain(|taken| taken.ifname.as_deref() != Some(ifname));
        self.take(there);
        Ok(())
    }

    fn take(&mut self, all: Vec<Taken>) {
        for taken in all {
            // What was given back by somebody who was killed then is known still.
            if !self.taken.contains(&taken) {
                self.taken.push(taken);
            }
        }
    }

    /// Gives back what the network of this interface took, to the `others`; it is gone.
    pub(crate) fn give_back(
        &mut self,
        ifname: &str,
        inside: &Inside,
        others: &[Network],
        results: &mut Map<String, Value>,
    ) -> Result<(), Error> {
        self.forget(ifname);
        if others.iter().any(|other| self.wants_none(&other.ifname).is_some()) {
            return Ok(());
        }
        for family in [Family::V4, Family::V6] {
            let taken = |ifname: Option<&str>| -> Vec<Taken> {
                let of_it = |taken: &&Taken| taken.family == family && taken.ifname.as_deref() == ifname;
                self.taken.iter().filter(of_it).cloned().collect()
            };
            if self.taken.iter().all(|taken| taken.family != family) || inside.has_default(family, others, results)? {
                continue;
            }
            let asked = |other: &&Network| self.gateway(&other.ifname, family).is_some();
            let first = others.iter().find(asked);
            let first = first.or_else(|| others.iter().find(|other| !taken(Some(&other.ifname)).is_empty()));
            let mut given = first.map(|first| taken(Some(&first.ifname))).unwrap_or_default();
            // One that no network made had to go for one that was asked for.
            if first.is_none_or(|first| self.gateway(&first.ifname, family).is_none()) {
                given.extend(taken(None));
            }
            inside.add_defaults(&given)?;
            self.taken.retain(|taken| !given.contains(taken));
            if let Some(first) = first {
                self.tell(first, family, results);
            }
        }
        Ok(())
    }

    /// Writes into a network's result that it has the default route again.
    fn tell(&self, network: &Network, family: Family, results: &mut Map<String, Value>) {
        let Some(result) = results.get_mut(&network.ifname) else { return };
        if let Some(gateway) = self.gateway(&network.ifname, family) {
            tell_gateway(result, family, gateway);
            return;
        }
        let Some(made) = self.made.get(&network.ifname) else { return };
        forget_default(result, family);
        defaults_of(made, family, result);
    }

    fn gateway(&self, ifname: &str, family: Family) -> Option<IpAddr> {
        self.asked.get(ifname)?.iter().copied().find(|gateway| Family::of(*gateway) == family)
    }

    fn forget(&mut self, ifname: &str) {
        self.made.remove(ifname);
        self.asked.remove(ifname);
        self.taken.retain(|taken| taken.ifname.as_deref() != Some(ifname));
    }
}
