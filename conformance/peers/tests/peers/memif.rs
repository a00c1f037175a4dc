//! MEMIF preferences: the agent passes on the files and keeps out of the data path.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use anyhow::ensure;
use nsm_lab::Node;
use nsm_peers::go_client;

use crate::lab::endpoint;

pub(crate) fn files_both_ways() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut server = endpoint(&node, "go-nse", "172.16.1.0/24", &["--mechanism", "memif"])?;
    let offered = server.peer.event("listening")?["memif"].clone();
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let file = node.dir().join("memif-file");
    fs::write(&file, "from the client")?;
    let passed = fs::metadata(&file)?;

    let args = ["--mechanism", "memif", "--memif-file", &file.display().to_string()];
    let times = ["--token-lifetime", "8s", "--timeout", "2s"];
    let mut client = go_client(&node, pod.namespace(), "go-nsc", &[args, times].concat())?;
    client.event("connected")?;
    let here = client.event("memif")?["received"].clone();
    ensure!(here["dev"] == offered["dev"] && here["ino"] == offered["ino"], "client: {here}, offered: {offered}");
    ensure!(here["socket"] == true, "{here}");
    let there = server.peer.event("memif")?["received"].clone();
    ensure!(there["dev"] == passed.dev() && there["ino"] == passed.ino(), "endpoint: {there}");
    ensure!(there["content"] == "from the client", "{there}");

    let seen = client.events().len();
    let again = client.matching("refresh", Duration::from_secs(6), seen, |event| event["event"] == "memif")?;
    ensure!(again["received"]["ino"] == offered["ino"], "{again}");
    client.stop()?;
    server.peer.event("close")?;
    fs::remove_file(&file)?;
    drop(pod);
    node.nothing_left(&before)
}

pub(crate) fn kernel_client_of_a_memif_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _server = endpoint(&node, "go-nse", "172.16.1.0/24", &["--mechanism", "memif"])?;
    let before = node.leftovers()?;
    let pod = node.pod("client")?;
    let error = go_client(&node, pod.namespace(), "go-nsc", &["--timeout", "5s"])?.failed(Duration::from_secs(12))?;
    ensure!(error.contains("mechanism"), "{error}");
    drop(pod);
    node.nothing_left(&before)
}
