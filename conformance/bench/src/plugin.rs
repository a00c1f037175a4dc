//! A CNI plugin run as a runtime runs it, and how long that took.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};
use nsm_lab::{Node, Pod, binary};
use nsm_peers::tools;
use serde_json::{Value, json};

/// One plugin with its configuration.
#[derive(Debug, Clone)]
pub(crate) struct Plugin {
    pub(crate) name: &'static str,
    pub(crate) program: PathBuf,
    conf: String,
    ifname: &'static str,
    path: PathBuf,
}

/// Ours first, then what it is compared with.
pub(crate) fn all(node: &Node) -> anyhow::Result<Vec<Plugin>> {
    let path = tools::dir()?;
    let reference = |name: &'static str, ifname, mut conf: Value, subnet: &str| -> anyhow::Result<Plugin> {
        conf["cniVersion"] = "1.0.0".into();
        conf["name"] = name.into();
        conf["type"] = name.into();
        conf["ipam"] = json!({ "type": "host-local", "subnet": subnet, "dataDir": node.dir().join("host-local") });
        Ok(Plugin { name, program: tools::tool(name)?, conf: conf.to_string(), ifname, path: path.clone() })
    };
    tools::tool("host-local")?;
    let mut ours = node.conf(crate::sut::SERVICE);
    ours["cniVersion"] = "1.0.0".into();
    Ok(vec![
        Plugin {
            name: "nsm-cni",
            program: binary("nsm-cni")?,
            conf: ours.to_string(),
            ifname: "nsm-1",
            path: path.clone(),
        },
        reference("ptp", "ptp-1", json!({}), "10.80.0.0/16")?,
        reference("bridge", "br-1", json!({ "bridge": "bench0", "isGateway": true }), "10.81.0.0/16")?,
    ])
}

/// The meta-plugin with the networks of these plugins, for pods that ask nothing; its records are below `cni_dir`.
pub(crate) fn meta(node: &Node, cni_dir: &Path, networks: &[Plugin]) -> anyhow::Result<Plugin> {
    // Of an agent that is not asked there is this much: namespaces ask nothing.
    let socket = node.dir().join("unasked.sock");
    let namespaces = node.dir().join("unasked.sock.namespaces");
    fs::create_dir_all(&namespaces)?;
    fs::write(namespaces.join(".complete"), "")?;
    let delegates =
        networks.iter().map(|plugin| serde_json::from_str(&plugin.conf)).collect::<Result<Vec<Value>, _>>()?;
    of_networks(cni_dir, &json!({ "delegates": delegates, "cniSocket": socket }))
}

/// The same networks called by their names: the agent says what they are, and is told what was made.
pub(crate) fn planned(node: &Node, cni_dir: &Path, networks: &[Plugin]) -> anyhow::Result<Plugin> {
    let conf_dir = node.dir().join("networks");
    fs::create_dir_all(&conf_dir)?;
    for network in networks {
        fs::write(conf_dir.join(format!("{}.conf", network.name)), &network.conf)?;
    }
    let names: Vec<&str> = networks.iter().map(|network| network.name).collect();
    let (first, others) = names.split_first().context("no network")?;
    let keys = json!({
        "clusterNetwork": first, "defaultNetworks": others, "confDir": conf_dir, "cniSocket": node.cni_socket(),
    });
    of_networks(cni_dir, &keys)
}

fn of_networks(cni_dir: &Path, keys: &Value) -> anyhow::Result<Plugin> {
    let path = tools::dir()?;
    let mut conf = json!({
        "cniVersion": "1.0.0", "name": "networks", "type": "nsm-cni", "binDir": path, "cniDir": cni_dir,
        "capabilities": { "io.kubernetes.cri.pod-annotations": true },
        "runtimeConfig": { "io.kubernetes.cri.pod-annotations": {} },
    });
    for (key, value) in keys.as_object().into_iter().flatten() {
        conf[key] = value.clone();
    }
    Ok(Plugin { name: "nsm-cni", program: binary("nsm-cni")?, conf: conf.to_string(), ifname: "eth0", path })
}

impl Plugin {
    /// One call; milliseconds from start to exit. Call it from a thread in the node's namespace.
    pub(crate) fn call(&self, command: &str, pod: &Pod) -> anyhow::Result<f64> {
        self.call_as(command, pod, self.ifname)
    }

    /// As [`Plugin::call`], for another interface.
    pub(crate) fn call_as(&self, command: &str, pod: &Pod, ifname: &str) -> anyhow::Result<f64> {
        self.run(&self.program, command, &[], pod.container(), pod.namespace().path(), ifname)
    }

    /// VERSION.
    pub(crate) fn version(&self) -> anyhow::Result<f64> {
        self.run(&self.program, "VERSION", &[], "", Path::new(""), "")
    }

    /// As [`Plugin::call`], through another program that is given the plugin's path as its last argument.
    pub(crate) fn call_through(
        &self,
        launcher: &Path,
        args: &[&str],
        command: &str,
        pod: &Pod,
    ) -> anyhow::Result<String> {
        let mut process = self.process(launcher, command, pod.container(), pod.namespace().path(), self.ifname);
        let mut child = process.args(args).arg(&self.program).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("stdin")?.write_all(self.conf.as_bytes()).ok();
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{} {command}: {}", self.name, String::from_utf8_lossy(&output.stdout));
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn process(&self, program: &Path, command: &str, container: &str, netns: &Path, ifname: &str) -> Command {
        let mut process = Command::new(program);
        process.env_clear().env("CNI_COMMAND", command).env("CNI_PATH", &self.path);
        process.env("CNI_CONTAINERID", container).env("CNI_NETNS", netns).env("CNI_IFNAME", ifname);
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        process
    }

    fn run(
        &self,
        program: &Path,
        command: &str,
        args: &[&str],
        container: &str,
        netns: &Path,
        ifname: &str,
    ) -> anyhow::Result<f64> {
        let mut process = self.process(program, command, container, netns, ifname);
        let began = Instant::now();
        let mut child = process.args(args).spawn().with_context(|| format!("starting {}", program.display()))?;
        // A plugin that does not read its input closes the pipe.
        child.stdin.take().context("stdin")?.write_all(self.conf.as_bytes()).ok();
        let output = child.wait_with_output()?;
        let took = began.elapsed();
        ensure!(
            output.status.success(),
            "{} {command}: {}: {}",
            self.name,
            output.status,
            String::from_utf8_lossy(&output.stdout)
        );
        Ok(took.as_secs_f64() * 1000.0)
    }
}
