//! `nsm-bench`: the CNI plugin and the agent measured beside `ptp` and `bridge` of containernetworking/plugins, in one run.
//!
//! Guarantees: everything happens in namespaces of its own; what is compared is interleaved, so that a busy machine slows
//! both sides; ratios are of medians. Absolute times are this machine's alone.
#![forbid(unsafe_code)]

mod calls;
mod memory;
mod networks;
mod plugin;
mod report;
mod scale;
mod stats;
mod sut;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use nsm_lab::{Node, sandbox};

use crate::report::Report;

/// Measures nsm-cni and nsm-agent beside the reference plugins, and compares the figures with what they must reach.
#[derive(Debug, Parser)]
struct Arguments {
    /// Operations of each kind.
    #[arg(long, default_value_t = 120)]
    n: usize,
    /// Only shows that the benchmark runs: five operations of each kind, no verdict.
    #[arg(long)]
    smoke: bool,
    /// Where the figures go as JSON.
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Measures only rows whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Exits with failure when a figure misses what it must reach.
    #[arg(long)]
    strict: bool,
    /// Runs the given program once and prints its peak memory: what this program starts itself as, being small.
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    launch: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some((program, args)) = arguments.launch.split_first() {
        return memory::launch(program, args).map(|()| ExitCode::SUCCESS);
    }
    // Outside, where the module proxy can be reached. Inside, it is there already.
    if !nsm_peers::tools::dir()?.join("go-peers").is_file() {
        nsm_peers::tools::build_go_peers()?;
    }
    sandbox::enter()?;
    let size = Size::of(&arguments);
    let mut report = Report::new(arguments.only.clone());
    measure(&size, &mut report)?;
    report.print();
    if !arguments.smoke {
        report.verdicts();
    }
    report.save(&arguments.json).with_context(|| format!("writing {}", arguments.json.display()))?;
    println!("\nfigures: {}", arguments.json.display());
    let missed = !arguments.smoke && report.missed();
    Ok(if missed && arguments.strict { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// How much of each is done.
pub(crate) struct Size {
    pub(crate) n: usize,
    pub(crate) rounds: usize,
    pub(crate) connections: usize,
    pub(crate) endpoints: usize,
}

impl Size {
    fn of(arguments: &Arguments) -> Self {
        if arguments.smoke {
            Self { n: 5, rounds: 1, connections: 20, endpoints: 100 }
        } else {
            Self { n: arguments.n, rounds: 5, connections: 1000, endpoints: 10_000 }
        }
    }
}

fn measure(size: &Size, report: &mut Report) -> anyhow::Result<()> {
    let mut node = Node::start("bench")?;
    memory::idle(&mut node, report)?;
    let endpoint = sut::endpoint(&node)?;
    let plugins = plugin::all(&node)?;
    if report.wants("ADD") || report.wants("DEL") {
        calls::one_by_one(&node, &plugins, size, report)?;
    }
    if report.wants("10 at once") {
        calls::ten_at_once(&node, &plugins, size, report)?;
    }
    if report.wants("VERSION") {
        calls::version(&node, &plugins, size, report)?;
    }
    if report.wants("nsm-cni") {
        memory::plugin(&node, &plugins, report)?;
    }
    if report.wants("networks") {
        networks::measure(&node, &plugins, size, report)?;
    }
    if report.wants("Go client") {
        sut::go_client(&node, size, report)?;
    }
    if report.wants("connections") {
        memory::connections(&mut node, &plugins, size, report)?;
    }
    drop(endpoint);
    drop(node);
    if report.wants("endpoints") {
        scale::endpoints(size, report)?;
        scale::of_one_service(size, report)?;
    }
    Ok(())
}
