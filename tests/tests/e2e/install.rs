//! The agent installs plugin and configuration on its node, and keeps them there.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use nsm_lab::{Node, binary, eventually};

use crate::operator::http;

/// What is promised, and time for a busy machine.
const FOLLOWED: Duration = Duration::from_secs(5);

const LIST: &str = r#"{"name": "first", "cniVersion": "1.0.0", "plugins": [{"type": "bridge"}]}"#;

/// A node whose runtime has one plugin and one network.
struct Host {
    node: Node,
    net_d: PathBuf,
    bin: PathBuf,
}

impl Host {
    fn create() -> anyhow::Result<Self> {
        let mut node = Node::create("node-1")?;
        let [net_d, bin] = ["net.d", "bin"].map(|name| node.dir().join(name));
        fs::create_dir_all(&net_d)?;
        fs::create_dir_all(&bin)?;
        fs::write(bin.join("bridge"), "")?;
        fs::write(net_d.join("10-first.conflist"), LIST)?;
        node.set("NSM_INSTALL_PLUGIN", &bin.display().to_string());
        node.set("NSM_INSTALL_CNI_CONF", &net_d.display().to_string());
        Ok(Self { node, net_d, bin })
    }

    /// Waits until the derived configuration names that network.
    fn follows(&self, network: &str) -> anyhow::Result<()> {
        let look = || Ok(fs::read_to_string(self.net_d.join("00-nsm.conflist")).unwrap_or_default());
        let wanted = format!("\"name\": \"{network}\"");
        eventually("a derived configuration", FOLLOWED, look, |text| text.contains(&wanted)).map(drop)
    }

    /// Waits until the metrics say it of plugin and configuration.
    fn is_said_to_be_installed(&self, number: &str) -> anyhow::Result<()> {
        let wanted = ["Plugin", "Configuration"].map(|part| format!("nsm_installed{{part=\"{part}\"}} {number}"));
        let scrape = || http(&self.node, "/metrics");
        let all = |text: &String| wanted.iter().all(|line| text.lines().any(|found| found == line));
        eventually("the metrics", FOLLOWED, scrape, all).map(drop)
    }

    fn names(&self) -> anyhow::Result<Vec<String>> {
        let names = fs::read_dir(&self.net_d)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let mut names: Vec<String> = names.collect::<anyhow::Result<_>>()?;
        names.sort();
        Ok(names)
    }
}

pub(crate) fn follows_the_original_through_the_agents_death() -> anyhow::Result<()> {
    let mut host = Host::create()?;
    host.node.set("NSM_METRICS", "127.0.0.1:9090").start_agent()?;
    host.follows("first")?;
    host.is_said_to_be_installed("1")?;
    ensure!(fs::read(host.bin.join("nsm-cni"))? == fs::read(binary("nsm-cni")?)?, "another plugin");
    fs::write(host.net_d.join("10-first.conflist"), LIST.replace("first", "second"))?;
    host.follows("second")?;
    // What happens while it is away is seen when it is back; what was there stays.
    host.node.kill_agent()?;
    fs::write(host.net_d.join("10-first.conflist"), LIST.replace("first", "third"))?;
    fs::write(host.bin.join("nsm-cni"), "an earlier version")?;
    fs::write(host.net_d.join(".00-nsm.conflist.new"), "{")?;
    host.follows("second")?;
    host.node.start_agent()?;
    host.follows("third")?;
    ensure!(fs::read(host.bin.join("nsm-cni"))? == fs::read(binary("nsm-cni")?)?, "the plugin was not replaced");
    // Nothing can be put where there is no directory. In one step: the agent puts back what goes file by file.
    fs::rename(&host.bin, host.bin.with_extension("away"))?;
    fs::rename(&host.net_d, host.net_d.with_extension("away"))?;
    host.is_said_to_be_installed("0")?;
    fs::rename(host.net_d.with_extension("away"), &host.net_d)?;
    host.node.stop_agent()?;
    ensure!(host.names()? == ["00-nsm.conflist", "10-first.conflist"], "{:?}", host.names()?);
    Ok(())
}

pub(crate) fn is_put_back_and_outlives_its_original() -> anyhow::Result<()> {
    let mut host = Host::create()?;
    host.node.start_agent()?;
    host.follows("first")?;
    fs::remove_file(host.net_d.join("00-nsm.conflist"))?;
    host.follows("first")?;
    fs::remove_file(host.net_d.join("10-first.conflist"))?;
    let log = || Ok(host.node.agent_log());
    eventually("a word about the original", FOLLOWED, log, |log| log.contains("00-nsm.conflist stays"))?;
    host.follows("first")
}
