//! `nsm-memif-bench`: this repository's memif and DPDK's, as pairs and mixed, in one run.
//!
//! Guarantees: what is compared is interleaved, so that a busy machine slows all of it; ratios are of medians over the rounds. Each end
//! polls on a processor of its own; the latency is from program to program, one way, with both ends asleep between packets.
#![forbid(unsafe_code)]

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Parser;
use nix::{
    sched::{CpuSet, sched_setaffinity},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use nsm_memif_peers::{Forwards, Testpmd, device};

/// Bytes of a frame.
const SIZE: &str = "64";
/// How long a socket takes to be there.
const SOON: Duration = Duration::from_secs(20);
/// Packets per second for the latency.
const PACE: &str = "2000";

/// Measures memif: pairs of this repository's and of DPDK's, and one of each.
#[derive(Debug, Parser)]
struct Flags {
    /// Rounds; the medians are told.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Where memif-gen is.
    #[arg(long, default_value = "target/release/memif-gen")]
    memif_gen: PathBuf,
}

/// What is measured, in packets per second but for the last three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Ours,
    OursToDpdk,
    DpdkToOurs,
    Dpdk,
    MedianUs,
    HighUs,
    IdlePercent,
}

const ROWS: [(Row, &str); 7] = [
    (Row::Ours, "memif -> memif, pps"),
    (Row::OursToDpdk, "memif -> DPDK, pps"),
    (Row::DpdkToOurs, "DPDK -> memif, pps"),
    (Row::Dpdk, "DPDK -> DPDK, pps"),
    (Row::MedianUs, "one way, asleep, p50, us"),
    (Row::HighUs, "one way, asleep, p99, us"),
    (Row::IdlePercent, "idle, asleep, % of a processor"),
];

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let mut all: Vec<(Row, f64)> = Vec::new();
    for round in 0..flags.rounds {
        for (row, name) in ROWS {
            let value = match row {
                Row::HighUs => continue,
                Row::MedianUs => {
                    let line = latency(&flags)?;
                    all.push((Row::HighUs, number(&line, "p99")?));
                    number(&line, "p50")?
                }
                Row::Ours | Row::OursToDpdk | Row::DpdkToOurs | Row::Dpdk => throughput(&flags, row)?,
                Row::IdlePercent => idle(&flags)?,
            };
            eprintln!("round {round}: {name}: {value:.1}");
            all.push((row, value));
        }
    }
    let median = |row| {
        let mut values: Vec<f64> = all.iter().filter(|(of, _)| *of == row).map(|(_, value)| *value).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    };
    let pair = median(Row::Dpdk);
    println!("median of {} rounds, {SIZE}-byte frames, {}", flags.rounds, processors());
    for (row, name) in ROWS {
        let value = median(row);
        match row {
            Row::Ours | Row::OursToDpdk | Row::DpdkToOurs | Row::Dpdk => {
                println!("{name:32} {value:>12.0}  {:.2} of DPDK's pair", value / pair);
            }
            Row::MedianUs | Row::HighUs | Row::IdlePercent => println!("{name:32} {value:>12.2}"),
        }
    }
    Ok(())
}

fn processors() -> String {
    format!("{} processors", thread::available_parallelism().map_or(0, usize::from))
}

/// A memif-gen that ends with its owner.
struct Gen(Child);

impl Gen {
    /// On one processor: an end that polls has it for itself.
    fn start(flags: &Flags, socket: &Path, processor: usize, args: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(&flags.memif_gen);
        command.arg("--socket").arg(socket).args(args).stdout(Stdio::piped()).stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("{}: cargo build --release -p memif-programs", flags.memif_gen.display()))?;
        let mut set = CpuSet::new();
        set.set(processor)?;
        // A machine with one processor has no other.
        let _ = sched_setaffinity(pid(&child), &set);
        Ok(Self(child))
    }

    /// What it tells at its end.
    fn end(mut self) -> anyhow::Result<String> {
        let mut said = String::new();
        let mut stdout = self.0.stdout.take().context("no stdout")?;
        std::io::Read::read_to_string(&mut stdout, &mut said)?;
        Ok(said)
    }

    fn stop(self) -> anyhow::Result<String> {
        kill(pid(&self.0), Signal::SIGTERM)?;
        self.end()
    }
}

impl Drop for Gen {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn number(line: &str, name: &str) -> anyhow::Result<f64> {
    let found = line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    Ok(found.with_context(|| format!("no {name} in {line:?}"))?.parse()?)
}

fn there(socket: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    while !socket.exists() {
        if began.elapsed() > SOON {
            bail!("{} does not appear", socket.display());
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Packets per second that arrive: the receiver is the server.
fn throughput(flags: &Flags, row: Row) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("memif.sock");
    let (from_dpdk, to_dpdk) = match row {
        Row::OursToDpdk => (false, true),
        Row::DpdkToOurs => (true, false),
        Row::Dpdk => (true, true),
        Row::Ours | Row::MedianUs | Row::HighUs | Row::IdlePercent => (false, false),
    };
    let poll = ["--receive", "poll"];
    let mut dpdk_sink = to_dpdk.then(|| Testpmd::start(&device("server", &socket, ""), "rxonly", &[])).transpose()?;
    let server: Vec<&str> = [&poll[..], &["--role", "server", "sink"]].concat();
    let sink = (!to_dpdk).then(|| Gen::start(flags, &socket, 0, &server)).transpose()?;
    there(&socket)?;
    if let Some(sink) = &mut dpdk_sink {
        sink.forward()?;
    }
    let seconds = flags.seconds.to_string();
    if !from_dpdk {
        // Nothing comes back, so it sleeps where it would count that.
        let args = ["--seconds", &seconds, "send", "--rate", "max", "--size", SIZE];
        let sent = Gen::start(flags, &socket, 1, &args)?.end()?;
        // DPDK forgets what it counted when its peer goes. What was sent is what it took, and one ring.
        return match sink {
            Some(sink) => number(&sink.stop()?, "received_pps"),
            None => number(&sent, "sent_pps"),
        };
    }
    // Both of DPDK's would forward on the same processor if one were not told to use the other.
    let mut source = Testpmd::start_on(&device("client", &socket, ""), "txonly", &[], Forwards::Second)?;
    source.forward()?;
    let began = Instant::now();
    thread::sleep(Duration::from_secs(flags.seconds));
    source.stop()?;
    let took = began.elapsed().as_secs_f64();
    match (sink, dpdk_sink) {
        (Some(sink), _) => number(&sink.stop()?, "received_pps"),
        (None, Some(mut sink)) => {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let received = sink.stop()?.received as f64;
            Ok(received / took)
        }
        (None, None) => bail!("no sink"),
    }
}

impl Flags {
    fn seconds_f64(&self) -> f64 {
        Duration::from_secs(self.seconds).as_secs_f64()
    }
}

/// A generator and a sink that both sleep between packets: the sink's line.
fn latency(flags: &Flags) -> anyhow::Result<String> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("memif.sock");
    let sink = Gen::start(flags, &socket, 0, &["--role", "server", "sink"])?;
    there(&socket)?;
    let seconds = flags.seconds.to_string();
    Gen::start(flags, &socket, 1, &["--seconds", &seconds, "send", "--rate", PACE, "--size", SIZE])?.end()?;
    sink.stop()
}

/// What a sink costs to which nothing comes, in interrupt mode.
fn idle(flags: &Flags) -> anyhow::Result<f64> {
    let dir = tempfile::tempdir()?;
    let socket = dir.path().join("memif.sock");
    let sink = Gen::start(flags, &socket, 0, &["--role", "server", "sink"])?;
    there(&socket)?;
    let client = memif::Client::new(memif::Address::path(&socket)?).connect(SOON)?;
    let before = ticks(&sink)?;
    thread::sleep(Duration::from_secs(flags.seconds));
    let after = ticks(&sink)?;
    drop(client);
    // A tick is a hundredth of a second: that is also what can be told apart.
    Ok((after - before) / flags.seconds_f64())
}

/// Processor time in hundredths of a second, from proc(5).
fn ticks(of: &Gen) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", of.0.id()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let field = |at: usize| -> anyhow::Result<f64> { Ok(fields.get(at).context("a short stat")?.parse()?) };
    Ok(field(11)? + field(12)?)
}
