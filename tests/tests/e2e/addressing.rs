//! Addresses of the client's interface.

use anyhow::ensure;
use nsm_lab::{Endpoint, Node, tcp_exchange};
use serde_json::json;

use crate::{IFNAME, SERVICE};

pub(crate) fn ipv6_alone() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).cidr("fd00:1::/64").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let addresses = added.addresses()?;
    ensure!(addresses.len() == 1 && addresses[0].is_ipv6(), "{addresses:?}");
    // At once: no duplicate address detection holds it back.
    let peer = added.peer(true)?;
    pod.ping(peer)?;
    tcp_exchange(pod.namespace(), endpoint.pod().namespace(), peer)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn both_families() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).cidr("[172.16.1.0/24],[fd00:1::/64]").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    ensure!(added.addresses()?.len() == 2, "{}", added.json);
    pod.ping(added.peer(false)?)?;
    pod.ping(added.peer(true)?)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn a_full_pool_frees_what_is_deleted() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    // Room for one pair.
    let _endpoint = Endpoint::of(SERVICE).cidr("172.16.1.0/31").start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&first, IFNAME, &conf)?.ok()?;
    node.cni().add(&second, IFNAME, &conf)?.refused(11)?;
    node.cni().del(&second, IFNAME, &conf)?.ok()?;
    first.ping(added.peer(false)?)?;
    node.cni().del(&first, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)?;
    let added = node.cni().add(&second, IFNAME, &conf)?.ok()?;
    second.ping(added.peer(false)?)?;
    Ok(())
}

pub(crate) fn a_chosen_mac_is_honoured_or_refused() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let mut conf = node.conf(SERVICE);
    conf["capabilities"] = json!({"mac": true});
    conf["runtimeConfig"] = json!({"mac": "02:11:22:33:44:55"});
    let added = node.cni().add(&pod, IFNAME, &conf)?;
    if added.exit == 0 {
        ensure!(added.json["interfaces"][0]["mac"] == "02:11:22:33:44:55", "{}", added.json);
        pod.ping(added.peer(false)?)?;
    } else {
        ensure!(added.json.to_string().contains("mac"), "{}", added.json);
    }
    Ok(())
}
