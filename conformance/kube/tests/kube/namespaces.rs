//! Namespaces whose annotations ask for their pods: files for the plugin.

use std::fs;
use std::path::PathBuf;

use anyhow::ensure;
use nsm_kube::Cluster;
use nsm_lab::{Node, eventually};
use serde_json::json;

use crate::SOON;

fn folder(node: &Node) -> PathBuf {
    node.cni_socket().with_extension("sock.namespaces")
}

/// Names of the files, in order.
fn files(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder(node))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(crate) fn those_that_ask_are_files() -> anyhow::Result<()> {
    let mut cluster = Cluster::start()?;
    for name in ["one", "two", "silent"] {
        cluster.make_namespace(name)?;
    }
    let annotate = |cluster: &Cluster, name: &str, key: &str, value: Option<&str>| {
        let change = json!({ "metadata": { "annotations": { key: value } } });
        cluster.patch(&format!("/api/v1/namespaces/{name}"), &change)
    };
    annotate(&cluster, "one", "networkservicemesh.io", Some("kernel://icmp"))?;
    annotate(&cluster, "silent", "example.com/other", Some("x"))?;
    let mut member = cluster.member("node-a")?;
    // Left by an agent of another time.
    fs::create_dir_all(folder(&member.node))?;
    fs::write(folder(&member.node).join("gone"), "{}")?;
    cluster.stop_apiserver()?;
    member.node.start_agent()?;
    ensure!(files(&member.node)? == ["gone"], "nothing is removed before the namespaces have been read");
    ensure!(!folder(&member.node).join(".complete").exists());
    cluster.start_apiserver()?;
    eventually("exactly those that ask", 3 * SOON, || files(&member.node), |names| names == &["one"])?;
    let complete = || Ok(folder(&member.node).join(".complete").exists());
    eventually("all have been read", SOON, complete, |complete| *complete)?;
    let text = fs::read_to_string(folder(&member.node).join("one"))?;
    ensure!(text == r#"{"networkservicemesh.io":"kernel://icmp"}"#, "{text}");
    annotate(&cluster, "two", "ns.networkservicemesh.io", Some("icmp?app=x"))?;
    eventually("another one", SOON, || files(&member.node), |names| names == &["one", "two"])?;
    annotate(&cluster, "one", "networkservicemesh.io", None)?;
    eventually("one less", SOON, || files(&member.node), |names| names == &["two"])?;
    // Away, nothing is removed; what was done meanwhile counts afterwards.
    member.relay.cut();
    annotate(&cluster, "two", "ns.networkservicemesh.io", Some(" "))?;
    annotate(&cluster, "silent", "networkservicemesh.io", Some("kernel://icmp"))?;
    ensure!(files(&member.node)? == ["two"]);
    member.relay.mend();
    eventually("what was edited meanwhile", 3 * SOON, || files(&member.node), |names| names == &["silent"])?;
    Ok(())
}
