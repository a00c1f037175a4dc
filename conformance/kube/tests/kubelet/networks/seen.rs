//! What a pod has, and what its status says.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use nsm_kube::definitions::NETWORK_STATUS;
use nsm_kube::{Machine, Mesh, SOON, patiently};
use nsm_lab::Namespace;
use nsm_netlink::{Family, IfName, LinkState, Netns, NetnsSocket};
use serde_json::Value;

fn open(network: &Namespace) -> anyhow::Result<NetnsSocket> {
    Ok(NetnsSocket::open(&Netns::open(network.path())?)?)
}

fn link(socket: &mut NetnsSocket, interface: &str) -> anyhow::Result<LinkState> {
    socket.link_by_name(&IfName::new(interface)?)?.with_context(|| format!("no {interface}"))
}

/// Addresses of an interface that reach beyond its link.
pub(super) fn addresses(network: &Namespace, interface: &str) -> anyhow::Result<Vec<IpAddr>> {
    let mut socket = open(network)?;
    let index = link(&mut socket, interface)?.index;
    let all = socket.addresses()?.into_iter().filter(|address| address.index == index);
    let of_the_link = |address: &IpAddr| matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    Ok(all.map(|address| address.network.ip()).filter(|address| !of_the_link(address)).collect())
}

/// An interface's hardware address.
pub(super) fn mac(network: &Namespace, interface: &str) -> anyhow::Result<String> {
    Ok(link(&mut open(network)?, interface)?.mac.context("no hardware address")?.to_string())
}

/// Interface and gateway of each default route of a family.
pub(super) fn defaults(network: &Namespace, family: Family) -> anyhow::Result<Vec<(String, Option<IpAddr>)>> {
    let mut socket = open(network)?;
    let links = socket.links()?;
    let routes = socket.default_routes()?;
    let hops = routes.iter().filter(|route| route.family == family).flat_map(|route| &route.hops);
    let name = |index| links.iter().find(|link| link.index == index).map(|link| link.name.clone());
    hops.map(|hop| Ok((name(hop.index).context("a link")?, hop.gateway))).collect()
}

/// The entries of a pod's status, when it has so many.
pub(super) fn status(mesh: &Mesh, namespace: &str, pod: &str, count: usize) -> anyhow::Result<Vec<Value>> {
    let entries = || {
        let pod = mesh.pod(namespace, pod)?;
        let text = pod["metadata"]["annotations"][NETWORK_STATUS].as_str().unwrap_or("[]").to_owned();
        Ok(serde_json::from_str::<Vec<Value>>(&text)?)
    };
    patiently("the status of the pod's networks", SOON, entries, |entries| entries.len() == count)
}

/// The status names these networks, and says of each interface what is true of it.
pub(super) fn true_status(
    mesh: &Mesh,
    machine: &Machine,
    (namespace, pod): (&str, &str),
    expected: &[(&str, &str)],
) -> anyhow::Result<Vec<Value>> {
    let network = mesh.network_of(machine, namespace, pod)?;
    let entries = status(mesh, namespace, pod, expected.len())?;
    for (entry, (name, interface)) in entries.iter().zip(expected) {
        ensure!(entry["name"] == *name && entry["interface"] == *interface, "{name} at {interface}: {entries:?}");
        let said: Vec<IpAddr> = serde_json::from_value(entry["ips"].clone())?;
        ensure!(said == addresses(&network, interface)?, "{entry}: {:?}", addresses(&network, interface)?);
        ensure!(entry["mac"] == mac(&network, interface)?, "{entry}: {}", mac(&network, interface)?);
        let gateways: Vec<IpAddr> = serde_json::from_value(entry["gateway"].clone()).unwrap_or_default();
        let mut routes = defaults(&network, Family::V4)?;
        routes.extend(defaults(&network, Family::V6)?);
        let there: Vec<IpAddr> =
            routes.iter().filter(|(name, _)| name == interface).filter_map(|(_, gateway)| *gateway).collect();
        ensure!(gateways == there, "{entry}: {there:?}");
    }
    let default: Vec<&Value> = entries.iter().filter(|entry| entry["default"] == true).collect();
    let of_first = entries.iter().filter(|entry| entry["interface"] == "eth0").collect::<Vec<_>>();
    ensure!(default == of_first, "the first network alone is the default one: {entries:?}");
    Ok(entries)
}
