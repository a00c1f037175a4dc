//! A machine that loses its power and gets it back.
//!
//! What is honest in it: every process of the machine is killed without a word, its namespaces and mounts are gone, so is what is
//! under `/run`; files on disk stay. What is not: kernel and clock go on, and so does the machine's own network.

use std::fs;
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nsm_lab::eventually;

use crate::machine::Machine;
use crate::mesh::{Mesh, SOON};
use crate::runtime;

/// Of a machine's `/run`: what runtimes and agents keep there.
const GONE: [&str; 3] = ["/run/netns", "/run/nsm", "/run/containerd"];

impl Mesh {
    /// A machine loses its power and starts again, with everything that runs on it.
    pub fn power_cycle(&mut self, at: usize) -> anyhow::Result<()> {
        let machine = self.machine_mut(at)?;
        machine.lose_power()?;
        machine.start_runtime()?;
        self.start_agent(at)?;
        self.machine_mut(at)?.start_kubelet()
    }
}

impl Machine {
    /// Kills all that runs on it. Kubelet, containerd and agent are to be started again.
    pub fn lose_power(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = self.agent.take() {
            agent.kill()?;
        }
        self.kill_kubelet()?;
        let containers = self.processes()?;
        self.kill_runtime()?;
        let shims = shims(&runtime::socket(self.place()).display().to_string());
        for pid in shims.iter().chain(&containers) {
            // One that ended with another is dead too.
            kill(Pid::from_raw(*pid), Signal::SIGKILL).ok();
        }
        let left = || Ok(containers.iter().filter(|pid| lives(**pid)).count());
        eventually("end of all containers", SOON, left, |count| *count == 0)?;
        let state = self.place().dir().join("containerd/state");
        self.place().run(|| forget(&state))?
    }

    /// Processes of its containers, as the test sees them.
    fn processes(&self) -> anyhow::Result<Vec<i32>> {
        let tasks = self.ctr(&["tasks", "ls"])?;
        let pids = tasks.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)?.parse().ok());
        Ok(pids.collect())
    }
}

/// What holds containers for a containerd of that socket.
fn shims(socket: &str) -> Vec<i32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_shim = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).into_owned();
        words.contains("containerd-shim") && words.split('\0').any(|word| word == socket)
    };
    pids.filter(is_shim).collect()
}

/// A process that has ended and is not yet waited for holds nothing.
fn lives(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X'])))
}

/// In the machine's mounts.
fn forget(state: &Path) -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/thread-self/mountinfo")?;
    let mut points: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    points.retain(|point| {
        let below = |dir: &Path| Path::new(point) != dir && Path::new(point).starts_with(dir);
        below(state) || GONE.iter().any(|dir| below(Path::new(dir)))
    });
    for point in points.iter().rev() {
        match umount2(*point, MntFlags::MNT_DETACH) {
            // Below another mount, where nobody sees it.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(error) => return Err(error).context((*point).to_owned()),
        }
    }
    for dir in GONE.iter().map(Path::new).chain([state]) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.with_context(|| path.display().to_string())?;
        }
    }
    Ok(())
}
