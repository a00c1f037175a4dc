//! What an operator sees: nsmctl, metrics and health.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nsm_lab::{Endpoint, Node, Program, binary, eventually};
use nsm_proto::cni::StatusRequest;
use nsm_proto::cni::cni_client::CniClient;
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
    let pod = node.pod("client")?;
    // Labels of a client, the match that decides for it, who is chosen, who is not and why.
    for (labels, decides, chosen, other, why) in [
        ("firewall", 0, "the-gate", "the-wall", "label app is firewall, not gateway"),
        ("else", 1, "the-wall", "the-gate", "label app is gateway, not firewall"),
    ] {
        let asked = format!("app={labels}");
        let text = node.nsmctl(&["describe", "networkservice", SERVICE, "--labels", &asked])?;
        let line = |begin: &str| text.lines().find(|line| line.trim_start_matches([' ', '*']).starts_with(begin));
        let marked = |begin: &str| line(begin).is_some_and(|line| line.trim_start().starts_with('*'));
        ensure!(marked(chosen) && !marked(other), "{text}");
        ensure!(line(other).is_some_and(|line| line.contains(why)), "{text}");
        ensure!(marked(&decides.to_string()) && !marked(&(1 - decides).to_string()), "{text}");
        ensure!(text.contains(&format!("match {decides} decides for {asked}: 1 of 2 endpoints")), "{text}");

        let json = node.nsmctl(&["describe", "networkservice", SERVICE, "--labels", &asked, "-o", "json"])?;
        let json: Value = serde_json::from_str(&json)?;
        let candidates: Vec<&str> = json["endpoints"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|endpoint| endpoint["candidate"] == true)
            .filter_map(|endpoint| endpoint["name"].as_str())
            .collect();
        ensure!(candidates == [chosen], "{json}");

        // What it says is what is done.
        let mut conf = node.conf(SERVICE);
        conf["labels"] = serde_json::json!({ "app": labels });
        node.cni().add(&pod, IFNAME, &conf)?.ok()?;
        ensure!(serving(&node)? == chosen);
        node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    }
    Ok(())
}

/// Who serves the one connection that there is.
fn serving(node: &Node) -> anyhow::Result<String> {
    let connections = node.connections()?;
    let [connection] = connections.as_slice() else { bail!("one connection was expected: {connections:?}") };
    Ok(connection.connection.clone().unwrap_or_default().network_service_endpoint_name)
}

pub(crate) fn plan_says_whom_the_next_add_asks() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _one = Endpoint::of(SERVICE).name("one").cidr("172.16.1.0/24").start(&node)?;
    let _two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24").start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    for _ in 0..3 {
        let plan = node.nsmctl(&["plan", SERVICE])?;
        ensure!(plan == node.nsmctl(&["plan", SERVICE])?, "to look changes what is seen: {plan}");
        let first = plan.split_once("until one serves: ").and_then(|(_, names)| names.split(',').next());
        node.cni().add(&pod, IFNAME, &conf)?.ok()?;
        ensure!(first == Some(serving(&node)?.as_str()), "{} serves; {plan}", serving(&node)?);
        node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    }
    Ok(())
}

const FAR: &str = "\
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: {name: icmp}
spec: {payload: IP}
---
apiVersion: networkservicemesh.io/v1
kind: NetworkServiceEndpoint
metadata: {name: far-away}
spec: {network_service_names: [icmp], url: 'tcp://192.0.2.7:5001'}
";

pub(crate) fn endpoints_that_cannot_be_called_say_why() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let manifest = node.dir().join("far.yaml");
    fs::write(&manifest, FAR)?;
    node.nsmctl(&["apply", "-f", &manifest.display().to_string()])?;
    let pod = node.pod("client")?;
    let added = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?;
    ensure!(added.took < Duration::from_secs(1), "it waited for nobody's return: {:?}", added.took);
    let refused = added.refused(11)?;
    ensure!(refused.contains("far-away") && refused.contains("tcp://192.0.2.7:5001"), "{refused}");
    let text = node.nsmctl(&["describe", "networkservice", SERVICE])?;
    ensure!(text.contains("tcp://192.0.2.7:5001") && text.contains("0 of 1 endpoints"), "{text}");
    // It is not in the way of one that can be called.
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    for _ in 0..2 {
        node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
        node.cni().del(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
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

/// Tells the agent that a plugin of this version is there, as its STATUS does.
fn call_as_plugin(node: &Node, version: &str) -> anyhow::Result<()> {
    let socket = node.cni_socket();
    let request = StatusRequest { plugin_version: version.to_owned(), ..StatusRequest::default() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let channel = nsm_fdpass::connect(&socket, tokio::time::Instant::now() + BOUND).await?.channel;
        CniClient::new(channel).status(request).await?;
        Ok(())
    })
}

/// The findings of `nsmctl check`, and whether it is content.
fn findings(node: &Node, plugin: &Path) -> anyhow::Result<(Vec<Value>, bool)> {
    let mut command = Command::new(binary("nsmctl")?);
    command.arg("--cni-socket").arg(node.cni_socket()).args(["check", "-o", "json", "--cni-plugin"]).arg(plugin);
    let output = node.namespace().run(|| command.output())??;
    let shown: Value = serde_json::from_slice(&output.stdout)?;
    Ok((shown["findings"].as_array().cloned().unwrap_or_default(), output.status.success()))
}

/// What it says about a subject.
fn about<'a>(findings: &'a [Value], subject: &str) -> anyhow::Result<&'a Value> {
    let found = findings.iter().find(|finding| finding["subject"].as_str().is_some_and(|s| s.contains(subject)));
    found.with_context(|| format!("nothing about {subject}: {findings:?}"))
}

pub(crate) fn check_looks_at_versions_privileges_and_kernel() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let plugin = binary("nsm-cni")?;
    node.cni().status(&node.conf(SERVICE))?.ok()?;
    let (found, content) = findings(&node, &plugin)?;
    ensure!(content, "{found:?}");
    for subject in [
        "agent: user",
        "agent: capabilities",
        "kernel: version",
        "kernel: veth",
        "kernel: IPv6",
        "SIOCGSKNS",
        "SO_PEERPIDFD",
        "nsm-cni that called",
        "installed nsm-cni",
    ] {
        let finding = about(&found, subject)?;
        ensure!(finding["level"] == "ok" || finding["fix"] != "", "{finding}");
    }
    let version = env!("CARGO_PKG_VERSION");
    for subject in ["nsm-cni that called", "installed nsm-cni"] {
        let finding = about(&found, subject)?;
        ensure!(finding["level"] == "ok" && finding["detail"].to_string().contains(version), "{finding}");
    }

    // A plugin of another release called last; then one of another release is installed; then none.
    call_as_plugin(&node, "9.9.9")?;
    let (found, content) = findings(&node, &plugin)?;
    let finding = about(&found, "nsm-cni that called")?;
    ensure!(!content && finding["level"] == "error" && finding["fix"] != "", "{finding}");
    ensure!(finding["detail"].as_str().is_some_and(|text| text.contains("nsm-cni 9.9.9")), "{finding}");
    call_as_plugin(&node, version)?;

    let other = node.dir().join("nsm-cni");
    fs::write(&other, "#!/bin/sh\necho nsm-cni 9.9.9\n")?;
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755))?;
    let (found, content) = findings(&node, &other)?;
    let finding = about(&found, "installed nsm-cni")?;
    ensure!(!content && finding["level"] == "error" && finding["fix"] != "", "{finding}");
    let (found, content) = findings(&node, &node.dir().join("none"))?;
    let finding = about(&found, "installed nsm-cni")?;
    ensure!(content && finding["level"] == "warning" && finding["fix"] != "", "{finding}");
    Ok(())
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

/// What the agent answers that serves metrics on 127.0.0.1:9090.
pub(crate) fn http(node: &Node, path: &str) -> anyhow::Result<String> {
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
    for line in [
        "nsm_cni_operations_total{operation=\"Add\",outcome=\"Ok\"} 1",
        "nsm_calls_total{call=\"Request\",outcome=\"Ok\"} 1",
        "nsm_connections 1",
        "nsm_registry_services 1",
        "nsm_registry_endpoints 1",
    ] {
        ensure!(metrics.lines().any(|found| found == line), "{line} is missing:\n{metrics}");
    }

    node.cni().status(&node.conf(SERVICE))?.ok()?;
    node.cni().gc(&node.conf(SERVICE), Some(&[]))?.ok()?;
    node.cni().add(&pod, IFNAME, &node.conf("nowhere"))?.refused(11)?;
    let metrics = http(&node, "/metrics")?;
    for line in [
        "nsm_cni_operations_total{operation=\"Status\",outcome=\"Ok\"} 1",
        "nsm_cni_operations_total{operation=\"Gc\",outcome=\"Ok\"} 1",
        "nsm_cni_operations_total{operation=\"Add\",outcome=\"Error\"} 1",
        "nsm_calls_total{call=\"Request\",outcome=\"Error\"} 1",
        "nsm_connections 0",
    ] {
        ensure!(metrics.lines().any(|found| found == line), "{line} is missing:\n{metrics}");
    }
    ensure!(
        metrics.lines().any(|line| line.starts_with("nsm_calls_total{call=\"Close\",outcome=\"Ok\"}")),
        "{metrics}"
    );
    Ok(())
}
