//! ADD, DEL and VERSION: one after another, and ten at once.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use nsm_lab::{Node, Pod};

use crate::Size;
use crate::plugin::Plugin;
use crate::report::{Goal, Report};

/// Between two plugins' calls: the kernel's own work behind the one's DEL must not fall into the other's figures.
pub(crate) const SETTLE: Duration = Duration::from_millis(40);
const AT_ONCE: usize = 10;

fn pods(node: &Node, what: &str, count: usize) -> anyhow::Result<Vec<Pod>> {
    (0..count).map(|i| node.pod(&format!("{what}-{i}"))).collect()
}

/// Each plugin's ADD and DEL in turn, in an order that rotates.
pub(crate) fn one_by_one(node: &Node, plugins: &[Plugin], size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let pods = pods(node, "seq", size.n)?;
    // The first calls make what stays: the bridge, the directories of host-local, warm caches.
    let warm_up = node.pod("warm-up")?;
    let (adds, dels) = node.namespace().run(|| -> anyhow::Result<_> {
        for plugin in plugins {
            plugin.call("ADD", &warm_up)?;
            plugin.call("DEL", &warm_up)?;
        }
        let mut adds = vec![Vec::new(); plugins.len()];
        let mut dels = adds.clone();
        for (turn, pod) in pods.iter().enumerate() {
            for (command, figures) in [("ADD", &mut adds), ("DEL", &mut dels)] {
                for step in 0..plugins.len() {
                    let which = (turn + step) % plugins.len();
                    figures[which].push(plugins[which].call(command, pod)?);
                    thread::sleep(SETTLE);
                }
            }
        }
        Ok((adds, dels))
    })??;
    let goals = [Goal::Most { must: 1.0, aim: 0.5 }, Goal::Most { must: 0.3, aim: 0.15 }];
    for (what, figures, goal) in [("ADD", adds, goals[0]), ("DEL", dels, goals[1])] {
        let medians = record(report, what, plugins, &figures, "ms");
        report.judge(&format!("{what} against ptp"), "×", medians[0] / medians[1], goal);
        report.judge(&format!("{what} against bridge"), "×", medians[0] / medians[2], goal);
    }
    Ok(())
}

/// Ten runtimes at once, each with the next pod that has not been served.
pub(crate) fn ten_at_once(node: &Node, plugins: &[Plugin], size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let pods = pods(node, "ten", size.n)?;
    let mut adds = vec![Vec::new(); plugins.len()];
    let mut dels = adds.clone();
    for round in 0..size.rounds {
        for step in 0..plugins.len() {
            let which = (round + step) % plugins.len();
            for (command, figures) in [("ADD", &mut adds), ("DEL", &mut dels)] {
                figures[which].push(rate(node, &plugins[which], command, &pods)?);
                thread::sleep(5 * SETTLE);
            }
        }
    }
    for (command, figures) in [("ADD", adds), ("DEL", dels)] {
        let medians = record(report, &format!("10 at once, {command}"), plugins, &figures, "/s");
        let goal = Goal::Least { must: 1.5, aim: 3.0 };
        report.judge(&format!("10 at once, {command}/s against ptp"), "×", medians[0] / medians[1], goal);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "some hundred calls")]
fn rate(node: &Node, plugin: &Plugin, command: &str, pods: &[Pod]) -> anyhow::Result<f64> {
    let next = AtomicUsize::new(0);
    node.namespace().run(|| {
        let began = Instant::now();
        thread::scope(|scope| {
            // Threads begin in the namespace of the one that makes them.
            let workers: Vec<_> = (0..AT_ONCE)
                .map(|_| {
                    scope.spawn(|| -> anyhow::Result<()> {
                        while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                            plugin.call(command, pod)?;
                        }
                        Ok(())
                    })
                })
                .collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        })?;
        Ok(pods.len() as f64 / began.elapsed().as_secs_f64())
    })?
}

/// VERSION, with a program that does nothing as the floor.
pub(crate) fn version(node: &Node, plugins: &[Plugin], size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let nothing = ["/bin/true", "/usr/bin/true"].into_iter().map(PathBuf::from).find(|path| path.is_file());
    let (figures, floor) = node.namespace().run(|| -> anyhow::Result<_> {
        let mut figures = vec![Vec::new(); plugins.len()];
        let mut floor = Vec::new();
        for _ in 0..size.n {
            for (plugin, figures) in plugins.iter().zip(&mut figures) {
                figures.push(plugin.version()?);
            }
            if let Some(nothing) = &nothing {
                let began = Instant::now();
                Command::new(nothing).stdin(Stdio::piped()).stdout(Stdio::piped()).output().context("true")?;
                floor.push(began.elapsed().as_secs_f64() * 1000.0);
            }
        }
        Ok((figures, floor))
    })??;
    report.series("VERSION", "true", "ms", &floor);
    let medians = record(report, "VERSION", plugins, &figures, "ms");
    report.judge("nsm-cni VERSION", "ms", medians[0], Goal::Most { must: 1.5, aim: 1.0 });
    Ok(())
}

fn record(report: &mut Report, what: &str, plugins: &[Plugin], figures: &[Vec<f64>], unit: &'static str) -> Vec<f64> {
    plugins
        .iter()
        .zip(figures)
        .map(|(plugin, figures)| report.series(what, plugin.name, unit, figures).unwrap_or(f64::NAN))
        .collect()
}
