//! What happens to the agent's files.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, eventually, registered, sandbox};
use serde_json::Value;

use crate::{IFNAME, SERVICE};

const BOUND: Duration = Duration::from_secs(10);

/// Fills the file system that `dir` is on; removing the file frees it again.
fn fill(dir: &Path) -> anyhow::Result<PathBuf> {
    let path = dir.join("filler");
    let mut file = File::create(&path)?;
    while file.write_all(&[0; 512]).is_ok() {}
    Ok(path)
}

/// The agent's record files.
fn records(node: &Node) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in fs::read_dir(node.run_dir())? {
        for entry in fs::read_dir(folder?.path()).into_iter().flatten() {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

pub(crate) fn full() -> anyhow::Result<()> {
    let mut node = Node::create("node-1")?;
    sandbox::tmpfs(&node.run_dir(), "size=256k")?;
    node.start_agent()?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&first, IFNAME, &conf)?.ok()?;

    let filler = fill(&node.run_dir())?;
    let refused = node.cni().add(&second, IFNAME, &conf)?;
    ensure!(refused.exit != 0 && refused.json.to_string().contains("space"), "{}", refused.json);
    first.ping(added.peer(false)?).context("while the disk is full")?;
    node.cni().del(&second, IFNAME, &conf)?.ok()?;
    node.cni().del(&first, IFNAME, &conf)?.ok().context("DEL while the disk is full")?;
    fs::remove_file(filler)?;
    node.nothing_left(&before)?;
    node.cni().add(&second, IFNAME, &conf)?.ok().context("ADD after there is space again")?;
    Ok(())
}

/// Two attachments; then the agent is killed, `change` is done to the records of the first, and the agent started again.
fn after_changing(
    change: impl Fn(&Path, Value) -> anyhow::Result<()>,
    then: impl FnOnce(Node, &Endpoint, [nsm_lab::Pod; 2], std::net::IpAddr) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let conf = node.conf(SERVICE);
    node.cni().add(&first, IFNAME, &conf)?.ok()?;
    let of_first = records(&node)?;
    let added = node.cni().add(&second, IFNAME, &conf)?.ok()?;
    node.kill_agent()?;
    for path in &of_first {
        let record = serde_json::from_slice(&fs::read(path)?)?;
        change(path, record)?;
    }
    ensure!(!of_first.is_empty(), "the agent keeps no records under {}", node.run_dir().display());
    then(node, &endpoint, [first, second], added.peer(false)?)
}

pub(crate) fn damaged_record_is_set_aside() -> anyhow::Result<()> {
    after_changing(
        |path, _| Ok(fs::write(path, "{\"format\": 1, \"boot")?),
        |mut node, endpoint, [first, second], peer| {
            node.start_agent()?;
            ensure!(node.agent_log().contains("damaged"), "the damage is not reported");
            let kept = node.connections()?;
            ensure!(kept.iter().any(|connection| connection.container_id == second.container()), "{kept:?}");
            second.ping(peer)?;
            eventually("the endpoint", BOUND, || registered(&node), |all| all.contains(&endpoint.name().to_owned()))?;
            node.cni().del(&first, IFNAME, &node.conf(SERVICE))?.ok()?;
            node.cni().del(&second, IFNAME, &node.conf(SERVICE))?.ok()?;
            Ok(())
        },
    )
}

pub(crate) fn newer_format_refuses_to_start() -> anyhow::Result<()> {
    after_changing(
        |path, mut record| {
            record["format"] = 99.into();
            Ok(fs::write(path, record.to_string())?)
        },
        |node, _, [_, second], peer| {
            let mut agent = node.spawn_agent(|command| command)?;
            ensure!(!agent.ended(BOUND)?.success());
            ensure!(agent.log().contains("99") && agent.log().contains("format"), "{}", agent.log());
            second.ping(peer).map(|_| ())
        },
    )
}

pub(crate) fn another_boot_forgets_everything() -> anyhow::Result<()> {
    after_changing(
        |path, mut record| {
            record["boot_id"] = "another".into();
            Ok(fs::write(path, record.to_string())?)
        },
        |mut node, _, [first, second], peer| {
            node.start_agent()?;
            let kept = node.connections()?;
            ensure!(kept.len() == 1 && kept[0].container_id == second.container(), "{kept:?}");
            second.ping(peer)?;
            node.cni().del(&first, IFNAME, &node.conf(SERVICE))?.ok()?;
            Ok(())
        },
    )
}
