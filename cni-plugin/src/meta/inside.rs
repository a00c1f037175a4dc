//! The pod's namespace, looked into and changed: names of interfaces, default routes.
//!
//! Guarantee: at the end the pod has at most one default route of each family of its networks, that of the network which the pod's
//! annotation asks, else of the first one that gave it one; results say what is there. One that no network made goes only where the
//! annotation asks for another, or for none.

use std::net::IpAddr;

use nsm_cni_types::{Error, Route, code};
use nsm_netlink::{DefaultRoute, Family, Hop, IfIndex, NetnsSocket};
use serde_json::{Value, json};

use super::{defaults::Taken, network::Network};
use crate::netns::Netns;

/// The namespace.
pub(crate) struct Inside(nsm_netlink::Netns);

/// A network of the pod and what it asks of the pod's default route.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) network: &'a Network,
    /// Through these gateways; empty: there is to be none.
    pub(crate) default_route: Option<&'a [IpAddr]>,
}

/// Whose the default route of a family is.
enum Owner {
    /// No network has one, and none asks.
    Unknown,
    /// There is to be none.
    Nobody,
    /// A network's, as its plugins made it.
    Made(usize),
    /// A network's, through a gateway.
    Asked(usize, IpAddr),
}

impl Inside {
    pub(crate) fn open(netns: &Netns) -> Result<Self, Error> {
        nsm_netlink::Netns::from_shared(netns.file.clone()).map(Self).map_err(failed)
    }

    /// Refuses names that interfaces of the pod have already.
    pub(crate) fn refuse_taken<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let names: Vec<&str> = names.into_iter().collect();
        let there = self.0.indices(names.iter().copied()).map_err(failed)?;
        match names.iter().zip(there).find(|(_, index)| index.is_some()) {
            Some((name, _)) => {
                let msg = format!("interface {name} exists in the pod already: nothing was changed");
                Err(Error::new(code::CONFLICT, msg))
            }
            None => Ok(()),
        }
    }

    /// Leaves one default route of each family; `results` are the networks', in order. What was taken away. On failure routes are as
    /// before.
    pub(crate) fn settle_default_routes(
        &self,
        claims: &[Claim<'_>],
        results: &mut [Value],
    ) -> Result<Vec<Taken>, Error> {
        let asked = claims.iter().any(|claim| claim.default_route.is_some());
        if !asked && claims.len() < 2 {
            return Ok(Vec::new());
        }
        let mut socket = NetnsSocket::open(&self.0).map_err(failed)?;
        let there = socket.default_routes().map_err(|error| failed_at("its default routes", &error))?;
        // A network has one interface in the pod by its name; plugins that make others are asked what they made.
        let mut indices = Vec::new();
        for (claim, result) in claims.iter().zip(&*results) {
            indices.push(self.indices(&claim.network.ifname, result)?);
        }
        let mut removed = Vec::new();
        let given = give_all(&mut socket, claims, results, &there, &indices, &mut removed);
        let place = |hop: &Hop| indices.iter().position(|of_network| of_network.contains(&hop.index));
        if let Err(error) = given {
            // Of one that was spread over networks, the part of the network that was there first.
            removed.sort_by_key(|(_, hop)| place(hop));
            for (route, hop) in removed {
                // Where it is not gone, or another has come, there is nothing better to do.
                let _ = socket.add_default_route(route.family, hop, route.metric);
            }
            return Err(error);
        }
        let still = socket.default_routes().map_err(|error| failed_at("its default routes", &error))?;
        let is_there = |route: &DefaultRoute, hop: &Hop| {
            still.iter().any(|now| now.family == route.family && now.metric == route.metric && now.hops.contains(hop))
        };
        let taken = removed.into_iter().filter(|(route, hop)| !is_there(route, hop));
        let of = |hop: &Hop| place(hop).map(|place| claims[place].network.ifname.clone());
        Ok(taken.map(|(route, hop)| Taken::of(of(&hop), route, hop)).collect())
    }

    /// The default routes that there are, each with the network that it is of.
    pub(crate) fn defaults_of(
        &self,
        networks: &[Network],
        results: &serde_json::Map<String, Value>,
    ) -> Result<Vec<Taken>, Error> {
        let mut owners = Vec::new();
        for network in networks {
            let result = results.get(&network.ifname).unwrap_or(&Value::Null);
            owners.push((&network.ifname, self.indices(&network.ifname, result)?));
        }
        let of = |hop: &Hop| {
            owners.iter().find(|(_, of_it)| of_it.contains(&hop.index)).map(|(ifname, _)| (*ifname).clone())
        };
        let all = NetnsSocket::open(&self.0).and_then(|mut socket| socket.default_routes());
        let all = all.map_err(|error| failed_at("its default routes", &error))?;
        let hops = all.iter().flat_map(|route| route.hops.iter().map(move |hop| (route, *hop)));
        Ok(hops.map(|(route, hop)| Taken::of(of(&hop), route, hop)).collect())
    }

    /// Whether one of the networks has a default route of that family.
    pub(crate) fn has_default(
        &self,
        family: Family,
        networks: &[Network],
        results: &serde_json::Map<String, Value>,
    ) -> Result<bool, Error> {
        let mut indices = Vec::new();
        for network in networks {
            indices.extend(self.indices(&network.ifname, results.get(&network.ifname).unwrap_or(&Value::Null))?);
        }
        let of_network = |hop: &Hop| indices.contains(&hop.index);
        let all = NetnsSocket::open(&self.0).and_then(|mut socket| socket.default_routes());
        let all = all.map_err(|error| failed_at("its default routes", &error))?;
        Ok(all.iter().any(|route| route.family == family && route.hops.iter().any(of_network)))
    }

    /// Adds default routes that were taken away; those of links that are gone stay away.
    pub(crate) fn add_defaults(&self, all: &[Taken]) -> Result<(), Error> {
        let mut socket = NetnsSocket::open(&self.0).map_err(failed)?;
        let there = socket.default_routes().map_err(|error| failed_at("its default routes", &error))?;
        for one in all {
            let Some(hop) = one.hop() else { continue };
            let is_it = |route: &DefaultRoute| route.family == one.family && route.hops.contains(&hop);
            let at =
                || format!("default route of interface {}, to be given back", one.ifname.as_deref().unwrap_or("?"));
            let is_gone = socket.link(hop.index).map_err(|error| failed_at(&at(), &error))?.is_none();
            if !is_gone && !there.iter().any(is_it) {
                let added = socket.add_default_route(one.family, hop, one.metric);
                added.map_err(|error| failed_at(&at(), &error))?;
            }
        }
        Ok(())
    }

    /// The links that a network made; that of its own name is the last.
    fn indices(&self, ifname: &str, result: &Value) -> Result<Vec<IfIndex>, Error> {
        let made = result["interfaces"].as_array().into_iter().flatten();
        let made = made.filter(|known| known["sandbox"].as_str().is_some_and(|path| !path.is_empty()));
        let names = made.filter_map(|known| known["name"].as_str()).chain([ifname]);
        let found = self.0.indices(names).map_err(|error| failed_at(&format!("interface {ifname}"), &error))?;
        Ok(found.into_iter().flatten().collect())
    }
}

fn give_all<'a>(
    socket: &mut NetnsSocket,
    claims: &[Claim<'_>],
    results: &mut [Value],
    there: &'a [DefaultRoute],
    indices: &[Vec<IfIndex>],
    removed: &mut Vec<(&'a DefaultRoute, Hop)>,
) -> Result<(), Error> {
    for family in [Family::V4, Family::V6] {
        let routes: Vec<&DefaultRoute> = there.iter().filter(|route| route.family == family).collect();
        let owner = owner(claims, family, &routes, indices);
        if matches!(owner, Owner::Unknown) {
            continue;
        }
        give(socket, claims, &routes, indices, (family, &owner), removed)?;
        for (place, result) in results.iter_mut().enumerate() {
            match owner {
                Owner::Made(owner) if owner == place => {}
                Owner::Asked(owner, gateway) if owner == place => tell_gateway(result, family, gateway),
                Owner::Made(_) | Owner::Asked(..) | Owner::Nobody | Owner::Unknown => {
                    forget_default(result, family);
                }
            }
        }
    }
    Ok(())
}

fn give<'a>(
    socket: &mut NetnsSocket,
    claims: &[Claim<'_>],
    routes: &[&'a DefaultRoute],
    indices: &[Vec<IfIndex>],
    (family, owner): (Family, &Owner),
    removed: &mut Vec<(&'a DefaultRoute, Hop)>,
) -> Result<(), Error> {
    let place = |hop: &Hop| indices.iter().position(|of_network| of_network.contains(&hop.index));
    let stays = |hop: &Hop| match owner {
        // What no network made is not theirs.
        Owner::Made(owner) => place(hop).is_none_or(|place| place == *owner),
        Owner::Asked(..) | Owner::Nobody | Owner::Unknown => false,
    };
    for route in routes {
        let kept: Vec<Hop> = route.hops.iter().copied().filter(stays).collect();
        if kept.len() == route.hops.len() {
            continue;
        }
        let whose = route.hops.iter().find_map(place).map_or_else(
            || "default route of no network".to_owned(),
            |place| {
                let network = claims[place].network;
                format!("network {:?}, interface {}: its default route", network.name, network.ifname)
            },
        );
        let changed = |error: nsm_netlink::Error| failed_at(&whose, &error);
        socket.remove_default_route(route).map_err(changed)?;
        removed.extend(route.hops.iter().map(|hop| (*route, *hop)));
        // Of one that was spread over several networks the owner's part stays.
        if let Some(hop) = kept.iter().find(|hop| place(hop).is_some()).or(kept.first()) {
            socket.add_default_route(family, *hop, route.metric).map_err(changed)?;
        }
    }
    let Owner::Asked(place, gateway) = owner else { return Ok(()) };
    let one = claims[*place].network;
    let told = |why: String| {
        let msg = format!("network {:?}, interface {}: default route via {gateway}: {why}", one.name, one.ifname);
        Error::new(code::INVALID_CONFIG, msg)
    };
    let index = indices[*place].last().copied();
    let index = index.ok_or_else(|| told("the network made no interface of that name".to_owned()))?;
    let hop = Hop { index, gateway: Some(*gateway), onlink: false };
    socket.add_default_route(family, hop, None).map_err(|error| told(error.to_string()))
}

fn owner(claims: &[Claim<'_>], family: Family, routes: &[&DefaultRoute], indices: &[Vec<IfIndex>]) -> Owner {
    for (place, claim) in claims.iter().enumerate() {
        let Some(gateways) = claim.default_route else { continue };
        if let Some(gateway) = gateways.iter().find(|gateway| Family::of(**gateway) == family) {
            return Owner::Asked(place, *gateway);
        }
        if gateways.is_empty() {
            return Owner::Nobody;
        }
    }
    let has =
        |place: &usize| routes.iter().flat_map(|route| &route.hops).any(|hop| indices[*place].contains(&hop.index));
    (0..claims.len()).find(has).map_or(Owner::Unknown, Owner::Made)
}

/// What a result calls the default route of a family; results of 0.1.0 and 0.2.0 have their routes elsewhere.
fn routes_of(result: &mut Value, family: Family) -> Option<&mut Vec<Value>> {
    let old = if family == Family::V4 { "ip4" } else { "ip6" };
    if result.get("routes").is_some() {
        return result["routes"].as_array_mut();
    }
    result.get_mut(old)?.get_mut("routes")?.as_array_mut()
}

/// Whether it is what is looked at in the pod: a default route of another table is for what a rule sends there.
fn is_default(route: &Value, family: Family) -> bool {
    let route = serde_json::from_value::<Route>(route.clone());
    route.is_ok_and(|route| route.dst.prefix() == 0 && route.is_main() && Family::of(route.dst.ip()) == family)
}

pub(crate) fn forget_default(result: &mut Value, family: Family) {
    if let Some(routes) = routes_of(result, family) {
        routes.retain(|route| !is_default(route, family));
    }
}

/// Adds the default routes of a family that `from` has.
pub(crate) fn defaults_of(from: &Value, family: Family, into: &mut Value) {
    let mut from = from.clone();
    let from = routes_of(&mut from, family).map(std::mem::take).unwrap_or_default();
    if let Some(routes) = routes_of(into, family) {
        routes.extend(from.into_iter().filter(|route| is_default(route, family)));
    }
}

pub(crate) fn tell_gateway(result: &mut Value, family: Family, gateway: IpAddr) {
    forget_default(result, family);
    let dst = if family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
    let route = json!({"dst": dst, "gw": gateway});
    match routes_of(result, family) {
        Some(routes) => routes.push(route),
        None => match result.as_object_mut() {
            Some(result) if result.contains_key("interfaces") || result.contains_key("ips") => {
                result.insert("routes".to_owned(), json!([route]));
            }
            _ => {}
        },
    }
}

#[expect(clippy::needless_pass_by_value, reason = "as an argument of map_err")]
fn failed(error: nsm_netlink::Error) -> Error {
    Error::new(code::INTERNAL, format!("the pod's network namespace: {error}"))
}

fn failed_at(what: &str, error: &nsm_netlink::Error) -> Error {
    Error::new(code::INTERNAL, format!("the pod's network namespace, {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_of_other_tables_stay() {
        let via = |table: Value| json!({"dst": "0.0.0.0/0", "gw": "10.0.0.1", "table": table});
        let mut result = json!({"routes": [via(json!(100)), via(Value::Null), via(json!(254)), via(json!(0))]});
        forget_default(&mut result, Family::V6);
        assert_eq!(result["routes"].as_array().map(Vec::len), Some(4));
        forget_default(&mut result, Family::V4);
        assert_eq!(result["routes"], json!([via(json!(100))]));
        let mut old = json!({"ip4": {"ip": "10.0.0.2/24", "routes": [{"dst": "0.0.0.0/0"}, {"dst": "10.1.0.0/16"}]}});
        forget_default(&mut old, Family::V4);
        assert_eq!(old["ip4"]["routes"], json!([{"dst": "10.1.0.0/16"}]));
    }
}
