//! One Go process and what it says.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::Signal;
use nsm_lab::{Namespace, Node, Program, eventually};
use serde_json::Value;

use crate::tools::tool;

/// For an event that is due at once.
const SOON: Duration = Duration::from_secs(10);

/// A running Go program; `Drop` kills it.
#[derive(Debug)]
pub struct Peer {
    program: Program,
    name: String,
}

/// A Go client in `namespace`, connecting through the node's agent. Arguments as `go-peers client -h` lists them.
pub fn go_client(node: &Node, namespace: &Namespace, name: &str, args: &[&str]) -> anyhow::Result<Peer> {
    Peer::start(node, namespace, "client", name, args)
}

/// A Go endpoint in `namespace`, once it is registered with the node's agent.
pub fn go_endpoint(node: &Node, namespace: &Namespace, name: &str, args: &[&str]) -> anyhow::Result<Peer> {
    let mut peer = Peer::start(node, namespace, "endpoint", name, args)?;
    peer.event("ready")?;
    Ok(peer)
}

/// One registry call; the events that it printed.
pub fn registry(node: &Node, name: &str, verb: &str, kind: &str, object: &Value) -> anyhow::Result<Vec<Value>> {
    let mut peer = Peer::spawn(
        node,
        node.namespace(),
        "registry",
        name,
        &["--timeout", "5s"],
        &[verb, kind, &object.to_string()],
    )?;
    let status = peer.program.ended(SOON)?;
    let events = peer.events();
    if !status.success() {
        bail!("{verb} {kind}: {}", last_word(&events).as_deref().unwrap_or("no word"));
    }
    Ok(events)
}

impl Peer {
    /// Starts `go-peers COMMAND` without waiting for anything.
    pub fn start(node: &Node, namespace: &Namespace, command: &str, name: &str, args: &[&str]) -> anyhow::Result<Self> {
        Self::spawn(node, namespace, command, name, args, &[])
    }

    /// Starts a watch of the registry.
    pub fn watch(node: &Node, name: &str, kind: &str, template: &Value) -> anyhow::Result<Self> {
        Self::spawn(node, node.namespace(), "registry", name, &[], &["watch", kind, &template.to_string()])
    }

    fn spawn(
        node: &Node,
        namespace: &Namespace,
        command: &str,
        name: &str,
        flags: &[&str],
        rest: &[&str],
    ) -> anyhow::Result<Self> {
        let mut process = Command::new(tool("go-peers")?);
        process
            .env_clear()
            .args([command, "--name", name, "--connect-to"])
            .arg(format!("unix://{}", node.nsm_socket().display()))
            .args(flags)
            .args(rest);
        let log: PathBuf = node.dir().join(format!("go-{name}.log"));
        Ok(Self { program: Program::start(name, &mut process, namespace, &log)?, name: name.to_owned() })
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Value> {
        self.program.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for the first event of that kind.
    pub fn event(&mut self, kind: &str) -> anyhow::Result<Value> {
        self.after(0, kind)
    }

    /// Waits for the first event of that kind past the first `seen` events of any.
    pub fn after(&mut self, seen: usize, kind: &str) -> anyhow::Result<Value> {
        self.matching(&format!("event {kind}"), SOON, seen, |event| event["event"] == kind)
    }

    /// Waits for the first event past the first `seen` that fits.
    pub fn matching(
        &mut self,
        what: &str,
        bound: Duration,
        seen: usize,
        fits: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let found = eventually(
            &format!("{what} of {}", self.name),
            bound,
            || {
                let found = self.events().into_iter().skip(seen).find(|event| fits(event));
                // A program that has ended says nothing more.
                if found.is_none() && self.program.still_runs().is_err() {
                    return Ok(Err(self.program.log()));
                }
                Ok(found.ok_or_else(String::new))
            },
            |found| found.as_ref().map_or_else(|log| !log.is_empty(), |_| true),
        );
        match found {
            Ok(Ok(event)) => Ok(event),
            Ok(Err(log)) => bail!("{} ended before {what}: {}", self.name, tail(&log)),
            Err(error) => Err(error).with_context(|| tail(&self.program.log())),
        }
    }

    /// SIGKILL.
    pub fn kill(self) -> anyhow::Result<()> {
        self.program.kill()
    }

    /// SIGTERM: a client closes its connection, an endpoint unregisters. The events it printed.
    pub fn stop(mut self) -> anyhow::Result<Vec<Value>> {
        self.program.signal(Signal::SIGTERM)?;
        let status = self.program.ended(SOON).with_context(|| tail(&self.program.log()))?;
        if !status.success() {
            bail!("{}: {status}: {}", self.name, tail(&self.program.log()));
        }
        Ok(self.events())
    }

    /// Waits for its end by itself; the error that it printed.
    pub fn failed(mut self, bound: Duration) -> anyhow::Result<String> {
        let status = self.program.ended(bound)?;
        match last_word(&self.events()) {
            Some(error) if !status.success() => Ok(error),
            _ => bail!("{} was to fail: {status}: {}", self.name, tail(&self.program.log())),
        }
    }
}

/// Why the program ended. Other events tell of errors, too, and may come after it: a monitor ends with the program.
fn last_word(events: &[Value]) -> Option<String> {
    let error = events.iter().rev().find(|event| event["event"] == "error")?;
    error["error"].as_str().map(str::to_owned)
}

/// Its last lines, each shortened: the SDK logs whole connections.
fn tail(log: &str) -> String {
    let lines: Vec<String> = log.lines().map(|line| line.chars().take(400).collect()).collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
