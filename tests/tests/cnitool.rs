//! `cnitool`, the CNI project's own runtime for hands, drives the plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, Pod, binary, runner, tests};
use serde_json::{Value, json};

const NETWORK: &str = "lab";

fn main() -> ExitCode {
    let tests = tests![add_check_del, a_list_of_plugins, gc_and_status];
    runner::main(tests, Duration::from_mins(1))
}

/// Where xtask installs it.
fn cnitool() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let tools = std::env::var_os("NSM_LAB_TOOLS").map(PathBuf::from);
    let tools = tools
        .or_else(|| exe.ancestors().nth(3).map(|target| target.join("tools/bin")))
        .context("no target directory")?;
    let tool = tools.join("cnitool");
    if tool.is_file() {
        return Ok(tool);
    }
    Err(runner::Skip(format!("{} is not there: `cargo xtask test cnitool` installs it", tool.display())).into())
}

struct Tool<'a> {
    node: &'a Node,
    program: PathBuf,
    conf_dir: PathBuf,
}

impl<'a> Tool<'a> {
    fn with(node: &'a Node, list: &Value) -> anyhow::Result<Self> {
        let conf_dir = node.dir().join("net.d");
        fs::create_dir_all(&conf_dir)?;
        fs::write(conf_dir.join("10-lab.conflist"), list.to_string())?;
        Ok(Self { node, program: cnitool()?, conf_dir })
    }

    fn run(&self, verb: &str, netns: &Path) -> anyhow::Result<String> {
        let plugins = binary("nsm-cni")?;
        let mut command = Command::new(&self.program);
        command
            .args([verb, NETWORK])
            .arg(netns)
            .env_clear()
            .env("NETCONFPATH", &self.conf_dir)
            .env("CNI_PATH", plugins.parent().context("no directory of plugins")?)
            .env("CNI_IFNAME", "nsm-1");
        let output = self.node.namespace().run(|| command.output())?.context("cnitool")?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cnitool {verb}: {} {stderr}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn list(node: &Node, plugins: &[Value]) -> Value {
    let mut plugins = plugins.to_vec();
    for plugin in &mut plugins {
        plugin["type"] = "nsm-cni".into();
        plugin["cniSocket"] = node.cni_socket().display().to_string().into();
    }
    json!({"cniVersion": "1.1.0", "name": NETWORK, "plugins": plugins})
}

fn peer(added: &str) -> anyhow::Result<std::net::IpAddr> {
    let added: Value = serde_json::from_str(added)?;
    let routes = added["routes"].as_array().context("no routes")?;
    let host = routes.iter().find_map(|route| route["dst"].as_str()?.strip_suffix("/32"));
    Ok(host.with_context(|| format!("no host route in {added}"))?.parse()?)
}

fn setting() -> anyhow::Result<(Node, Endpoint, Pod)> {
    cnitool()?;
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of("icmp").start(&node)?;
    let pod = node.pod("client")?;
    Ok((node, endpoint, pod))
}

fn add_check_del() -> anyhow::Result<()> {
    let (node, _endpoint, pod) = setting()?;
    let before = node.leftovers()?;
    let tool = Tool::with(&node, &list(&node, &[json!({"networkService": "icmp"})]))?;
    let netns = pod.namespace().path();
    let added = tool.run("add", netns)?;
    pod.ping(peer(&added)?)?;
    tool.run("check", netns)?;
    tool.run("del", netns)?;
    tool.run("del", netns)?;
    node.nothing_left(&before)
}

fn a_list_of_plugins() -> anyhow::Result<()> {
    let (node, _endpoint, pod) = setting()?;
    let _other = Endpoint::of("other").cidr("172.16.9.0/24").start(&node)?;
    let before = node.leftovers()?;
    // Chained after ourselves the interface name is taken: refused, and what the first made is deleted by DEL.
    let tool =
        Tool::with(&node, &list(&node, &[json!({"networkService": "icmp"}), json!({"networkService": "other"})]))?;
    ensure!(tool.run("add", pod.namespace().path()).is_err());
    tool.run("del", pod.namespace().path())?;
    node.nothing_left(&before)
}

fn gc_and_status() -> anyhow::Result<()> {
    let (node, _endpoint, pod) = setting()?;
    let tool = Tool::with(&node, &list(&node, &[json!({"networkService": "icmp"})]))?;
    let netns = pod.namespace().path();
    tool.run("status", netns)?;
    let before = node.leftovers()?;
    let added = tool.run("add", netns)?;
    pod.ping(peer(&added)?)?;
    // Without a list of what is valid libcni deletes all that it has cached, and then calls GC.
    tool.run("gc", netns)?;
    node.nothing_left(&before)
}
