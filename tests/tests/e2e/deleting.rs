//! DEL: always 0, always quick, nothing left.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nsm_lab::{Endpoint, Node};

use crate::{IFNAME, SERVICE};

pub(crate) fn twice_before_and_after_everything() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    // Before any ADD, and after one that failed for want of an endpoint.
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.cni().add(&pod, IFNAME, &conf)?.refused(11)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn after_the_namespace_is_gone() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let pod = node.pod("client")?;
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let (container, netns) = (pod.container().to_owned(), pod.namespace().path().to_owned());
    drop(pod);
    let mut call = nsm_lab::Call {
        command: "DEL",
        container: &container,
        ifname: IFNAME,
        stdin: conf.to_string(),
        ..Default::default()
    };
    node.cni().call(&call)?.ok()?;
    call.netns = Some(netns);
    node.cni().call(&call)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn with_another_configuration() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    let mut conf = node.conf("another");
    conf["name"] = "renamed".into();
    conf["unheardOf"] = 1.into();
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn during_add() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).program("nsm-hostile").set("NSM_MISBEHAVIOUR", "hang").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["timeoutSeconds"] = 3.into();
    thread::scope(|scope| -> anyhow::Result<()> {
        let adding = scope.spawn(|| node.cni().add(&pod, IFNAME, &conf));
        nsm_lab::eventually("a record", Duration::from_secs(2), || Ok(node.connections()?.len()), |n| *n == 1)?;
        let deleted = node.cni().del(&pod, IFNAME, &conf)?.ok()?;
        ensure!(deleted.took < Duration::from_secs(1), "DEL took {:?}", deleted.took);
        let added = adding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        ensure!(added.exit != 0, "ADD succeeded although it was deleted meanwhile: {}", added.json);
        Ok(())
    })?;
    node.nothing_left(&before)
}

pub(crate) fn a_namespace_that_vanishes_is_noticed() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    ensure!(fs::exists(pod.namespace().path())?);
    drop(pod);
    node.nothing_left(&before)
}
