//! GC: by network name, and by what the runtime still knows.

use anyhow::ensure;
use nsm_lab::{Endpoint, Node};

use crate::{IFNAME, SERVICE};

pub(crate) fn frees_what_the_runtime_forgot() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let [kept, forgotten] = [node.pod("kept")?, node.pod("forgotten")?];
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&kept, IFNAME, &conf)?.ok()?;
    node.cni().add(&forgotten, IFNAME, &conf)?.ok()?;

    node.cni().gc(&conf, Some(&[(kept.container(), IFNAME)]))?.ok()?;
    ensure!(node.connections()?.len() == 1);
    kept.ping(added.peer(false)?)?;

    // Present and empty: all of this network.
    node.cni().gc(&conf, Some(&[]))?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn an_absent_list_frees_only_lost_namespaces() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    node.cni().gc(&conf, None)?.ok()?;
    pod.ping(added.peer(false)?)?;
    ensure!(node.connections()?.len() == 1);
    Ok(())
}

pub(crate) fn other_networks_are_left_alone() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let mut other = conf.clone();
    other["name"] = "other".into();
    node.cni().gc(&other, Some(&[]))?.ok()?;
    pod.ping(added.peer(false)?)?;
    Ok(())
}
