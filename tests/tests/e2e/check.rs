//! CHECK: what of an attachment is no longer as it was made.

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Namespace, Node, Outcome, Pod};
use nsm_netlink::{IfName, LinkConfig, LinkState, Netlink, Netns, NetnsSocket, Nsid};
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
