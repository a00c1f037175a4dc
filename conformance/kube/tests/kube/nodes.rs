//! Several agents on one API server.

use std::time::Instant;

use anyhow::ensure;
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, eventually, registered};
use nsm_proto::registry::NetworkServiceEndpoint;
use serde_json::json;

use crate::asking::Asking;
use crate::{SOON, caller};

pub(crate) fn see_each_others_endpoints() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (a, b) = (cluster.started("node-a")?, cluster.started("node-b")?);
    let one = Endpoint::of("icmp").name("one").start(&a.node)?;
    let _two = Endpoint::of("icmp").name("two").start(&b.node)?;
    for member in [&a, &b] {
        let both = |names: &Vec<String>| names == &["one", "two"];
        eventually("both endpoints", SOON, || caller::known(&member.node), both)?;
        ensure!(caller::known_services(&member.node)? == ["icmp"]);
    }
    ensure!(registered(&a.node)? == ["one"]);
    let told = a.node.nsmctl(&["describe", "netsvc", "icmp"])?;
    ensure!(told.contains("it is on node node-b; this version connects within a node only"), "{told}");
    // Whoever asks gets the one of its node.
    let pod = a.node.pod("client")?;
    let added = a.node.cni().add(&pod, "nsm-1", &a.node.conf("icmp"))?.ok()?;
    pod.ping(added.peer(false)?)?;
    // A name is one endpoint's in the whole cluster.
    let error = caller::from(&b.node, b.node.pod("p")?.namespace(), async |registry| {
        Ok(registry.register_endpoint(caller::endpoint("one", "icmp"), None).await.unwrap_err().to_string())
    })?;
    ensure!(error.contains("endpoint \"one\" belongs to another node"), "{error}");
    let left = one.kill()?;
    eventually("its end, on the other node", SOON, || caller::known(&b.node), |names| names == &["two"])?;
    drop(left);
    Ok(())
}

pub(crate) fn a_lost_lease_takes_endpoints_along() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let (a, mut b) = (cluster.started("node-a")?, cluster.started("node-b")?);
    let _two = Endpoint::of("icmp").name("two").start(&b.node)?;
    let there = |names: &Vec<String>| names == &["two"];
    eventually("the endpoint", SOON, || caller::known(&a.node), there)?;
    // Cut off, it goes; its own node serves it.
    b.relay.cut();
    eventually("loss of the node", SOON, || caller::known(&a.node), Vec::is_empty)?;
    ensure!(registered(&b.node)? == ["two"] && cluster.endpoints()?.len() == 1);
    b.relay.mend();
    eventually("return of the node", SOON, || caller::known(&a.node), there)?;
    // The agent that observes is cut off: it loses nobody.
    a.relay.cut();
    b.node.kill_agent()?;
    a.relay.mend();
    eventually("loss of the agent", SOON, || caller::known(&a.node), Vec::is_empty)?;
    b.node.start_agent()?;
    eventually("return of the agent", SOON, || caller::known(&a.node), there)?;
    cluster.delete("/apis/coordination.k8s.io/v1/namespaces/nsm-system/leases/nsm-node-b")?;
    eventually(
        "a new lease",
        SOON,
        || cluster.items("/apis/coordination.k8s.io/v1/namespaces/nsm-system/leases"),
        |leases| leases.len() == 2,
    )?;
    eventually("the endpoint of the new lease", SOON, || caller::known(&a.node), there)?;
    Ok(())
}

pub(crate) fn a_killed_agent_knows_its_endpoints_again() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    let one = Endpoint::of("icmp").name("one").start(&a.node)?;
    let pod = a.node.pod("client")?;
    let added = a.node.cni().add(&pod, "nsm-1", &a.node.conf("icmp"))?.ok()?;
    let before = cluster.endpoints()?;
    a.node.kill_agent()?;
    a.node.start_agent()?;
    eventually("the endpoint, to be dialled again", SOON, || registered(&a.node), |names| names == &["one"])?;
    let after = cluster.endpoints()?;
    ensure!(after.len() == 1 && after[0]["metadata"]["uid"] == before[0]["metadata"]["uid"], "{after:?}");
    pod.ping(added.peer(false)?)?;
    let left = one.stop()?;
    eventually("unregistration", SOON, || cluster.endpoints(), Vec::is_empty)?;
    drop(left);
    Ok(())
}

/// Pod and agent ended together, as with a machine whose processes all end: the name is not kept from the same pod.
pub(crate) fn a_pod_made_again_has_its_endpoints_name() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    let plan = Endpoint::of("icmp").name("one");
    let sandbox = {
        let pod = Asking::create(&cluster, &a.node, "default", "gateway", None)?;
        pod.add()?.ok()?;
        pod.sandbox
    };
    let endpoint = plan.start_in(&a.node, sandbox)?;
    let before = cluster.endpoints()?;
    a.node.kill_agent()?;
    drop(endpoint.kill()?);
    a.node.start_agent()?;
    eventually("the endpoint, not reachable", SOON, || caller::known(&a.node), |names| names == &["one"])?;
    // Another pod of the namespace has to wait for the time that the first one has to come back.
    let other = Asking::create(&cluster, &a.node, "default", "other", None)?;
    other.add()?.ok()?;
    let asks = async |registry: nsm_sdk::registry::Registry| {
        let asked = NetworkServiceEndpoint { url: "tcp://10.0.0.1:5001".into(), ..caller::endpoint("one", "icmp") };
        Ok(registry.register_endpoint(asked, None).await.map_err(|error| error.to_string()).err())
    };
    let refused = caller::from(&a.node, other.sandbox.namespace(), asks)?;
    ensure!(refused.as_ref().is_some_and(|why| why.contains("belongs to")), "{refused:?}");
    let again = Asking::again(&cluster, &a.node, "default", "gateway", a.node.pod("gateway")?)?;
    again.add()?.ok()?;
    let began = Instant::now();
    let _endpoint = plan.start_in(&a.node, again.sandbox)?;
    ensure!(began.elapsed() < SOON, "{:?}", began.elapsed());
    let after = cluster.endpoints()?;
    ensure!(after.len() == 1 && after[0]["metadata"]["uid"] == before[0]["metadata"]["uid"], "{after:?}");
    Ok(())
}

pub(crate) fn two_agents_of_one_name_are_told() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let mut a = cluster.started("node-a")?;
    let lease = "/apis/coordination.k8s.io/v1/namespaces/nsm-system/leases/nsm-node-a";
    let holder = || Ok(cluster.get(lease)?["metadata"]["annotations"]["networkservicemesh.io/holder"].clone());
    let first = eventually("a renewal", SOON, holder, serde_json::Value::is_string)?;
    // One that restarts is none.
    a.node.kill_agent()?;
    a.node.start_agent()?;
    eventually("a renewal of the new agent", SOON, holder, |now| *now != first)?;
    let told = "another agent renews the lease of node node-a: node-a another";
    ensure!(!a.node.check()?.contains(told) && !a.node.agent_log().contains("another agent"), "{}", a.node.agent_log());
    let renewal = || {
        cluster.patch(
            lease,
            &json!({ "metadata": { "annotations": { "networkservicemesh.io/holder": "node-a another" } } }),
        )?;
        a.node.check()
    };
    eventually("the finding", SOON, renewal, |check| check.contains(told))?;
    ensure!(a.node.agent_log().contains("another agent has this node's name"), "{}", a.node.agent_log());
    Ok(())
}
