//! What an operator sees: nsmctl, metrics and health.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, Program, binary, eventually};
use serde_json::Value;

use crate::{IFNAME, SERVICE};

const BOUND: Duration = Duration::from_secs(5);

const MATCHES: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: icmp}
spec:
  payload: IP
  matches:
  - source_selector: {app: firewall}
    routes: [{destination_selector: {app: gateway}}]
  - routes: [{destination_selector: {app: firewall}}]
";

pub(crate) fn connections_in_every_format() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    ensure!(node.get("connections")?.is_empty());
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;

    for kind in ["connections", "connection"] {
        for format in ["table", "wide", "yaml", "json", "name"] {
            let shown = node.nsmctl(&["get", kind, "-o", format])?;
            ensure!(!shown.trim().is_empty(), "{format} of {kind} is empty");
            if format != "name" {
                ensure!(shown.contains(endpoint.name()), "{format} of {kind} does not name the endpoint: {shown}");
            }
        }
    }
    let list: Value = serde_json::from_str(&node.nsmctl(&["get", "connections", "-o", "json"])?)?;
    ensure!(list["kind"] == "List" && list["items"].as_array().is_some_and(|items| items.len() == 1), "{list}");
    Ok(())
}

pub(crate) fn describe_explains_the_choice() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let manifest = node.dir().join("service.yaml");
    fs::write(&manifest, MATCHES)?;
    node.nsmctl(&["apply", "-f", &manifest.display().to_string()])?;
    let _firewall = Endpoint::of(SERVICE).name("the-wall").set("NSM_LABELS", "app:firewall").start(&node)?;
    let _gateway = Endpoint::of(SERVICE).name("the-gate").set("NSM_LABELS", "app:gateway").start(&node)?;
    for labels in ["app=firewall", "app=else"] {
        let text = node.nsmctl(&["describe", "networkservice", SERVICE, "--labels", labels])?;
        ensure!(text.contains("the-wall") && text.contains("the-gate"), "{text}");
    }
    Ok(())
}

pub(crate) fn plan_changes_nothing() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let netns = pod.namespace().path().display().to_string();
    let plan = node.nsmctl(&["plan", SERVICE, "--netns", &netns, "--ifname", IFNAME])?;
    ensure!(plan.contains(IFNAME), "{plan}");
    node.nothing_left(&before)
}

pub(crate) fn check_finds_a_dead_agent() -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let well = node.nsmctl(&["check"])?;
    ensure!(!well.trim().is_empty());
    node.kill_agent()?;
    let ill = node.nsmctl(&["check"]).err().context("check is content without an agent")?;
    eprintln!("{ill}");
    Ok(())
}

pub(crate) fn a_deleted_connection_is_closed() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    let connections = node.connections()?;
    let id = &connections.first().and_then(|info| info.connection.as_ref()).context("no connection")?.id;
    node.nsmctl(&["delete", "connection", id])?;
    eventually("closed", BOUND, || node.connections(), Vec::is_empty)?;
    node.cni().del(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn watch_shows_changes() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let mut command = Command::new(binary("nsmctl")?);
    command.arg("--cni-socket").arg(node.cni_socket()).args(["get", "connections", "--watch", "-o", "wide"]);
    let watch = Program::start("nsmctl", &mut command, node.namespace(), &node.dir().join("watch.log"))?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    eventually("the connection in the watch", BOUND, || Ok(watch.log()), |log| log.contains("icmp-1"))?;
    Ok(())
}

fn http(node: &Node, path: &str) -> anyhow::Result<String> {
    let mut stream = node.namespace().run(|| TcpStream::connect("127.0.0.1:9090"))??;
    stream.set_read_timeout(Some(BOUND))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

pub(crate) fn metrics_and_health() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    node.set("NSM_METRICS", "127.0.0.1:9090").start_agent()?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    for path in ["/healthz", "/readyz"] {
        let answer = http(&node, path)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
    let metrics = http(&node, "/metrics")?;
    ensure!(metrics.lines().any(|line| line.starts_with("nsm_")), "{metrics}");
    Ok(())
}
