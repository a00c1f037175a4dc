//! SIGKILL of the agent at every step: after a restart each attachment is whole or gone, and kernel, store and endpoint agree.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nsm_lab::{Call, Endpoint, Leftovers, Node, Pod, binary, eventually, registered};
use serde_json::{Value, json};

use crate::{IFNAME, SERVICE};

const BOUND: Duration = Duration::from_secs(10);

/// The agent's failpoints of one verb, as it lists them itself.
fn steps(verb: &str) -> anyhow::Result<Vec<String>> {
    let output = Command::new(binary("nsm-agent")?).arg("--list-failpoints").output()?;
    let all = String::from_utf8(output.stdout)?;
    let steps: Vec<String> = all.lines().filter(|line| line.starts_with(verb)).map(str::to_owned).collect();
    ensure!(!steps.is_empty(), "the agent lists no failpoints of {verb}: {all}");
    Ok(steps)
}

/// One node, its endpoint, and a pod that has one interface already.
struct Setting {
    node: Node,
    _endpoint: Endpoint,
    bystander: Pod,
    pod: Pod,
    conf: Value,
    /// Without any attachment of `pod`, when all is quiet.
    clean: Leftovers,
    bystanders_peer: std::net::IpAddr,
}

impl Setting {
    fn make() -> anyhow::Result<Self> {
        let node = Node::start("node-1")?;
        let endpoint = Endpoint::of(SERVICE).start(&node)?;
        let [bystander, pod] = [node.pod("bystander")?, node.pod("client")?];
        let conf = node.conf(SERVICE);
        let added = node.cni().add(&bystander, IFNAME, &conf)?.ok()?;
        let bystanders_peer = added.peer(false)?;
        let clean = node.leftovers()?;
        Ok(Self { node, _endpoint: endpoint, bystander, pod, conf, clean, bystanders_peer })
    }

    /// Restarts the agent so that it kills itself at `step`.
    fn arm(&mut self, step: &str) -> anyhow::Result<()> {
        self.node.kill_agent()?;
        self.node.set("NSM_FAILPOINT", step).start_agent()?;
        self.endpoint_is_back()
    }

    /// Waits for the agent's death at the step, and starts it again without one.
    fn recover(&mut self) -> anyhow::Result<()> {
        self.node.agent_ended(BOUND)?;
        // Whole connections keep forwarding while no agent runs.
        self.bystander.ping(self.bystanders_peer).context("bystander without agent")?;
        self.node.set("NSM_FAILPOINT", "").start_agent()?;
        self.endpoint_is_back()
    }

    fn endpoint_is_back(&self) -> anyhow::Result<()> {
        eventually("the endpoint", BOUND, || registered(&self.node), |names| !names.is_empty()).map(|_| ())
    }

    /// The attachment is whole (it answers pings and CHECK) or gone without trace; which of the two.
    fn whole_or_gone(&self, result: Option<&Value>) -> anyhow::Result<bool> {
        self.bystander.ping(self.bystanders_peer).context("bystander")?;
        let container = self.pod.container();
        let settled = eventually(
            "each connection up or gone",
            BOUND,
            || self.node.connections(),
            |all| all.iter().all(|connection| connection.phase == "up"),
        )?;
        if settled.iter().any(|connection| connection.container_id == container) {
            if let Some(result) = result {
                self.node.cni().check(&self.pod, IFNAME, &self.conf, result)?.ok()?;
            }
            return Ok(true);
        }
        self.node.nothing_left(&self.clean)?;
        Ok(false)
    }

    /// Whatever it came to, DEL and a fresh ADD and DEL work.
    fn goes_on(&self) -> anyhow::Result<()> {
        self.node.cni().del(&self.pod, IFNAME, &self.conf)?.ok()?;
        self.node.nothing_left(&self.clean).context("after DEL")?;
        let added = self.node.cni().add(&self.pod, IFNAME, &self.conf)?.ok().context("a fresh ADD")?;
        self.pod.ping(added.peer(false)?)?;
        self.node.cni().del(&self.pod, IFNAME, &self.conf)?.ok()?;
        self.node.nothing_left(&self.clean).context("after a fresh ADD and DEL")
    }
}

/// Runs the story for every step, and tells of all that fail.
fn walk(verb: &str, story: impl Fn(&mut Setting, &str) -> anyhow::Result<String>) -> anyhow::Result<()> {
    let mut setting = Setting::make()?;
    let mut failures = Vec::new();
    for step in steps(verb)? {
        match story(&mut setting, &step).and_then(|outcome| setting.goes_on().map(|()| outcome)) {
            Ok(outcome) => eprintln!("killed at {step}: {outcome}"),
            Err(error) => {
                failures.push(format!("killed at {step}: {error:#}\n{}", setting.node.agent_log()));
                setting = {
                    drop(setting);
                    Setting::make()?
                };
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { bail!("{} steps:\n{}", failures.len(), failures.join("\n")) }
}

pub(crate) fn at_every_step_of_add() -> anyhow::Result<()> {
    walk("add.", |setting, step| {
        setting.arm(step)?;
        let added = setting.node.cni().add(&setting.pod, IFNAME, &setting.conf)?;
        setting.recover()?;
        let whole = setting.whole_or_gone((added.exit == 0).then_some(&added.json))?;
        ensure!(added.exit != 0 || whole, "ADD succeeded and the attachment is gone");
        Ok(format!("ADD exit code {}, {}", added.exit, if whole { "whole" } else { "gone" }))
    })
}

pub(crate) fn at_every_step_of_del() -> anyhow::Result<()> {
    walk("del.", |setting, step| {
        setting.node.cni().add(&setting.pod, IFNAME, &setting.conf)?.ok()?;
        setting.arm(step)?;
        let deleted = setting.node.cni().del(&setting.pod, IFNAME, &setting.conf)?.ok()?;
        setting.recover()?;
        // Answered or owed: either way it happens.
        setting.node.nothing_left(&setting.clean)?;
        Ok(format!("DEL in {:?}", deleted.took))
    })
}

/// No failpoint is everywhere: kills while pairs of ADD and DEL run.
pub(crate) fn at_random_moments() -> anyhow::Result<()> {
    let runtime = Node::create("runtime")?;
    let mut setting = Setting::make()?;
    let call = |command: &'static str| -> Call<'static> { Call { command, ifname: IFNAME, ..Call::default() } };
    for round in 0..12_u64 {
        let netns: PathBuf = setting.pod.namespace().path().to_owned();
        let (container, conf) = (setting.pod.container().to_owned(), setting.conf.to_string());
        std::thread::scope(|scope| -> anyhow::Result<()> {
            let storm = scope.spawn(|| -> anyhow::Result<()> {
                for _ in 0..6 {
                    for command in ["ADD", "DEL"] {
                        let call = Call {
                            container: &container,
                            netns: Some(netns.clone()),
                            stdin: conf.clone(),
                            ..call(command)
                        };
                        runtime.cni().call(&call)?;
                    }
                }
                Ok(())
            });
            // Moments that differ from round to round.
            std::thread::sleep(Duration::from_millis(3 + 7 * round));
            setting.node.kill_agent()?;
            setting.node.start_agent()?;
            storm.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        setting.endpoint_is_back()?;
        setting.goes_on().with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// A pod that asks for two services by annotation gets both or none: the agent ends between the two.
pub(crate) fn between_two_attachments_of_a_pod() -> anyhow::Result<()> {
    let mut setting = Setting::make()?;
    let other = Endpoint::of("other").cidr("172.16.2.0/24").start(&setting.node)?;
    let clean = setting.node.leftovers()?;
    let mut conf = setting.node.conf("");
    conf.as_object_mut().map(|conf| conf.remove("networkService"));
    let annotations = json!({"networkservicemesh.io": format!("kernel://{SERVICE},kernel://other")});
    conf["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
    let call = |setting: &Setting, command| {
        setting.node.cni().call(&Call {
            command,
            container: setting.pod.container(),
            netns: Some(setting.pod.namespace().path().to_owned()),
            ifname: "eth0",
            args: "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=team;K8S_POD_UID=u",
            stdin: conf.to_string(),
        })
    };
    setting.arm("pod.one-made")?;
    eventually("both endpoints", BOUND, || registered(&setting.node), |names| names.len() == 2)?;
    call(&setting, "ADD")?.refused(11)?;
    setting.recover()?;
    // The start undid it: nobody has called DEL yet.
    let of_pod = |setting: &Setting| -> anyhow::Result<usize> {
        let all = setting.node.connections()?;
        Ok(all.iter().filter(|connection| connection.container_id == setting.pod.container()).count())
    };
    ensure!(of_pod(&setting)? == 0, "{:?}", setting.node.connections()?);
    eventually("both endpoints", BOUND, || registered(&setting.node), |names| names.len() == 2)?;
    call(&setting, "DEL")?.ok()?;
    setting.node.nothing_left(&clean).context("after DEL")?;
    call(&setting, "ADD")?.ok()?;
    ensure!(of_pod(&setting)? == 2);
    call(&setting, "DEL")?.ok()?;
    setting.node.nothing_left(&clean).context("after a fresh ADD and DEL")?;
    drop(other);
    Ok(())
}
