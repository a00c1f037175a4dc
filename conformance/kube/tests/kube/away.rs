//! Without an API server.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually, registered};

use crate::{SOON, caller};

pub(crate) fn what_was_seen_is_served_and_the_rest_waits() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let _one = Endpoint::of("icmp").name("one").start(node)?;
    let two = Endpoint::of("icmp").name("two").cidr("172.16.2.0/24").start(node)?;
    cluster.stop_apiserver()?;
    let pod = node.pod("client")?;
    let conf = node.conf("icmp");
    let added = node.cni().add(&pod, "nsm-1", &conf)?.ok()?;
    pod.ping(added.peer(false)?)?;
    let error = caller::from(node, node.pod("p")?.namespace(), async |registry| {
        Ok(registry.timeout(SOON).register_endpoint(caller::endpoint("new", "icmp"), None).await.unwrap_err())
    })?;
    ensure!(error.kind() == nsm_sdk::Kind::Unavailable, "{error}");
    ensure!(error.to_string().contains("the Kubernetes API server did not take it, try again"), "{error}");
    let left = two.kill()?;
    eventually("withdrawal on this node", SOON, || registered(node), |names| names == &["one"])?;
    cluster.start_apiserver()?;
    eventually("withdrawal in the cluster", SOON, || Ok(cluster.endpoints()?.len()), |count| *count == 1)?;
    caller::from(node, node.pod("q")?.namespace(), async |registry| {
        registry.register_endpoint(caller::endpoint("new", "icmp"), None).await?;
        Ok(())
    })?;
    ensure!(cluster.endpoints()?.len() == 2);
    drop(left);
    Ok(())
}

pub(crate) fn an_agent_restarts_without_it() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    let _one = Endpoint::of("icmp").name("one").start(&a.node)?;
    let pod = a.node.pod("client")?;
    let conf = a.node.conf("icmp");
    let added = a.node.cni().add(&pod, "nsm-1", &conf)?.ok()?;
    cluster.stop_apiserver()?;
    a.node.kill_agent()?;
    a.node.start_agent()?;
    // Who asks now is told to come again; who has what it asked for keeps it.
    let refused = a.node.cni().add(&a.node.pod("late")?, "nsm-1", &conf)?;
    ensure!(refused.exit != 0 && refused.json["code"] == 11, "{refused:?}");
    ensure!(refused.json.to_string().contains("the registry has not been read yet"), "{refused:?}");
    pod.ping(added.peer(false)?)?;
    cluster.start_apiserver()?;
    eventually("return of the endpoint", 3 * SOON, || registered(&a.node), |names| names == &["one"])?;
    pod.ping(added.peer(false)?)?;
    let late = a.node.pod("later")?;
    let other = a.node.cni().add(&late, "nsm-1", &conf)?.ok()?;
    late.ping(other.peer(false)?)?;
    Ok(())
}

pub(crate) fn an_agent_starts_without_it() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    let mut a = cluster.member("node-a")?;
    cluster.stop_apiserver()?;
    let began = Instant::now();
    a.node.start_agent()?;
    ensure!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    ensure!(caller::known(&a.node)?.is_empty());
    a.node.nsmctl(&["get", "netsvc"])?;
    // An endpoint that starts now is registered when the API server is there.
    let pod = a.node.pod("one")?;
    let _one = Endpoint::of("icmp").name("one").spawn_in(&a.node, pod)?;
    cluster.start_apiserver()?;
    eventually("registration", 3 * SOON, || registered(&a.node), |names| names == &["one"])?;
    ensure!(cluster.endpoints()?.len() == 1);
    Ok(())
}
