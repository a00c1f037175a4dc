//! What the tests of Go peers have in common.

use std::net::IpAddr;

use anyhow::Context;
use nsm_lab::{Node, Pod};
use nsm_peers::{Peer, go_endpoint};
use serde_json::Value;

/// A Go endpoint of `service` in a pod of its own.
pub(crate) struct GoEndpoint {
    pub(crate) peer: Peer,
    pub(crate) pod: Pod,
}

pub(crate) fn endpoint(node: &Node, name: &str, cidr: &str, args: &[&str]) -> anyhow::Result<GoEndpoint> {
    let pod = node.pod(name)?;
    let peer = go_endpoint(node, pod.namespace(), name, &[&["--services", "demo", "--cidr", cidr], args].concat())?;
    Ok(GoEndpoint { peer, pod })
}

fn address(event: &Value, side: &str) -> anyhow::Result<IpAddr> {
    let text = event["connection"]["context"]["ip_context"][side][0].as_str();
    let text = text.with_context(|| format!("no {side} in {event}"))?;
    Ok(text.split('/').next().unwrap_or_default().parse()?)
}

/// The client's address in a connection that an event shows.
pub(crate) fn source(event: &Value) -> anyhow::Result<IpAddr> {
    address(event, "src_ip_addrs")
}

/// The endpoint's.
pub(crate) fn destination(event: &Value) -> anyhow::Result<IpAddr> {
    address(event, "dst_ip_addrs")
}

/// The endpoint that serves it.
pub(crate) fn served_by(event: &Value) -> &str {
    event["connection"]["network_service_endpoint_name"].as_str().unwrap_or_default()
}

/// Packets of both sides arrive.
pub(crate) fn ping_both(client: &Pod, endpoint: &Pod, event: &Value) -> anyhow::Result<()> {
    client.ping(destination(event)?)?;
    endpoint.ping(source(event)?)?;
    Ok(())
}

/// Whether a client's answer is one to a refresh or heal that succeeded.
pub(crate) fn answered(event: &Value) -> bool {
    event["event"] == "answer" && event["error"].is_null()
}
