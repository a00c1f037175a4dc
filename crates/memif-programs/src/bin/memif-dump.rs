//! Writes what arrives at a shared-memory interface as a capture that tcpdump and Wireshark read.
#![forbid(unsafe_code)]

use std::{
    fs::File,
    io::{self, BufWriter, IsTerminal, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::{Context, bail};
use clap::Parser;
use memif::Connection;
use memif_programs::{interface, pcap::Capture, stop::Stop};

/// How long to wait for packets before looking whether to stop.
const LOOK: Duration = Duration::from_millis(100);

/// Writes what arrives at a memif in pcap format: memif-dump --socket @x | tcpdump -nr -
#[derive(Debug, Parser)]
#[command(name = "memif-dump", version)]
struct Flags {
    #[command(flatten)]
    interface: interface::Flags,
    /// Where to write; standard output unless given.
    #[arg(long, short, value_name = "FILE")]
    write: Option<PathBuf>,
    /// Stop after so many packets.
    #[arg(long, short, value_name = "N")]
    count: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Keep so many bytes of each packet.
    #[arg(long, short, default_value_t = 65536, value_parser = clap::value_parser!(u32).range(1..=65536), value_name = "BYTES")]
    snaplen: u32,
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let stop = Stop::new(flags.seconds.map(Duration::from_secs))?;
    let to: Box<dyn Write> = match &flags.write {
        Some(path) => Box::new(File::create(path).with_context(|| format!("--write {}", path.display()))?),
        None if io::stdout().is_terminal() => bail!("a capture is not for a terminal: use --write FILE or a pipe"),
        None => Box::new(io::stdout()),
    };
    let mut interface = flags.interface.open()?;
    let mut capture = Capture::new(BufWriter::new(to), flags.interface.mode.into(), flags.snaplen)?;
    capture.flush()?;
    let mut left = flags.count.unwrap_or(u64::MAX);
    let (mut packets, mut invalid) = (0, 0);
    while left > 0
        && let Some(mut connection) = interface.next(|| stop.over())?
    {
        let counters: Vec<_> = connection.rx.iter().map(memif::RxQueue::counters).collect();
        match record(&mut connection, &mut capture, &stop, &mut left) {
            Ok(()) => {}
            Err(Ended::Down(down)) => eprintln!("down: {down}"),
            // The reader has enough: `| head`.
            Err(Ended::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => break,
            Err(Ended::Write(error)) => return Err(error).context("writing the capture"),
        }
        for counters in counters {
            packets += counters.read().packets;
            invalid += counters.read().invalid;
        }
    }
    let _ = capture.flush();
    eprintln!("packets={packets} invalid={invalid}");
    Ok(())
}

enum Ended {
    Down(memif::Down),
    Write(io::Error),
}

impl From<memif::Down> for Ended {
    fn from(down: memif::Down) -> Self {
        Self::Down(down)
    }
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn record(
    connection: &mut Connection,
    capture: &mut Capture<BufWriter<Box<dyn Write>>>,
    stop: &Stop,
    left: &mut u64,
) -> Result<(), Ended> {
    while *left > 0 && !stop.over() {
        let mut idle = true;
        for rx in &mut connection.rx {
            let most = usize::try_from(*left).unwrap_or(usize::MAX).min(256);
            let burst = rx.burst(most)?;
            let now = SystemTime::now();
            for packet in burst.iter() {
                capture.packet(&packet, now)?;
                *left -= 1;
            }
            idle &= burst.is_empty();
        }
        if idle {
            capture.flush()?;
            // With several queues only the first one wakes us; the others wait for the next look.
            let look = if connection.rx.len() > 1 { Duration::from_millis(1) } else { LOOK };
            if let Some(rx) = connection.rx.first_mut() {
                rx.wait(look)?;
            }
        }
    }
    Ok(())
}
