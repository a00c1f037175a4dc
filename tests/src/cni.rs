//! `nsm-cni` as a runtime runs it: an environment, JSON on stdin, JSON on stdout, an exit code.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::program::{bare, binary};
use crate::{Node, Pod};

/// The plugin on one node.
#[derive(Debug, Clone, Copy)]
pub struct Cni<'a> {
    node: &'a Node,
}

/// One call, for those that the shorthands do not cover.
#[derive(Debug, Clone, Default)]
pub struct Call<'a> {
    /// `CNI_COMMAND`.
    pub command: &'a str,
    /// `CNI_CONTAINERID`; empty: not set. So for the others.
    pub container: &'a str,
    /// `CNI_NETNS`.
    pub netns: Option<PathBuf>,
    /// `CNI_IFNAME`.
    pub ifname: &'a str,
    /// `CNI_ARGS`.
    pub args: &'a str,
    /// What goes to stdin.
    pub stdin: String,
}

/// What a call came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The plugin's exit code.
    pub exit: i32,
    /// Its standard output; null when it was empty.
    pub json: Value,
    /// Its standard error.
    pub stderr: String,
    /// From start to exit.
    pub took: Duration,
}

impl<'a> Cni<'a> {
    pub(crate) fn of(node: &'a Node) -> Self {
        Self { node }
    }

    /// Runs the plugin once.
    pub fn call(self, call: &Call<'_>) -> anyhow::Result<Outcome> {
        self.call_of(&binary("nsm-cni")?, call)
    }

    /// Runs another plugin once, as it is run by a runtime that has ours beside it.
    pub fn call_of(self, program: &Path, call: &Call<'_>) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        let child = self.start_of(program, call)?;
        let output = child.wait_with_output()?;
        let took = began.elapsed();
        let stdout = String::from_utf8(output.stdout).context("standard output")?;
        let json = match stdout.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).with_context(|| format!("standard output is no JSON: {text}"))?,
        };
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let exit = output.status.code().with_context(|| format!("nsm-cni: {}: {stderr}", output.status))?;
        Ok(Outcome { exit, json, stderr, took })
    }

    /// Starts the plugin, for tests in which it does not come to its end.
    pub fn start(self, call: &Call<'_>) -> anyhow::Result<Child> {
        self.start_of(&binary("nsm-cni")?, call)
    }

    /// Runs the plugin until it ends itself at that failpoint.
    pub fn ended_at(self, failpoint: &str, call: &Call<'_>) -> anyhow::Result<()> {
        let child = self.start_with(&binary("nsm-cni")?, call, &[("NSM_FAILPOINT", failpoint)])?;
        let output = child.wait_with_output()?;
        ensure!(output.status.code().is_none(), "not ended at {failpoint}: {output:?}");
        Ok(())
    }

    fn start_of(self, program: &Path, call: &Call<'_>) -> anyhow::Result<Child> {
        self.start_with(program, call, &[])
    }

    fn start_with(self, program: &Path, call: &Call<'_>, environment: &[(&str, &str)]) -> anyhow::Result<Child> {
        let ours = binary("nsm-cni")?;
        let mut command = bare(program);
        command
            .envs(environment.iter().copied())
            .env("CNI_COMMAND", call.command)
            .env("CNI_PATH", ours.parent().unwrap_or(Path::new("/")));
        for (name, value) in [("CNI_CONTAINERID", call.container), ("CNI_IFNAME", call.ifname), ("CNI_ARGS", call.args)]
        {
            if !value.is_empty() {
                command.env(name, value);
            }
        }
        if let Some(netns) = &call.netns {
            command.env("CNI_NETNS", netns);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.node.namespace().run(|| command.spawn())?.context("starting nsm-cni")?;
        // A plugin that fails before it reads closes the pipe: no failure of the call.
        child.stdin.take().context("stdin")?.write_all(call.stdin.as_bytes()).ok();
        Ok(child)
    }

    /// Starts an ADD.
    pub fn start_add(self, pod: &Pod, ifname: &str, conf: &Value) -> anyhow::Result<Child> {
        self.start(&Call { command: "ADD", ..attachment(pod, ifname, conf) })
    }

    /// ADD.
    pub fn add(self, pod: &Pod, ifname: &str, conf: &Value) -> anyhow::Result<Outcome> {
        self.call(&Call { command: "ADD", ..attachment(pod, ifname, conf) })
    }

    /// DEL.
    pub fn del(self, pod: &Pod, ifname: &str, conf: &Value) -> anyhow::Result<Outcome> {
        self.call(&Call { command: "DEL", ..attachment(pod, ifname, conf) })
    }

    /// CHECK, with ADD's result as `prevResult`.
    pub fn check(self, pod: &Pod, ifname: &str, conf: &Value, result: &Value) -> anyhow::Result<Outcome> {
        let mut conf = conf.clone();
        conf["prevResult"] = result.clone();
        self.call(&Call { command: "CHECK", ..attachment(pod, ifname, &conf) })
    }

    /// GC; `valid` are container ids and interface names, absent: no list.
    pub fn gc(self, conf: &Value, valid: Option<&[(&str, &str)]>) -> anyhow::Result<Outcome> {
        let mut conf = conf.clone();
        if let Some(valid) = valid {
            conf["cni.dev/valid-attachments"] =
                valid.iter().map(|(id, ifname)| json!({"containerID": id, "ifname": ifname})).collect();
        }
        self.call(&Call { command: "GC", stdin: conf.to_string(), ..Call::default() })
    }

    /// STATUS.
    pub fn status(self, conf: &Value) -> anyhow::Result<Outcome> {
        self.call(&Call { command: "STATUS", stdin: conf.to_string(), ..Call::default() })
    }

    /// VERSION.
    pub fn version(self) -> anyhow::Result<Outcome> {
        let stdin = json!({"cniVersion": "1.1.0"}).to_string();
        self.call(&Call { command: "VERSION", stdin, ..Call::default() })
    }
}

fn attachment<'a>(pod: &'a Pod, ifname: &'a str, conf: &Value) -> Call<'a> {
    Call {
        container: pod.container(),
        netns: Some(pod.namespace().path().to_owned()),
        ifname,
        stdin: conf.to_string(),
        ..Call::default()
    }
}

impl Outcome {
    /// This call succeeded.
    pub fn ok(self) -> anyhow::Result<Self> {
        ensure!(self.exit == 0, "exit code {}: {} {}", self.exit, self.json, self.stderr);
        Ok(self)
    }

    /// This call failed with that CNI error code; its message and details.
    pub fn refused(self, code: i64) -> anyhow::Result<String> {
        if self.exit == 0 || self.json["code"] != code {
            bail!("expected error code {code}, got exit code {}: {} {}", self.exit, self.json, self.stderr);
        }
        let text = |key: &str| self.json[key].as_str().unwrap_or_default().to_owned();
        Ok(format!("{}: {}", text("msg"), text("details")))
    }

    /// The addresses of a result, without prefix length.
    pub fn addresses(&self) -> anyhow::Result<Vec<IpAddr>> {
        let ips = self.json["ips"].as_array().with_context(|| format!("no ips in {}", self.json))?;
        ips.iter()
            .map(|ip| {
                let text = ip["address"].as_str().and_then(|cidr| cidr.split('/').next()).unwrap_or_default();
                text.parse().with_context(|| format!("address of {ip}"))
            })
            .collect()
    }

    /// The first host route's destination of that family: the endpoint's address.
    pub fn peer(&self, ipv6: bool) -> anyhow::Result<IpAddr> {
        let routes = self.json["routes"].as_array().with_context(|| format!("no routes in {}", self.json))?;
        let host = |route: &Value| -> Option<IpAddr> {
            let (address, length) = route["dst"].as_str()?.split_once('/')?;
            let address: IpAddr = address.parse().ok()?;
            (address.is_ipv6() == ipv6 && length == if ipv6 { "128" } else { "32" }).then_some(address)
        };
        routes.iter().find_map(host).with_context(|| format!("no host route in {}", self.json))
    }
}
