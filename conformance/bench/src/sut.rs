//! What is measured: an endpoint process of ours, and a Go client through the agent.

use std::time::Duration;

use anyhow::Context;
use nsm_lab::{Endpoint, Node};
use nsm_peers::Peer;
use serde_json::Value;

use crate::Size;
use crate::report::{Goal, Report};

/// The service of the measured endpoint.
pub(crate) const SERVICE: &str = "bench";

/// An `icmp-responder` with room for all connections.
pub(crate) fn endpoint(node: &Node) -> anyhow::Result<Endpoint> {
    Endpoint::of(SERVICE).cidr("172.16.0.0/16").set("NSM_LOG_LEVEL", "info").start(node)
}

/// Another of them, for the agent's second life.
pub(crate) fn second_endpoint(node: &Node) -> anyhow::Result<Endpoint> {
    Endpoint::of(SERVICE).name("bench-2").cidr("172.17.0.0/16").set("NSM_LOG_LEVEL", "info").start(node)
}

/// Request and Close of a Go client.
pub(crate) fn go_client(node: &Node, size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let pod = node.pod("go-client")?;
    let n = size.n.to_string();
    let mut peer = Peer::start(node, pod.namespace(), "bench", "go-bench", &["--n", &n, "--service", SERVICE])?;
    let event = peer.matching("its figures", Duration::from_mins(5), 0, |event| event["event"] == "bench")?;
    for (what, key) in [("Request of a Go client", "request_ms"), ("Close of a Go client", "close_ms")] {
        let figures: Vec<f64> = event[key].as_array().context("no figures")?.iter().filter_map(Value::as_f64).collect();
        let median = report.series(what, "through nsm-agent", "ms", &figures).unwrap_or(f64::NAN);
        report.judge(what, "ms", median, Goal::Most { must: 7.0, aim: 3.0 });
    }
    Ok(())
}
