//! The network-status annotation, NPWG section 5.2: what is told of an attachment, from its result.
//!
//! Guarantees: addresses and gateways are at the interface that has them; what is not there is absent, never empty text; a result of
//! several interfaces in the pod has an entry for each; one that says nothing of the pod has none.

use std::net::IpAddr;

use nsm_cni_types::{Answer, Dns, Interface, Ip, Version};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use nsm_cni_types::pods::NETWORK_STATUS;

/// One interface of a pod.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The network: `namespace/name`, or the default network's own name.
    pub name: String,
    /// The interface in the pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub interface: String,
    /// Addresses without prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<IpAddr>,
    /// The hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether it is the default network's.
    #[serde(default, skip_serializing_if = "is_false")]
    pub default: bool,
    /// Of the result.
    #[serde(default)]
    pub dns: Value,
    /// The device, as its file describes it.
    #[serde(rename = "device-info", default, skip_serializing_if = "Option::is_none")]
    pub device_info: Option<Value>,
    /// Gateways of default routes through the interface.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gateway: Vec<IpAddr>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// The entries of one attachment.
pub fn entries(name: &str, ifname: &str, is_default: bool, device_info: Option<Value>, result: &Answer) -> Vec<Entry> {
    let in_pod = |(_, one): &(usize, &Interface)| one.sandbox.as_deref().is_some_and(|path| !path.is_empty());
    let places: Vec<usize> = result.interfaces.iter().enumerate().filter(in_pod).map(|(place, _)| place).collect();
    let dns = dns(&result.dns);
    let bare = Entry { name: name.to_owned(), dns, device_info, ..Entry::default() };
    let mut all: Vec<Entry> = match &*places {
        [] => {
            // Results of the oldest versions name no interfaces; of others it is known that the pod has none.
            let interface = if result.version() <= Version::V0_2_0 { ifname } else { "" };
            let ips = bare_ips(result.ips.iter());
            // A device that is no interface is the pod's too.
            let is_said = !interface.is_empty() || !ips.is_empty() || bare.device_info.is_some();
            is_said.then(|| Entry { interface: interface.to_owned(), ips, ..bare }).into_iter().collect()
        }
        [place] => {
            let of_host = |ip: &&Ip| ip.interface.is_some_and(|other| other != *place);
            let ips = bare_ips(result.ips.iter().filter(|ip| !of_host(ip)));
            vec![entry(&bare, result.interfaces.get(*place), ips)]
        }
        several => {
            let last = several.last().copied();
            let of = |place: usize| result.ips.iter().filter(move |ip| ip.interface.or(last) == Some(place));
            several.iter().map(|place| entry(&bare, result.interfaces.get(*place), bare_ips(of(*place)))).collect()
        }
    };
    for (gateway, place) in gateways(result, &places) {
        if let Some(entry) = all.get_mut(place).filter(|entry| !entry.gateway.contains(&gateway)) {
            entry.gateway.push(gateway);
        }
    }
    if is_default {
        let place = all.iter().position(|entry| !entry.gateway.is_empty()).unwrap_or(0);
        all.iter_mut().skip(place).take(1).for_each(|entry| entry.default = true);
    }
    all
}

fn entry(bare: &Entry, interface: Option<&Interface>, ips: Vec<IpAddr>) -> Entry {
    let Some(interface) = interface else { return bare.clone() };
    Entry {
        interface: interface.name.clone(),
        ips,
        mac: interface.mac.clone().unwrap_or_default(),
        mtu: interface.mtu.filter(|mtu| *mtu > 0),
        ..bare.clone()
    }
}

fn bare_ips<'a>(ips: impl Iterator<Item = &'a Ip>) -> Vec<IpAddr> {
    ips.map(|ip| ip.address.ip()).collect()
}

/// Gateways of default routes, with the place among the entries of the interface that they are reached through.
fn gateways(result: &Answer, places: &[usize]) -> Vec<(IpAddr, usize)> {
    let defaults = result.routes.iter().filter(|route| route.dst.prefix() == 0 && route.is_main());
    defaults
        .filter_map(|route| {
            let same_family = |ip: &&Ip| ip.address.is_ipv4() == route.dst.is_ipv4();
            // A route without one goes through the address' own.
            let of_route = route.gw.filter(|gateway| !gateway.is_unspecified());
            let gateway = of_route.or_else(|| result.ips.iter().filter(same_family).find_map(|ip| ip.gateway))?;
            let reaches = |ip: &&Ip| ip.gateway == Some(gateway) || ip.address.contains(gateway);
            let interface = result.ips.iter().filter(same_family).find(reaches).and_then(|ip| ip.interface);
            let place = places.iter().position(|place| Some(*place) == interface);
            Some((gateway, place.unwrap_or(places.len().saturating_sub(1))))
        })
        .collect()
}

fn dns(dns: &Dns) -> Value {
    serde_json::to_value(dns).unwrap_or_default()
}

#[cfg(test)]
mod tests;
