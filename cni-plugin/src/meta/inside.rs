//! The pod's namespace, looked into and changed: names of interfaces, default routes.
//!
//! Guarantee: at the end the pod has at most one default route of each family, that of the network which the pod's annotation asks,
//! else of the first one that gave it one; results say what is there.

use std::net::IpAddr;

use nsm_cni_types::{Error, code};
use nsm_netlink::{DefaultRoute, Family, Hop, IfIndex, IfName, NetnsSocket};
use serde_json::{Value, json};

use super::network::Network;
use crate::netns::Netns;

/// The namespace.
pub(crate) struct Inside(NetnsSocket);

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
        let netns = nsm_netlink::Netns::from_shared(netns.file.clone()).map_err(failed)?;
        NetnsSocket::open(&netns).map(Self).map_err(failed)
    }

    /// Refuses names that interfaces of the pod have already.
    pub(crate) fn refuse_taken<'a>(&mut self, names: impl IntoIterator<Item = &'a str>) -> Result<(), Error> {
        let there = self.0.links().map_err(failed)?;
        for name in names {
            if there.iter().any(|link| link.name.as_str() == name) {
                let msg = format!("interface {name} exists in the pod already: nothing was changed");
                return Err(Error::new(code::CONFLICT, msg));
            }
        }
        Ok(())
    }

    /// Leaves one default route of each family; `results` are the networks', in order.
    pub(crate) fn settle_default_routes(&mut self, claims: &[Claim<'_>], results: &mut [Value]) -> Result<(), Error> {
        let asked = claims.iter().any(|claim| claim.default_route.is_some());
        if !asked && claims.len() < 2 {
            return Ok(());
        }
        let there = self.0.default_routes().map_err(failed)?;
        // A network has one interface in the pod by its name; plugins that make others are asked what they made.
        let mut indices = Vec::new();
        for (claim, result) in claims.iter().zip(&*results) {
            indices.push(self.indices(&claim.network.ifname, result)?);
        }
        for family in [Family::V4, Family::V6] {
            let routes: Vec<&DefaultRoute> = there.iter().filter(|route| route.family == family).collect();
            let owner = owner(claims, family, &routes, &indices);
            if matches!(owner, Owner::Unknown) {
                continue;
            }
            self.give(claims, family, &routes, &indices, &owner)?;
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

    fn indices(&mut self, ifname: &str, result: &Value) -> Result<Vec<IfIndex>, Error> {
        let made = result["interfaces"].as_array().into_iter().flatten();
        let made = made.filter(|known| known["sandbox"].as_str().is_some_and(|path| !path.is_empty()));
        let mut names: Vec<&str> = made.filter_map(|known| known["name"].as_str()).collect();
        names.push(ifname);
        let mut indices = Vec::new();
        for name in names.into_iter().filter_map(|name| IfName::new(name).ok()) {
            indices.extend(self.0.link_by_name(&name).map_err(failed)?.map(|link| link.index));
        }
        Ok(indices)
    }

    fn give(
        &mut self,
        claims: &[Claim<'_>],
        family: Family,
        routes: &[&DefaultRoute],
        indices: &[Vec<IfIndex>],
        owner: &Owner,
    ) -> Result<(), Error> {
        let of_owner = |hop: &Hop| match owner {
            Owner::Made(place) => indices[*place].contains(&hop.index),
            Owner::Asked(..) | Owner::Nobody | Owner::Unknown => false,
        };
        for route in routes {
            let kept: Vec<Hop> = route.hops.iter().copied().filter(of_owner).collect();
            if kept.len() == route.hops.len() {
                continue;
            }
            self.0.remove_default_route(route).map_err(failed)?;
            // Of one that was spread over several networks the owner's part stays.
            if let Some(hop) = kept.first() {
                self.0.add_default_route(family, *hop, route.metric).map_err(failed)?;
            }
        }
        let Owner::Asked(place, gateway) = owner else { return Ok(()) };
        let one = claims[*place].network;
        let told = |why: String| {
            let msg = format!("network {:?}, interface {}: default route via {gateway}: {why}", one.name, one.ifname);
            Error::new(code::INVALID_CONFIG, msg)
        };
        let name = IfName::new(one.ifname.as_str()).map_err(|error| told(error.to_string()))?;
        let link = self.0.link_by_name(&name).map_err(failed)?;
        let link = link.ok_or_else(|| told("the network made no interface of that name".to_owned()))?;
        let hop = Hop { index: link.index, gateway: Some(*gateway), onlink: false };
        self.0.add_default_route(family, hop, None).map_err(|error| told(error.to_string()))
    }
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

fn is_default(route: &Value, family: Family) -> bool {
    let (address, length) = route["dst"].as_str().and_then(|dst| dst.split_once('/')).unwrap_or_default();
    length == "0" && address.parse::<IpAddr>().is_ok_and(|address| Family::of(address) == family)
}

fn forget_default(result: &mut Value, family: Family) {
    if let Some(routes) = routes_of(result, family) {
        routes.retain(|route| !is_default(route, family));
    }
}

fn tell_gateway(result: &mut Value, family: Family, gateway: IpAddr) {
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
    Error::new(code::INTERNAL, format!("in the pod's network namespace: {error}"))
}
