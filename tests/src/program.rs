//! The product's programs as child processes, each in a network namespace, with its output in a file.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{Namespace, eventually, runner};

/// For an orderly end.
const STOP: Duration = Duration::from_secs(10);

/// The path of one of the workspace's binaries: beside this executable, where cargo put both.
///
/// # Errors
/// When it has not been built: `cargo test` alone does not build the other packages' binaries.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("path of this program")?;
    // target/PROFILE/ for a binary, target/PROFILE/deps/ for a test.
    let places: Vec<PathBuf> = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).collect();
    match places.iter().find(|place| place.is_file()) {
        Some(place) => Ok(place.clone()),
        None => bail!(
            "{name} is not beside {}: build the programs first, `cargo build --workspace --bins` (`cargo xtask test` does)",
            exe.display()
        ),
    }
}

/// A running program; `Drop` kills it. In a test, its output is then shown with the test's.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command` inside `namespace`; stdout and stderr go to `log`, after what is there already.
    pub fn start(name: &str, command: &mut Command, namespace: &Namespace, log: &Path) -> anyhow::Result<Self> {
        Self::start_by(name, command, log, |command| namespace.run(|| command.spawn()))
    }

    /// The same, wherever `spawn` starts it.
    pub fn start_by(
        name: &str,
        command: &mut Command,
        log: &Path,
        spawn: impl FnOnce(&mut Command) -> anyhow::Result<io::Result<Child>>,
    ) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log).context("log file")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = spawn(command)?.with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Process id, in the lab.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// Its output so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Fails, with the end of its output, when it has ended.
    pub fn still_runs(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended: {status}\n{}", self.name, tail(&self.log())),
        }
    }

    /// Waits until it ends by itself.
    pub fn ended(&mut self, bound: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("end of {}", self.name);
        eventually(&what, bound, || Ok(self.child.try_wait()?), Option::is_some)?.context("no status")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.pid())?);
        kill(pid, signal).with_context(|| format!("{signal} to {}", self.name))
    }

    /// SIGKILL, and gone on return.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM; fails when it does not end, or not with success.
    pub fn stop(mut self) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.ended(STOP)?;
        if !status.success() && status.signal() != Some(Signal::SIGTERM as i32) {
            bail!("{} ended with {status}\n{}", self.name, tail(&self.log()));
        }
        Ok(())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if runner::in_test() {
            eprintln!("---- output of {} ----\n{}", self.name, self.log());
            // Another program of that name continues the file, which has been shown up to here.
            fs::write(&self.log, "").ok();
        }
    }
}

/// A command with nothing but what is given: no variable of the caller's changes what a program does.
pub(crate) fn bare(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").as_deref().unwrap_or(OsStr::new("/usr/bin:/bin")));
    if let Some(backtrace) = std::env::var_os("RUST_BACKTRACE") {
        command.env("RUST_BACKTRACE", backtrace);
    }
    command
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
