//! `nsm-memif-bench`: this repository's memif and DPDK's, as pairs and mixed, in one run; and what interrupt mode costs.
//!
//! Guarantees: what is compared is interleaved, so that a busy machine slows all of it; figures are medians over the rounds. Each end
//! that polls has a processor of its own, where there are two.
#![forbid(unsafe_code)]

mod goals;
mod programs;
mod waking;

use std::{path::PathBuf, process::ExitCode, thread, time::Duration};

use clap::Parser;

use crate::{
    goals::{Goal, Report},
    programs::{Pair, Programs, SIZE},
};

/// What is in the table of the project's goals.
const RATE: Goal = Goal::Least { must: 0.6, aim: 1.0 };
const P50: Goal = Goal::Most { must: 20.0, aim: 10.0 };
const P99: Goal = Goal::Most { must: 60.0, aim: 30.0 };
/// The aim is none; what can be told from that is a hundredth.
const IDLE: Goal = Goal::Most { must: 0.5, aim: 0.01 };
/// Of one second of a build without optimisations, in which setting up counts too; who does not sleep takes all of it.
const IDLE_AT_ALL: Goal = Goal::Most { must: 20.0, aim: 0.01 };
/// How long an end looks before it sleeps, where it does.
const SPIN: Duration = Duration::from_micros(100);

/// Measures memif: pairs of this repository's and of DPDK's, and one of each; latency and cost in interrupt mode.
#[derive(Debug, Parser)]
struct Flags {
    /// Rounds; the medians are told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// What to measure; all of it unless said.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["rates", "waking", "idle"])]
    only: Vec<Part>,
    /// One short round without DPDK: whether it works at all, and idles.
    #[arg(long)]
    smoke: bool,
    /// Exits with failure when a figure misses what it must reach.
    #[arg(long)]
    strict: bool,
    /// Where memif-gen is.
    #[arg(long, default_value = "target/release/memif-gen")]
    memif_gen: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// Packets per second, polling, beside DPDK.
    Rates,
    /// How soon a sleeper has its packet, beside an eventfd alone.
    Waking,
    /// What an idle end costs.
    Idle,
}

fn main() -> anyhow::Result<ExitCode> {
    let flags = Flags::parse();
    let (rounds, each) = if flags.smoke { (1, 1) } else { (flags.rounds, flags.seconds) };
    let programs = Programs { memif_gen: flags.memif_gen, each: Duration::from_secs(each) };
    let mut report = Report::default();
    for round in 0..rounds {
        eprintln!("round {round}");
        for part in &flags.only {
            match part {
                Part::Rates if flags.smoke => {
                    report.add("memif -> memif", "pps", programs.throughput(Pair::Ours)?, Goal::None);
                }
                Part::Rates => rates(&programs, &mut report)?,
                Part::Waking => waking(&programs, &mut report)?,
                Part::Idle => idle(&programs, &mut report, if flags.smoke { IDLE_AT_ALL } else { IDLE })?,
            }
        }
    }
    let processors = thread::available_parallelism().map_or(0, usize::from);
    println!("medians of {rounds} rounds, {SIZE}-byte frames, {processors} processors\n");
    let mut missed = report.print();
    // What a busy machine does not change is looked at in any case.
    if !flags.strict {
        missed.retain(|what| flags.smoke && what.starts_with("idle"));
    }
    Ok(if missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn idle(programs: &Programs, report: &mut Report, goal: Goal) -> anyhow::Result<()> {
    report.add("idle, asleep, of a processor", "%", waking::idle(programs.each)?, goal);
    report.add("idle, memif-gen sink, of a processor", "%", programs.idle()?, goal);
    Ok(())
}

fn rates(programs: &Programs, report: &mut Report) -> anyhow::Result<()> {
    let dpdk = programs.throughput(Pair::Dpdk)?;
    report.add("DPDK -> DPDK", "pps", dpdk, Goal::None);
    for (pair, what, ratio) in [
        (Pair::Ours, "memif -> memif", "memif -> memif, of DPDK's pair"),
        (Pair::OursToDpdk, "memif -> DPDK", "memif -> DPDK, of DPDK's pair"),
        (Pair::DpdkToOurs, "DPDK -> memif", "DPDK -> memif, of DPDK's pair"),
    ] {
        let rate = programs.throughput(pair)?;
        report.add(what, "pps", rate, Goal::None);
        report.add(ratio, "x", rate / dpdk, RATE);
    }
    Ok(())
}

fn waking(programs: &Programs, report: &mut Report) -> anyhow::Result<()> {
    let count = |every| usize::try_from(programs.each.as_micros() / every).unwrap_or(usize::MAX).max(100);
    let waking::Both { memif, bare } = waking::one_way(count(1000))?;
    report.add("one way, asleep, p50", "us", memif.p50, P50);
    report.add("one way, asleep, p99", "us", memif.p99, P99);
    report.add("an eventfd alone, asleep, p50", "us", bare.p50, Goal::None);
    report.add("an eventfd alone, asleep, p99", "us", bare.p99, Goal::None);
    report.add("one way, asleep, p50, of an eventfd's", "x", memif.p50 / bare.p50, Goal::None);
    report.add("one way, asleep, p99, of an eventfd's", "x", memif.p99 / bare.p99, Goal::None);
    let (p50, p99) = programs.latency()?;
    report.add("one way, asleep, from program to program, p50", "us", p50, Goal::None);
    report.add("one way, asleep, from program to program, p99", "us", p99, Goal::None);
    let asleep = waking::to_and_fro(count(200), Duration::ZERO)?;
    report.add("half of to and fro, asleep, p50", "us", asleep.p50, Goal::None);
    report.add("half of to and fro, asleep, p99", "us", asleep.p99, Goal::None);
    let looking = waking::to_and_fro(count(200), SPIN)?;
    report.add("half of to and fro, looking for 100 us first, p50", "us", looking.p50, Goal::None);
    report.add("half of to and fro, looking for 100 us first, p99", "us", looking.p99, Goal::None);
    Ok(())
}
