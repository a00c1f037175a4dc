//! Runs lab tests, each in a process and a sandbox of its own.
//!
//! Guarantees: a test that hangs is ended at its bound with all that it started; one that cannot run here is counted as
//! skipped and says why; the last line is `N passed, N failed, N skipped`.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::sandbox;

/// Names the test that the process is to run.
const TEST: &str = "NSM_LAB_TEST";
const SKIPPED: u8 = 77;

/// A test of a lab binary.
#[derive(Debug, Clone, Copy)]
pub struct Test {
    /// `module::function`.
    pub name: &'static str,
    /// Its story.
    pub run: fn() -> anyhow::Result<()>,
}

/// The list of tests of a binary, by their paths.
#[macro_export]
macro_rules! tests {
    ($($($part:ident)::+),* $(,)?) => {
        &[$($crate::runner::Test {
            name: {
                const NAME: &str = concat!($("::", stringify!($part)),+);
                NAME.split_at(2).1
            },
            run: $($part)::+,
        }),*]
    };
}

/// Return this from a test that cannot run on this machine.
#[derive(Debug)]
pub struct Skip(pub String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Skip {}

enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Options {
    filters: Vec<String>,
    skips: Vec<String>,
    exact: bool,
    list: bool,
    show: bool,
    jobs: usize,
}

/// `main` of a lab test binary. Arguments as libtest's: filters, `--exact`, `--skip`, `--list`, `--nocapture`,
/// `--test-threads N`.
pub fn main(tests: &[Test], bound: Duration) -> ExitCode {
    if let Ok(name) = std::env::var(TEST) {
        return run_here(tests, &name);
    }
    let options = match options() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let chosen: Vec<Test> = tests.iter().copied().filter(|test| options.wants(test.name)).collect();
    if options.list {
        for test in &chosen {
            println!("{}: test", test.name);
        }
        return ExitCode::SUCCESS;
    }
    run_all(&chosen, bound, &options)
}

/// Whether this process runs one test of a lab binary.
pub(crate) fn in_test() -> bool {
    std::env::var_os(TEST).is_some()
}

/// Runs one test in this process.
fn run_here(tests: &[Test], name: &str) -> ExitCode {
    let entered = sandbox::enter();
    let result = entered.and_then(|sandbox| {
        eprintln!("to look around while it runs: {}", sandbox.shell());
        let test = tests.iter().find(|test| test.name == name).with_context(|| format!("no test {name}"))?;
        (test.run)()
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(reason) = error.downcast_ref::<Skip>() {
                eprintln!("\nskipped: {reason}");
                return ExitCode::from(SKIPPED);
            }
            eprintln!("\nfailed: {error:#}");
            // Of a backtrace, the test's own lines.
            for line in error.backtrace().to_string().lines().filter(|line| line.contains(" ./tests/")) {
                eprintln!("{line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run_all(tests: &[Test], bound: Duration, options: &Options) -> ExitCode {
    let queue: Mutex<VecDeque<Test>> = Mutex::new(tests.iter().copied().collect());
    let counts = Mutex::new([0_u32; 3]);
    thread::scope(|scope| {
        for _ in 0..options.jobs {
            scope.spawn(|| {
                while let Some(test) = next(&queue) {
                    let began = Instant::now();
                    let outcome = run_apart(test, bound, options.show)
                        .unwrap_or_else(|error| Outcome::Failed(format!("cannot run it: {error:#}")));
                    report(test.name, &outcome, began.elapsed(), &counts);
                }
            });
        }
    });
    let [passed, failed, skipped] = *counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn next(queue: &Mutex<VecDeque<Test>>) -> Option<Test> {
    queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
}

fn report(name: &str, outcome: &Outcome, took: Duration, counts: &Mutex<[u32; 3]>) {
    let mut counts = counts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let seconds = took.as_secs_f32();
    let (place, line) = match outcome {
        Outcome::Passed => (0, format!("test {name} ... ok ({seconds:.2} s)\n")),
        Outcome::Failed(output) => (1, format!("test {name} ... FAILED ({seconds:.2} s)\n{output}\n")),
        Outcome::Skipped(reason) => (2, format!("test {name} ... SKIPPED: {reason}\n")),
    };
    counts[place] += 1;
    // Whole lines, under the lock: two jobs must not mix theirs. A closed stdout is nobody's failure.
    io::stdout().write_all(line.as_bytes()).ok();
}

/// Waits for the end of a process; none: it was killed at `bound`.
pub fn ended(child: &mut Child, bound: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let end = Instant::now() + bound;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs one test in a process of its own, ended at `bound`.
fn run_apart(test: Test, bound: Duration, show: bool) -> anyhow::Result<Outcome> {
    let mut output = tempfile::tempfile()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.env(TEST, test.name).stdin(Stdio::null());
    if !show {
        command.stdout(output.try_clone()?).stderr(output.try_clone()?);
    }
    let mut child = command.spawn()?;
    // Its sandbox dies with it.
    let status = ended(&mut child, bound)?;
    Ok(match status.map(|status| status.code()) {
        Some(Some(0)) => Outcome::Passed,
        Some(Some(code)) if code == i32::from(SKIPPED) => Outcome::Skipped(last_line(&read(&mut output)?)),
        Some(_) => Outcome::Failed(read(&mut output)?),
        None => Outcome::Failed(format!("{}\nended: not done within {bound:?}", read(&mut output)?)),
    })
}

fn read(output: &mut File) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_line(output: &str) -> String {
    output.trim_end().rsplit('\n').next().unwrap_or_default().trim_start_matches("skipped: ").to_owned()
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        let matches = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(matches)) && !self.skips.iter().any(matches)
    }
}

fn options() -> anyhow::Result<Options> {
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut options =
        Options { filters: Vec::new(), skips: Vec::new(), exact: false, list: false, show: false, jobs: cores };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--exact" => options.exact = true,
            "--list" => options.list = true,
            "--nocapture" | "--no-capture" => options.show = true,
            "--skip" => options.skips.push(args.next().context("--skip needs a filter")?),
            "--test-threads" => options.jobs = args.next().context("--test-threads needs a number")?.parse()?,
            flag if flag.starts_with('-') => anyhow::bail!("unknown option {flag}"),
            filter => options.filters.push(filter.to_owned()),
        }
    }
    options.jobs = options.jobs.max(1);
    Ok(options)
}
