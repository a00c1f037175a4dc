//! Several agents on one machine.

use std::time::Duration;

use anyhow::ensure;
use nsm_lab::{Endpoint, Node};

use crate::{IFNAME, SERVICE};

pub(crate) fn two_on_one_machine() -> anyhow::Result<()> {
    let nodes = [Node::start("node-1")?, Node::start("node-2")?];
    let mut standing = Vec::new();
    for node in &nodes {
        let endpoint = Endpoint::of(SERVICE).name(&format!("{}-endpoint", node.name())).start(node)?;
        let pod = node.pod("client")?;
        let added = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
        standing.push((endpoint, pod, added));
    }
    // The same names, addresses and interfaces, and nothing in common.
    for (node, (_, pod, added)) in nodes.iter().zip(&standing) {
        pod.ping(added.peer(false)?)?;
        ensure!(node.connections()?.len() == 1);
    }
    nodes[0].cni().del(&standing[0].1, IFNAME, &nodes[0].conf(SERVICE))?.ok()?;
    standing[1].1.ping(standing[1].2.peer(false)?)?;
    Ok(())
}

/// It would take the first one's wires for its own, and close them.
pub(crate) fn a_second_agent_on_a_run_directory_refuses() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let other = Node::create("node-2")?;
    std::fs::remove_dir(other.run_dir())?;
    std::os::unix::fs::symlink(node.run_dir(), other.run_dir())?;
    let mut second = other.spawn_agent(|command| command)?;
    let status = second.ended(Duration::from_secs(5))?;
    ensure!(!status.success());
    ensure!(second.log().contains("is in use by another process"), "{}", second.log());
    Ok(())
}

pub(crate) fn a_second_agent_on_a_socket_refuses() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut second = node.spawn_agent(|command| command)?;
    let status = second.ended(Duration::from_secs(5))?;
    ensure!(!status.success());
    ensure!(second.log().contains("cni.sock"), "it does not name the socket: {}", second.log());
    node.cni().status(&node.conf(SERVICE))?.ok()?;
    Ok(())
}
