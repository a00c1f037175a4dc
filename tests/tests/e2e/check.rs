//! CHECK: what of an attachment is no longer as it was made.

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Namespace, Node, Outcome, Pod};
use nsm_netlink::{IfName, IpNetwork, LinkConfig, LinkState, Neighbour, Netlink, Netns, NetnsSocket, Nsid, Route};
use serde_json::Value;

use crate::{IFNAME, SERVICE};

/// A node, its endpoint, a connected pod, the configuration and ADD's result.
fn connected() -> anyhow::Result<(Node, Endpoint, Pod, Value, Outcome)> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    Ok((node, endpoint, pod, conf, added))
}

fn link(namespace: &Namespace) -> anyhow::Result<(NetnsSocket, LinkState)> {
    let mut socket = NetnsSocket::open(&Netns::open(namespace.path())?)?;
    let link = socket.link_by_name(&IfName::new(IFNAME)?)?.context("no interface")?;
    Ok((socket, link))
}

pub(crate) fn whole_is_well() -> anyhow::Result<()> {
    let (node, _endpoint, pod, conf, added) = connected()?;
    let checked = node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;
    ensure!(checked.json.is_null(), "CHECK printed {}", checked.json);
    // Without the attachment it is an error.
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    ensure!(node.cni().check(&pod, IFNAME, &conf, &added.json)?.exit != 0);
    Ok(())
}

pub(crate) fn a_removed_address_is_found() -> anyhow::Result<()> {
    let (node, _endpoint, pod, conf, added) = connected()?;
    let address = added.json["ips"][0]["address"].as_str().context("no address")?;
    let (mut socket, link) = link(pod.namespace())?;
    let with = LinkConfig { up: true, addresses: vec![address.parse()?], ..LinkConfig::default() };
    let without = LinkConfig { up: true, ..LinkConfig::default() };
    socket.reconfigure(link.index, &with, &without)?;
    let checked = node.cni().check(&pod, IFNAME, &conf, &added.json)?;
    ensure!(checked.exit != 0 && checked.json.to_string().contains(address), "{}", checked.json);
    Ok(())
}

pub(crate) fn a_removed_link_is_found() -> anyhow::Result<()> {
    let (node, _endpoint, pod, conf, added) = connected()?;
    let (_, link) = link(pod.namespace())?;
    let netlink = Netlink::open()?;
    let nsid: Nsid = netlink.nsid(&Netns::open(pod.namespace().path())?)?;
    let identity =
        nsm_netlink::LinkIdentity { nsid, index: link.index, mac: link.mac.context("no MAC")?, alias: link.alias };
    netlink.delete_link(&identity)?;
    let checked = node.cni().check(&pod, IFNAME, &conf, &added.json)?;
    ensure!(checked.exit != 0, "{}", checked.json);
    Ok(())
}

/// Takes a part of the endpoint's end away; CHECK names it.
fn is_found_at_the_endpoint(take: impl FnOnce(&mut LinkConfig) -> String) -> anyhow::Result<()> {
    let (node, endpoint, pod, conf, added) = connected()?;
    let (mut socket, link) = link_like(endpoint.pod().namespace())?;
    let peer = IpNetwork::from(added.peer(false)?);
    let client = IpNetwork::from(added.addresses()?[0]);
    let mac = added.json["interfaces"][0]["mac"].as_str().context("no MAC")?.parse()?;
    let whole = LinkConfig {
        up: true,
        addresses: vec![peer],
        routes: vec![Route::on_link(client)],
        neighbours: vec![Neighbour { ip: client.ip(), mac }],
        ..LinkConfig::default()
    };
    let mut less = whole.clone();
    let named = take(&mut less);
    socket.reconfigure(link.index, &whole, &less)?;
    let checked = node.cni().check(&pod, IFNAME, &conf, &added.json)?.refused(104)?;
    ensure!(checked.contains("at the endpoint") && checked.contains(&named), "{checked}");
    Ok(())
}

pub(crate) fn the_endpoints_address_is_looked_at() -> anyhow::Result<()> {
    is_found_at_the_endpoint(|config| config.addresses.remove(0).to_string())
}

pub(crate) fn the_endpoints_route_is_looked_at() -> anyhow::Result<()> {
    is_found_at_the_endpoint(|config| config.routes.remove(0).destination.to_string())
}

pub(crate) fn the_endpoints_neighbour_is_looked_at() -> anyhow::Result<()> {
    is_found_at_the_endpoint(|config| config.neighbours.remove(0).mac.to_string())
}

/// The endpoint's end: of the loopback and it, the one with an alias.
fn link_like(namespace: &Namespace) -> anyhow::Result<(NetnsSocket, LinkState)> {
    let mut socket = NetnsSocket::open(&Netns::open(namespace.path())?)?;
    let link = socket.links()?.into_iter().find(|link| link.alias.is_some()).context("no interface of the agent's")?;
    Ok((socket, link))
}
