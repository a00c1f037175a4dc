//! Addresses of the client's interface.

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, tcp_exchange};
use nsm_netlink::{IfName, Netns, NetnsSocket};
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

pub(crate) fn a_chosen_mac_is_honoured() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let mut conf = node.conf(SERVICE);
    conf["capabilities"] = json!({"mac": true});
    conf["runtimeConfig"] = json!({"mac": "02:11:22:33:44:55"});
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    ensure!(added.json["interfaces"][0]["mac"] == "02:11:22:33:44:55", "{}", added.json);
    let mut socket = NetnsSocket::open(&Netns::open(pod.namespace().path())?)?;
    let link = socket.link_by_name(&IfName::new(IFNAME)?)?.context("no interface")?;
    ensure!(link.mac == Some("02:11:22:33:44:55".parse()?), "{link:?}");
    pod.ping(added.peer(false)?)?;

    // One that no interface can have is refused by its name.
    let before = node.leftovers()?;
    conf["runtimeConfig"] = json!({"mac": "01:00:5e:00:00:01"});
    let refused = node.cni().add(&node.pod("other")?, IFNAME, &conf)?.refused(7)?;
    ensure!(refused.contains("runtimeConfig.mac") && refused.contains("01:00:5e:00:00:01"), "{refused}");
    node.nothing_left(&before)
}

/// The configuration of a pod that asks for these addresses.
fn asking(node: &Node, ips: &[&str]) -> serde_json::Value {
    let mut conf = node.conf(SERVICE);
    conf["capabilities"] = json!({"ips": true});
    conf["runtimeConfig"] = json!({ "ips": ips });
    conf
}

pub(crate) fn chosen_addresses_are_honoured_or_refused() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).cidr("172.16.1.0/24").start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let conf = asking(&node, &["172.16.1.77/32"]);
    let added = node.cni().add(&first, IFNAME, &conf)?.ok()?;
    ensure!(added.addresses()? == ["172.16.1.77".parse::<std::net::IpAddr>()?], "{}", added.json);
    first.ping(added.peer(false)?)?;

    let before = node.leftovers()?;
    // Taken; of no pool of the endpoint's; one of two that are asked for; of a family that the endpoint has not.
    for (ips, named) in [
        (&["172.16.1.77"][..], "172.16.1.77"),
        (&["10.99.0.1"], "10.99.0.1"),
        (&["172.16.1.99", "172.16.1.77"], "172.16.1.77"),
        (&["172.16.1.99", "fd00::99"], "fd00::99"),
    ] {
        let refused = node.cni().add(&second, IFNAME, &asking(&node, ips))?.refused(100)?;
        ensure!(refused.contains(named), "{named} is not named: {refused}");
        node.nothing_left(&before)?;
    }
    // What was refused is nobody's: it can be had a moment later.
    let free = asking(&node, &["172.16.1.99"]);
    node.cni().add(&second, IFNAME, &free)?.ok()?;
    node.cni().del(&second, IFNAME, &free)?.ok()?;
    node.cni().del(&first, IFNAME, &conf)?.ok()?;
    Ok(())
}

pub(crate) fn a_chosen_address_chooses_the_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _one = Endpoint::of(SERVICE).name("one").cidr("172.16.1.0/24").start(&node)?;
    let _two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    // Round robin: one of the two begins with the endpoint that cannot grant it.
    for _ in 0..2 {
        let conf = asking(&node, &["172.16.2.9"]);
        let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
        ensure!(added.addresses()? == ["172.16.2.9".parse::<std::net::IpAddr>()?], "{}", added.json);
        pod.ping(added.peer(false)?)?;
        node.cni().del(&pod, IFNAME, &conf)?.ok()?;
        node.nothing_left(&before)?;
    }
    Ok(())
}
