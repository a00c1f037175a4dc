//! Running other programs: each in a process group of its own, ended at a bound.
//!
//! Guarantee: no program is left behind, neither at its bound nor when xtask itself is told to end.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio, exit};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

/// The group of the program that runs now; 0: none.
static GROUP: AtomicI32 = AtomicI32::new(0);

/// Whether it runs until somebody ends it: then that is no failure.
static STAYING: AtomicBool = AtomicBool::new(false);

/// What became of a program.
pub(crate) struct Ran {
    pub(crate) success: bool,
    /// Its standard output, when it was to be kept.
    pub(crate) stdout: String,
}

/// Ends the running program with this one. Call before any thread exists.
pub(crate) fn pass_signals_on() {
    let ours = endings();
    if ours.thread_block().is_ok() {
        thread::spawn(move || {
            if let Ok(signal) = ours.wait() {
                end_group(GROUP.load(Ordering::SeqCst));
                if STAYING.load(Ordering::SeqCst) {
                    farewell();
                }
                exit(128 + signal as i32);
            }
        });
    }
}

/// The signals that tell a program to end.
fn endings() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect()
}

fn end_group(group: i32) {
    if group > 0 {
        killpg(Pid::from_raw(group), Signal::SIGKILL).ok();
    }
}

/// The name and arguments, as one would type them.
pub(crate) fn words(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().rsplit('/').next().unwrap_or_default().to_owned()];
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Runs to the end, with its output on ours; an error when it fails.
pub(crate) fn run(command: &mut Command, bound: Duration) -> anyhow::Result<()> {
    let mut child = start(command)?;
    if !ended(&mut child, bound, &words(command))? {
        bail!("{} failed", words(command));
    }
    Ok(())
}

/// Runs until a signal ends it, or us; an error only when it fails by itself.
pub(crate) fn stay(command: &mut Command, bound: Duration) -> anyhow::Result<()> {
    STAYING.store(true, Ordering::SeqCst);
    let mut child = start(command)?;
    let success = ended(&mut child, bound, &words(command))?;
    // Its parts die with it, and it passes their exit code on.
    if !success && child.try_wait()?.is_none_or(|status| status.signal().is_none()) {
        bail!("{} failed", words(command));
    }
    farewell()
}

/// Said once, whoever of us notices first.
fn farewell() -> ! {
    static SAID: Once = Once::new();
    SAID.call_once(|| println!("ended; nothing is left"));
    exit(0)
}

/// Runs to the end and also keeps what it writes to standard output.
pub(crate) fn run_and_read(command: &mut Command, bound: Duration) -> anyhow::Result<Ran> {
    let mut child = start(command.stdout(Stdio::piped()))?;
    let stdout = child.stdout.take().context("stdout")?;
    let reader = thread::spawn(move || {
        let mut kept = String::new();
        let mut lines = BufReader::new(stdout);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            std::io::stdout().write_all(&line).ok();
            kept.push_str(&String::from_utf8_lossy(&line));
            line.clear();
        }
        kept
    });
    let success = ended(&mut child, bound, &words(command))?;
    // Whoever else of the group holds the pipe must not keep us.
    end_group(i32::try_from(child.id())?);
    let stdout = reader.join().unwrap_or_default();
    Ok(Ran { success, stdout })
}

fn start(command: &mut Command) -> anyhow::Result<Child> {
    // A child inherits what is blocked, and must be able to end.
    endings().thread_unblock().context("signal mask")?;
    let child = command.process_group(0).stdin(Stdio::null()).spawn();
    endings().thread_block().context("signal mask")?;
    let child = child.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    GROUP.store(i32::try_from(child.id())?, Ordering::SeqCst);
    Ok(child)
}

/// Waits; whether it succeeded. At the bound its whole group is killed.
fn ended(child: &mut Child, bound: Duration, words: &str) -> anyhow::Result<bool> {
    let end = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait()? {
            GROUP.store(0, Ordering::SeqCst);
            return Ok(status.success());
        }
        if Instant::now() > end {
            end_group(i32::try_from(child.id())?);
            child.wait()?;
            GROUP.store(0, Ordering::SeqCst);
            eprintln!("xtask: {words}: ended, as it was not done within {} s", bound.as_secs());
            return Ok(false);
        }
        thread::sleep(Duration::from_millis(20));
    }
}
