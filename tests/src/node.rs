//! A node: a network namespace in the place of the host's, directories of its own, and an agent that can be killed.
//!
//! Several nodes share a lab: each agent's sockets and directories are under `/run/lab/NODE`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use nsm_proto::admin;
use serde_json::{Value, json};

use crate::admin::lists;
use crate::cni::Cni;
use crate::leftovers::Leftovers;
use crate::program::{Program, bare, binary};
use crate::{Namespace, eventually, leftovers, ping};

/// For the agent's notification that it serves.
const READY: Duration = Duration::from_secs(10);
/// For what ends behind an answered DEL: the agent's workers, the endpoint's Close.
const SETTLED: Duration = Duration::from_secs(5);
const PING: Duration = Duration::from_secs(1);

/// A machine of the mesh.
#[derive(Debug)]
pub struct Node {
    // Before the namespace: ends first.
    agent: Option<Program>,
    name: String,
    namespace: Namespace,
    dir: PathBuf,
    settings: Vec<(String, String)>,
}

impl Node {
    /// A node without an agent yet.
    pub fn create(name: &str) -> anyhow::Result<Self> {
        let namespace = Namespace::create(name)?;
        let dir = Path::new("/run/lab").join(name);
        // An earlier node of that name in this lab.
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(dir.join("state"))?;
        fs::create_dir_all(dir.join("run"))?;
        Ok(Self { agent: None, name: name.to_owned(), namespace, dir, settings: Vec::new() })
    }

    /// A node whose agent is ready.
    pub fn start(name: &str) -> anyhow::Result<Self> {
        let mut node = Self::create(name)?;
        node.start_agent()?;
        Ok(node)
    }

    /// Sets an environment variable of the agents started from now on; an empty value unsets it.
    pub fn set(&mut self, variable: &str, value: &str) -> &mut Self {
        self.settings.retain(|(name, _)| name != variable);
        if !value.is_empty() {
            self.settings.push((variable.to_owned(), value.to_owned()));
        }
        self
    }

    /// Starts the agent and waits until it says that it is ready.
    pub fn start_agent(&mut self) -> anyhow::Result<()> {
        let notify = self.dir.join("notify.sock");
        fs::remove_file(&notify).ok();
        let ready = UnixDatagram::bind(&notify).context("notification socket")?;
        ready.set_nonblocking(true)?;
        let agent = self.spawn_agent(|command| command.env("NOTIFY_SOCKET", &notify))?;
        let agent = self.agent.insert(agent);
        eventually(
            "readiness of the agent",
            READY,
            || {
                agent.still_runs()?;
                notified(&ready)
            },
            |ready| *ready,
        )
        .map(|_| ())
        .with_context(|| format!("agent of {}: {}", self.name, self.agent_log()))
    }

    /// Starts an agent of this node, as it is, for tests in which it is not to become ready.
    pub fn spawn_agent(&self, change: impl FnOnce(&mut Command) -> &mut Command) -> anyhow::Result<Program> {
        let mut command = bare(&binary("nsm-agent")?);
        command
            .arg("--node-name")
            .arg(&self.name)
            .arg("--cni-socket")
            .arg(self.cni_socket())
            .arg("--nsm-socket")
            .arg(self.nsm_socket())
            .arg("--state-dir")
            .arg(self.state_dir())
            .arg("--run-dir")
            .arg(self.run_dir())
            .envs(self.settings.iter().map(|(name, value)| (name, value)));
        change(&mut command);
        Program::start(
            &format!("nsm-agent of {}", self.name),
            &mut command,
            &self.namespace,
            &self.dir.join("agent.log"),
        )
    }

    /// The running agent.
    pub fn agent(&mut self) -> anyhow::Result<&mut Program> {
        self.agent.as_mut().with_context(|| format!("no agent runs on {}", self.name))
    }

    /// The output of the agents of this node so far.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.dir.join("agent.log")).unwrap_or_default()
    }

    /// SIGKILL; the agent is gone on return.
    pub fn kill_agent(&mut self) -> anyhow::Result<()> {
        self.agent.take().with_context(|| format!("no agent runs on {}", self.name))?.kill()
    }

    /// SIGTERM and an orderly end.
    pub fn stop_agent(&mut self) -> anyhow::Result<()> {
        self.agent.take().with_context(|| format!("no agent runs on {}", self.name))?.stop()
    }

    /// Waits until the agent has ended by itself, as at a failpoint.
    pub fn agent_ended(&mut self, bound: Duration) -> anyhow::Result<()> {
        self.agent()?.ended(bound)?;
        self.agent = None;
        Ok(())
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The namespace in the place of the host's.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Where the node's files are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The agent's private socket.
    pub fn cni_socket(&self) -> PathBuf {
        self.dir.join("cni.sock")
    }

    /// The agent's NSM v1 socket.
    pub fn nsm_socket(&self) -> PathBuf {
        self.dir.join("nsm.io.sock")
    }

    /// The agent's durable state.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// The agent's per-boot state.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// A pod of this node, without a process.
    pub fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        Ok(Pod { namespace: Namespace::create(&format!("{}-{name}", self.name))?, container: name.to_owned() })
    }

    /// A network configuration that asks for `service`.
    pub fn conf(&self, service: &str) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": "lab",
            "type": "nsm-cni",
            "networkService": service,
            "cniSocket": self.cni_socket(),
        })
    }

    /// The CNI plugin, run as a runtime on this node would.
    pub fn cni(&self) -> Cni<'_> {
        Cni::of(self)
    }

    /// Runs `nsmctl` against the agent; its standard output.
    pub fn nsmctl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = bare(&binary("nsmctl")?);
        command.arg("--cni-socket").arg(self.cni_socket()).args(args);
        let output = self.namespace.run(|| command.output())?.context("nsmctl")?;
        if !output.status.success() {
            bail!("nsmctl {}: {}: {}", args.join(" "), output.status, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What `nsmctl check` writes, whether it finds something or not.
    pub fn check(&self) -> anyhow::Result<String> {
        let mut command = bare(&binary("nsmctl")?);
        command.arg("--cni-socket").arg(self.cni_socket()).arg("check");
        let output = self.namespace.run(|| command.output())?.context("nsmctl")?;
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The items of `nsmctl get KIND -o json`.
    pub fn get(&self, kind: &str) -> anyhow::Result<Vec<Value>> {
        let list: Value = serde_json::from_str(&self.nsmctl(&["get", kind, "-o", "json"])?)?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The endpoints that the agent knows.
    pub fn endpoints(&self) -> anyhow::Result<Vec<admin::Endpoint>> {
        Ok(lists(self)?.0)
    }

    /// The connections that the agent knows.
    pub fn connections(&self) -> anyhow::Result<Vec<admin::ConnectionInfo>> {
        Ok(lists(self)?.1)
    }

    /// All that could be left behind, as it is now.
    pub fn leftovers(&self) -> anyhow::Result<Leftovers> {
        leftovers::of(self, self.agent.as_ref().map(Program::pid))
    }

    /// Waits (bounded) until everything is as `before`; the error shows the difference.
    pub fn nothing_left(&self, before: &Leftovers) -> anyhow::Result<()> {
        eventually("nothing left", SETTLED, || Ok(before.difference(&self.leftovers()?)), Vec::is_empty).map(|_| ())
    }
}

/// Whether the agent has said READY.
fn notified(socket: &UnixDatagram) -> anyhow::Result<bool> {
    let mut message = [0; 4096];
    match socket.recv(&mut message) {
        Ok(length) => Ok(String::from_utf8_lossy(&message[..length]).lines().any(|line| line == "READY=1")),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// A pod's sandbox: a named network namespace and a container id.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    container: String,
}

impl Pod {
    /// Its network namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What a runtime passes as `CNI_CONTAINERID`.
    pub fn container(&self) -> &str {
        &self.container
    }

    /// One echo from inside, answered within a second.
    pub fn ping(&self, address: IpAddr) -> anyhow::Result<Duration> {
        self.namespace
            .run(|| ping(address, PING))?
            .with_context(|| format!("ping {address} from {}", self.namespace.name()))
    }
}
