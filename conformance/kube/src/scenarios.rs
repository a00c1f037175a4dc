//! Runs scenarios one after the other in one cluster, each counted as a test.
//!
//! Guarantees: everything that they start is ended by the kernel when the process ends, however it ends; control groups are
//! removed after it, or before the next run. What a scenario leaves in the cluster is removed before the next begins.

use std::io::Write;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::unistd::geteuid;
use nsm_lab::runner::{Skip, ended};
use nsm_lab::sandbox;

use crate::cgroups::sweep;
use crate::mesh::Mesh;

/// Set for the process that has the cluster.
const INSIDE: &str = "NSM_KUBELET_SUITE";

/// A scenario of a cluster.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    /// `module::function`.
    pub name: &'static str,
    /// Its story.
    pub run: fn(&mut Mesh) -> anyhow::Result<()>,
}

/// The list of scenarios, by their paths.
#[macro_export]
macro_rules! scenarios {
    ($($($part:ident)::+),* $(,)?) => {
        &[$($crate::scenarios::Scenario {
            name: {
                const NAME: &str = concat!($("::", stringify!($part)),+);
                NAME.split_at(2).1
            },
            run: $($part)::+,
        }),*]
    };
}

/// `main` of the suite. Arguments: words that the scenarios' names contain; `--list`.
pub fn main(scenarios: &[Scenario], start: fn(&str) -> anyhow::Result<Mesh>, bound: Duration) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let is_asked = |scenario: &&Scenario| words.is_empty() || words.iter().any(|word| scenario.name.contains(word));
    let asked: Vec<Scenario> = scenarios.iter().filter(is_asked).copied().collect();
    if std::env::args().any(|word| word == "--list") {
        for scenario in &asked {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    if !geteuid().is_root() {
        for scenario in &asked {
            say(&format!("test {} ... SKIPPED: a kubelet needs root", scenario.name));
        }
        say(&format!("0 passed, 0 failed, {} skipped", asked.len()));
        return ExitCode::SUCCESS;
    }
    if std::env::var_os(INSIDE).is_some() {
        return run(&asked, start);
    }
    apart(bound).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}

/// Runs the scenarios in a process of their own, ended at `bound`.
fn apart(bound: Duration) -> anyhow::Result<ExitCode> {
    let program = std::env::current_exe().context("path of this program")?;
    let mut command = Command::new(program);
    let mut child = command.args(std::env::args_os().skip(1)).env(INSIDE, "1").stdin(Stdio::null()).spawn()?;
    let owner = child.id().to_string();
    sweep(&owner);
    let status = ended(&mut child, bound)?;
    sweep(&owner);
    match status {
        Some(status) if status.success() => Ok(ExitCode::SUCCESS),
        Some(_) => Ok(ExitCode::FAILURE),
        None => {
            eprintln!("ended: not done within {bound:?}");
            Ok(ExitCode::FAILURE)
        }
    }
}

fn run(scenarios: &[Scenario], start: fn(&str) -> anyhow::Result<Mesh>) -> ExitCode {
    let mesh = sandbox::enter().and_then(|sandbox| {
        eprintln!("to look around while it runs: {}", sandbox.shell());
        start(sandbox.outer_pid())
    });
    let mut mesh = match mesh {
        Ok(mesh) => mesh,
        Err(error) => {
            eprintln!("no cluster: {error:?}");
            println!("0 passed, {} failed, 0 skipped", scenarios.len());
            return ExitCode::FAILURE;
        }
    };
    let [mut passed, mut failed, mut skipped] = [0_u32; 3];
    for scenario in scenarios {
        let began = Instant::now();
        let result = (scenario.run)(&mut mesh).and_then(|()| mesh.clear());
        let seconds = began.elapsed().as_secs_f32();
        let name = scenario.name;
        match result {
            Ok(()) => {
                passed += 1;
                say(&format!("test {name} ... ok ({seconds:.2} s)"));
            }
            Err(error) if error.is::<Skip>() => {
                skipped += 1;
                say(&format!("test {name} ... SKIPPED: {error}"));
            }
            Err(error) => {
                failed += 1;
                say(&format!("test {name} ... FAILED ({seconds:.2} s)\n{error:#}\n{}", mesh.logs()));
                if let Err(error) = mesh.clear() {
                    say(&format!("and it cannot be cleaned up after: {error:#}"));
                }
            }
        }
    }
    say(&format!("{passed} passed, {failed} failed, {skipped} skipped"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A closed standard output is nobody's failure.
fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").ok();
}
