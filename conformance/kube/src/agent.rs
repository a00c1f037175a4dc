//! An agent on a machine, as a process that the test starts, with the rights of the DaemonSet's.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use nsm_lab::{Program, binary};
use serde_json::{Value, json};

use crate::cluster::SERVICE;
use crate::machine::Machine;
use crate::mesh::{Mesh, patiently};
use crate::runtime::{BIN_DIR, CONF_DIR};

/// Until it serves.
const READY: Duration = Duration::from_secs(30);

/// The agent's private socket on a machine.
pub(crate) const SOCKET: &str = "/run/nsm/cni.sock";

/// On a machine, an operator's way to the API server.
pub(crate) const OPERATOR: &str = "/etc/nsm/operator.conf";

/// A running agent; `Drop` kills it.
#[derive(Debug)]
pub struct Agent {
    program: Program,
}

impl Agent {
    /// Starts one with a token of its machine, and waits until it is ready.
    pub(crate) fn start(mesh: &Mesh, machine: &Machine) -> anyhow::Result<Self> {
        let config = mesh.kubeconfig_for_machines(&mesh.token_of(machine)?);
        let kubeconfig = machine.place().dir().join("agent.conf");
        fs::write(&kubeconfig, config.to_string())?;
        let mut command = Command::new(binary("nsm-agent")?);
        command.env_clear().args(["--registry", "kubernetes", "--namespace", "nsm-system"]);
        command.args(["--node-name", machine.name(), "--kubeconfig"]).arg(&kubeconfig);
        command.arg("--pod-resources").arg(machine.pod_resources());
        // Pods that are not root call it.
        command.args(["--nsm-socket-mode", "0666"]);
        let mut program = machine.place().start("nsm-agent", &mut command)?;
        let ready = || {
            program.still_runs()?;
            machine.nsmctl(&["get", "netsvc", "-o", "json"])
        };
        patiently("the agent", READY, ready, |_| true)?;
        Ok(Self { program })
    }

    /// SIGKILL.
    pub fn kill(self) -> anyhow::Result<()> {
        self.program.kill()
    }

    /// SIGTERM, and an orderly end.
    pub fn stop(self) -> anyhow::Result<()> {
        self.program.stop()
    }
}

impl Mesh {
    /// What an agent on that machine shows the API server.
    pub fn token_of(&self, machine: &Machine) -> anyhow::Result<String> {
        let bound = format!("--bound-object-name={}", machine.name());
        let create = ["-n", "nsm-system", "create", "token", "nsm-agent", "--bound-object-kind=Node", &bound];
        Ok(self.kubectl(&create)?.trim().to_owned())
    }

    /// For a program on a machine.
    pub fn kubeconfig_for_machines(&self, token: &str) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": {
                "server": format!("https://{SERVICE}:443"), "certificate-authority": self.cluster().file("tls.crt"),
            } }],
            "users": [{ "name": "program", "user": { "token": token } }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "program" } }],
        })
    }

    /// Starts an agent on a machine.
    pub fn start_agent(&mut self, at: usize) -> anyhow::Result<()> {
        let operator = self.kubeconfig_for_machines("admin-token").to_string();
        self.machine(at)?.place().write(OPERATOR, &operator)?;
        let agent = Agent::start(self, self.machine(at)?).with_context(|| self.logs())?;
        self.machine_mut(at)?.agent = Some(agent);
        Ok(())
    }

    /// SIGKILL to it.
    pub fn kill_agent(&mut self, at: usize) -> anyhow::Result<()> {
        self.machine_mut(at)?.agent.take().context("no agent runs")?.kill()
    }
}

impl Machine {
    /// The agent that runs on it.
    pub fn agent(&self) -> anyhow::Result<&Agent> {
        self.agent.as_ref().context("no agent runs")
    }

    /// Puts the plugin beside the others and behind the first network.
    pub fn install(&self) -> anyhow::Result<()> {
        let plugin = binary("nsm-cni")?;
        let to = Path::new(BIN_DIR).join("nsm-cni");
        // One that runs may not be written over.
        let aside = to.with_extension("new");
        self.place().run(|| fs::copy(plugin, &aside).and_then(|_| fs::rename(&aside, &to)))?.context("nsm-cni")?;
        let mut list = self.first_network();
        let plugins = list["plugins"].as_array_mut().context("no plugins")?;
        plugins.push(json!({
            "type": "nsm-cni", "capabilities": { "io.kubernetes.cri.pod-annotations": true },
            "cniSocket": SOCKET, "agentWaitSeconds": 10,
        }));
        self.configure("00-nsm.conflist", &list)
    }

    /// Takes away what [`Machine::install`] has put there.
    pub(crate) fn uninstall(&self) -> anyhow::Result<()> {
        self.unconfigure("00-nsm.conflist")?;
        let remove = || fs::remove_file(Path::new(BIN_DIR).join("nsm-cni"));
        self.place().run(remove)?.context("nsm-cni")
    }

    /// Writes a network configuration as runtimes notice it.
    pub fn configure(&self, name: &str, list: &Value) -> anyhow::Result<()> {
        let aside = format!("{CONF_DIR}/{name}.new");
        self.place().write(&aside, &list.to_string())?;
        let rename = || fs::rename(&aside, Path::new(CONF_DIR).join(name));
        self.place().run(rename)?.with_context(|| name.to_owned())
    }

    /// Takes a network configuration away.
    pub fn unconfigure(&self, name: &str) -> anyhow::Result<()> {
        let remove = || fs::remove_file(Path::new(CONF_DIR).join(name));
        self.place().run(remove)?.with_context(|| name.to_owned())
    }

    /// `nsmctl` on the machine; its standard output.
    pub fn nsmctl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.place().output(&mut nsmctl(args)?)
    }

    /// What `nsmctl check`, with more words, finds on the machine, bad things too.
    pub fn findings(&self, more: &[&str]) -> anyhow::Result<Vec<Value>> {
        let mut command = nsmctl(&["check", "-o", "json"])?;
        command.args(more);
        let output = self.place().run(|| command.output())?.context("nsmctl check")?;
        let list: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        list["findings"].as_array().cloned().context("no findings")
    }
}

fn nsmctl(args: &[&str]) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("nsmctl")?);
    command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("KUBECONFIG", OPERATOR).args(args);
    Ok(command)
}
