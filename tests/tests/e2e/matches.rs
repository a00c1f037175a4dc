//! A network service whose matches change while programs are connected to it.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, Pinger, Program, binary, eventually};
use nsm_proto::connection::Connection;

use crate::{IFNAME, SERVICE};

const READY: Duration = Duration::from_secs(10);

/// Matches that send everybody to endpoints of these colours.
fn choose(node: &Node, colors: &[&str]) -> anyhow::Result<()> {
    let manifest = node.dir().join("service.yaml");
    let routes: String =
        colors.iter().flat_map(|color| ["    - destination_selector: {color: ", color, "}\n"]).collect();
    fs::write(
        &manifest,
        format!(
            "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {{name: {SERVICE}}}\n\
             spec:\n  payload: IP\n  matches:\n  - routes:\n{routes}"
        ),
    )?;
    node.nsmctl(&["apply", "-f", &manifest.display().to_string()])?;
    Ok(())
}

fn only(node: &Node) -> anyhow::Result<Connection> {
    let mut all: Vec<_> = node.connections()?.into_iter().filter_map(|info| info.connection).collect();
    ensure!(all.len() == 1, "one connection was expected: {all:?}");
    all.pop().context("connection")
}

fn closes(endpoint: &mut Endpoint) -> usize {
    endpoint.program().log().lines().filter(|line| line.contains("close{") && line.contains("done")).count()
}

pub(crate) fn a_program_follows_them() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    choose(&node, &["blue"])?;
    let mut blue =
        Endpoint::of(SERVICE).name("blue").cidr("172.16.1.0/24").set("NSM_LABELS", "color:blue").start(&node)?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let mut command = Command::new(binary("nsc")?);
    command
        .env("NSM_CONNECT_TO", format!("unix://{}", node.nsm_socket().display()))
        .env("NSM_NETWORK_SERVICES", format!("kernel://{SERVICE}/{IFNAME}"))
        .env("NSM_LOG_LEVEL", "debug");
    let mut client = Program::start("nsc", &mut command, pod.namespace(), &node.dir().join("nsc.log"))?;
    eventually("connection", READY, || Ok(client.log()), |log| log.contains(" at blue "))?;
    let first = only(&node)?;

    // Nobody of that colour: it keeps what it has, also when others look for endpoints.
    let pinger = Pinger::start(pod.namespace(), "172.16.1.0".parse()?, Duration::from_millis(20))?;
    choose(&node, &["red"])?;
    let looked = |log: &String| log.contains("the matches of a network service have changed");
    eventually("a look", READY, || Ok(node.agent_log()), looked)?;
    ensure!(only(&node)? == first, "moved to nowhere: {:?}", only(&node)?);
    let pings = pinger.stop();
    ensure!(pings.lost == 0, "the wire was cut: {pings:?}");

    let mut red =
        Endpoint::of(SERVICE).name("red").cidr("172.16.2.0/24").set("NSM_LABELS", "color:red").start(&node)?;
    eventually("packets to the other", READY, || pod.ping("172.16.2.0".parse()?), |_| true)?;
    eventually("Close at the one before", READY, || Ok(closes(&mut blue)), |count| *count == 1)?;
    let moved = only(&node)?;
    ensure!(moved.id == first.id && moved.network_service_endpoint_name == "red", "{moved:?}");

    // It fits, and stays, whoever else does.
    let pinger = Pinger::start(pod.namespace(), "172.16.2.0".parse()?, Duration::from_millis(20))?;
    choose(&node, &["blue", "red"])?;
    let looks = |log: &String| log.matches("the matches of a network service have changed").count() == 2;
    eventually("another look", READY, || Ok(node.agent_log()), looks)?;
    let pings = pinger.stop();
    ensure!(pings.lost == 0, "the wire was cut: {pings:?}");
    ensure!(only(&node)? == moved && closes(&mut red) == 0, "moved though it fits: {:?}", only(&node)?);

    // And back: told a second time.
    choose(&node, &["blue"])?;
    eventually("packets to the first", READY, || pod.ping("172.16.1.0".parse()?), |_| true)?;
    eventually("Close at the second", READY, || Ok(closes(&mut red)), |count| *count == 1)?;
    client.still_runs()?;
    client.stop()?;
    red.stop()?;
    drop(pod);
    node.nothing_left(&before)
}
