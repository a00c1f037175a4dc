//! Addresses of the cluster are given to nobody by network services.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, Node, eventually};
use serde_json::json;

use crate::SOON;

/// What the agent would ask for.
fn asks(node: &Node, prefix: &str) -> anyhow::Result<()> {
    let pod = node.pod("planned")?;
    let path = pod.namespace().path().display().to_string();
    let plan = || node.nsmctl(&["plan", "icmp", "--netns", &path]);
    eventually(&format!("{prefix} to be excluded"), SOON, plan, |plan| plan.contains(prefix)).map(drop)
}

pub(crate) fn are_those_of_pods_and_services() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    let machine = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": "far-away" },
        "spec": { "podCIDR": "10.233.7.0/24", "podCIDRs": ["10.233.7.0/24", "fd00:233:7::/64"] },
    });
    cluster.create(&machine)?.map_err(anyhow::Error::msg)?;
    let mut member = cluster.member("node-a")?;
    member.node.set("NSM_EXCLUDED_PREFIX", "10.234.0.0/30,192.0.2.0/24").start_agent()?;
    let node = &member.node;
    // The service CIDR of the API server, the far node's, and the operator's: each pool begins within one, and ends outside.
    for (service, pool, first) in [
        ("services", "10.232.0.0/15", "10.233.0.0"),
        ("pods", "10.233.7.0/23", "10.233.6.0"),
        ("named", "10.234.0.0/29", "10.234.0.4"),
    ] {
        let endpoint = Endpoint::of(service).cidr(pool).start(node)?;
        let pod = node.pod(&format!("client-of-{service}"))?;
        let added = node.cni().add(&pod, "nsm-1", &node.conf(service))?.ok()?;
        let first: IpAddr = first.parse()?;
        let both = [*added.addresses()?.first().context("no address")?, added.peer(false)?];
        ensure!(both.iter().all(|address| *address >= first), "{service}: {both:?} of {pool}");
        if service == "pods" {
            ensure!(both.iter().all(|address| address.to_string().starts_with("10.233.6.")), "{both:?}");
        }
        pod.ping(added.peer(false)?)?;
        drop(endpoint);
    }
    // What comes later counts for the next one.
    let _icmp = Endpoint::of("icmp").start(node)?;
    asks(node, "10.232.0.0/16")?;
    let more = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": "more" },
        "spec": { "cidrs": ["10.235.0.0/16"] },
    });
    cluster.create(&more)?.map_err(anyhow::Error::msg)?;
    asks(node, "10.235.0.0/16")
}
