//! Size and memory, of the plugin and of the agent.

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nsm_lab::{Node, Pod, binary};

use crate::Size;
use crate::plugin::Plugin;
use crate::report::{Goal, Report};

const MIB: f64 = 1024.0 * 1024.0;
/// Interfaces in one pod.
const PER_POD: usize = 10;

/// Runs a program and prints its peak memory in KiB on stderr.
///
/// A child starts with its parent's high-water mark: only a small parent, as this process is, measures a small child.
pub(crate) fn launch(program: &str, args: &[String]) -> anyhow::Result<()> {
    let status = Command::new(program).args(args).status().with_context(|| format!("starting {program}"))?;
    ensure!(status.success(), "{program}: {status}");
    // Its own by VmHWM: its rusage begins with the mark of whoever started it.
    eprintln!("{} {}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss(), kib("/proc/self/status", "VmHWM:")?);
    Ok(())
}

/// Size of the plugin, and its peak memory during an ADD.
#[expect(clippy::cast_precision_loss, reason = "a file of some megabytes")]
pub(crate) fn plugin(node: &Node, plugins: &[Plugin], report: &mut Report) -> anyhow::Result<()> {
    let launcher = binary("nsm-bench")?;
    for plugin in plugins {
        let pod = node.pod(&format!("memory-{}", plugin.name))?;
        let (peak, floor) = node.namespace().run(|| -> anyhow::Result<_> {
            let said = plugin.call_through(&launcher, &["--launch"], "ADD", &pod)?;
            plugin.call("DEL", &pod)?;
            let mut numbers = said.lines().last().unwrap_or_default().split(' ').map(str::parse::<f64>);
            let mut next = || numbers.next().context("the launcher's two figures")?.context("a figure");
            Ok((next()? / 1024.0, next()? / 1024.0))
        })??;
        let size = fs::metadata(&plugin.program)?.len() as f64 / 1e6;
        report.series("peak memory of ADD", plugin.name, "MiB", &[peak]);
        report.series("peak memory of the launcher", plugin.name, "MiB", &[floor]);
        report.series("size", plugin.name, "MB", &[size]);
        if plugin.name == "nsm-cni" {
            report.judge("nsm-cni size", "MB", size, Goal::Most { must: 4.0, aim: 3.0 });
            report.judge("nsm-cni peak memory", "MiB", peak, Goal::Most { must: 8.0, aim: 6.0 });
        }
    }
    Ok(())
}

/// The agent's memory right after its start.
pub(crate) fn idle(node: &mut Node, report: &mut Report) -> anyhow::Result<()> {
    let resident = resident(node)?;
    report.series("agent memory, idle", "nsm-agent", "MiB", &[resident]);
    report.judge("agent memory, idle", "MiB", resident, Goal::Most { must: 16.0, aim: 12.0 });
    Ok(())
}

/// The agent's memory with many connections.
pub(crate) fn connections(node: &mut Node, plugins: &[Plugin], size: &Size, report: &mut Report) -> anyhow::Result<()> {
    // An agent that has done nothing else.
    node.stop_agent()?;
    node.start_agent()?;
    let agent = node.agent()?.pid();
    let endpoint = crate::sut::second_endpoint(node)?;
    let pods: Vec<Pod> =
        (0..size.connections.div_ceil(PER_POD)).map(|i| node.pod(&format!("many-{i}"))).collect::<Result<_, _>>()?;
    let each = |command: &str| {
        node.namespace().run(|| -> anyhow::Result<()> {
            for i in 0..size.connections {
                plugins[0].call_as(command, &pods[i / PER_POD], &format!("nsm-{i}"))?;
            }
            Ok(())
        })
    };
    each("ADD")??;
    let full = resident_of(agent)?;
    each("DEL")??;
    let after = resident_of(agent)?;
    let what = format!("agent memory, {} connections", size.connections);
    report.series(&what, "nsm-agent", "MiB", &[full]);
    report.series("agent memory, after their DEL", "nsm-agent", "MiB", &[after]);
    report.judge(&what, "MiB", full, Goal::Most { must: 40.0, aim: 25.0 });
    drop(endpoint);
    Ok(())
}

fn resident(node: &mut Node) -> anyhow::Result<f64> {
    resident_of(node.agent()?.pid())
}

fn resident_of(pid: u32) -> anyhow::Result<f64> {
    Ok(kib(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024.0 / MIB)
}

/// A line of a process's status that counts KiB.
fn kib(status: &str, key: &str) -> anyhow::Result<f64> {
    let text = fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| key.to_owned())?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}
