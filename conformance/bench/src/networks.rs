//! The meta-plugin beside the plugins that it runs, run by hand.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::Context;
use nsm_lab::{Node, Pod, binary};

use crate::Size;
use crate::calls::SETTLE;
use crate::plugin::{self, Plugin};
use crate::report::{Goal, Report};

const AT_ONCE: usize = 100;

/// A folder on a disk, as records are synced: not the lab's own `/run`.
struct OnDisk(PathBuf);

impl OnDisk {
    fn make() -> anyhow::Result<Self> {
        let path = Path::new("/var/tmp").join(format!("nsm-bench-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// One and two networks, by hand and by the meta-plugin, in turn; its memory; a hundred at once.
pub(crate) fn measure(node: &Node, plugins: &[Plugin], size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let disk = OnDisk::make()?;
    let by_hand = &plugins[1..3];
    let one = plugin::meta(node, &disk.0, &by_hand[..1])?;
    let two = plugin::meta(node, &disk.0, by_hand)?;
    let warm_up = node.pod("networks-warm-up")?;
    let pods = (0..size.n).map(|i| node.pod(&format!("networks-{i}"))).collect::<anyhow::Result<Vec<_>>>()?;
    let planned = plugin::planned(node, &disk.0, by_hand)?;
    let cases: [(&str, Vec<&Plugin>); 5] = [
        ("ptp by hand", vec![&by_hand[0]]),
        ("nsm-cni with ptp", vec![&one]),
        ("ptp and bridge by hand", by_hand.iter().collect()),
        ("nsm-cni with ptp and bridge", vec![&two]),
        ("nsm-cni with both, planned by the agent", vec![&planned]),
    ];
    let adds = node.namespace().run(|| -> anyhow::Result<_> {
        let mut adds = vec![Vec::new(); cases.len()];
        for (turn, pod) in [&warm_up].into_iter().chain(&pods).enumerate() {
            for step in 0..cases.len() {
                let which = (turn + step) % cases.len();
                let took = cases[which].1.iter().map(|plugin| plugin.call("ADD", pod)).sum::<anyhow::Result<f64>>()?;
                cases[which].1.iter().rev().try_for_each(|plugin| plugin.call("DEL", pod).map(drop))?;
                if turn > 0 {
                    adds[which].push(took);
                }
                thread::sleep(SETTLE);
            }
        }
        Ok(adds)
    })??;
    let medians: Vec<f64> = cases
        .iter()
        .zip(&adds)
        .map(|((who, _), figures)| report.series("networks, ADD", who, "ms", figures).unwrap_or(f64::NAN))
        .collect();
    let goal = Goal::Most { must: 1.5, aim: 1.2 };
    report.judge("networks, ADD of one, against ptp", "×", medians[1] / medians[0], goal);
    let goal = Goal::Most { must: 5.0, aim: 2.0 };
    report.judge("networks, ADD of two, above the same by hand", "ms", medians[3] - medians[2], goal);
    at_once(node, &two, report)?;
    memory(node, &two, report)
}

/// Of each of many calls at once: its largest process, its plugins' included.
fn memory(node: &Node, two: &Plugin, report: &mut Report) -> anyhow::Result<()> {
    let launcher = binary("nsm-bench")?;
    let pods = (0..AT_ONCE).map(|i| node.pod(&format!("networks-memory-{i}"))).collect::<anyhow::Result<Vec<_>>>()?;
    let peaks = Mutex::new(Vec::new());
    node.namespace().run(|| {
        all(&pods, |pod| {
            let said = two.call_through(&launcher, &["--launch"], "ADD", pod)?;
            let words = said.lines().last().and_then(|line| line.split(' ').next()).context("the launcher's figure")?;
            let peak = words.parse::<f64>()? / 1024.0;
            peaks.lock().unwrap_or_else(PoisonError::into_inner).push(peak);
            Ok(())
        })?;
        all(&pods, |pod| two.call("DEL", pod).map(drop))
    })??;
    let peaks = peaks.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.series(&format!("networks, peak memory of {AT_ONCE} at once"), two.name, "MiB", &peaks);
    let largest = peaks.into_iter().fold(0.0, f64::max);
    report.judge("networks, largest peak memory of a call", "MiB", largest, Goal::Most { must: 8.0, aim: 6.0 });
    Ok(())
}

/// One call for each pod, all at once.
fn all(pods: &[Pod], call: impl Fn(&Pod) -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let calls: Vec<_> = pods.iter().map(|pod| scope.spawn(|| call(pod))).collect();
        calls.into_iter().try_for_each(|one| one.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// All of them succeed, or the benchmark fails.
#[expect(clippy::cast_precision_loss, reason = "a hundred calls")]
fn at_once(node: &Node, two: &Plugin, report: &mut Report) -> anyhow::Result<()> {
    let pods = (0..AT_ONCE).map(|i| node.pod(&format!("networks-at-once-{i}"))).collect::<anyhow::Result<Vec<_>>>()?;
    for command in ["ADD", "DEL"] {
        let rate = node.namespace().run(|| -> anyhow::Result<f64> {
            let began = Instant::now();
            all(&pods, |pod| two.call(command, pod).map(drop))?;
            Ok(AT_ONCE as f64 / began.elapsed().as_secs_f64())
        })??;
        report.series(&format!("networks, {AT_ONCE} at once, {command}"), two.name, "/s", &[rate]);
    }
    Ok(())
}
