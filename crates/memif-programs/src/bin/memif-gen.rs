//! Sends numbered packets at a rate, counts what arrives, and tells loss and latency. Both ends may be this program, or one of them anything
//! that sends back what it receives.
#![forbid(unsafe_code)]

use std::{
    collections::BTreeMap,
    str::FromStr,
    thread,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Parser, Subcommand, ValueEnum};
use memif::{Connection, Down, Mode, RxQueue, TxQueue};
use memif_programs::{
    interface,
    probe::{self, Mark, Template},
    samples::Samples,
    stop::Stop,
};

/// How long to wait for packets before looking whether to stop.
const LOOK: Duration = Duration::from_millis(100);
/// How long nothing may come back, once nothing is sent any more, before the rest is taken for lost.
const GRACE: Duration = Duration::from_millis(500);
/// The same while nobody wants it to stop.
const PATIENCE: Duration = Duration::from_secs(3);
/// And how long it may take in all.
const MOST: Duration = Duration::from_secs(10);
/// Packets of a burst.
const BURST: usize = 256;
/// Most generators that a sink tells apart.
const STREAMS: usize = 64;

/// Sends and counts packets at a memif.
#[derive(Debug, Parser)]
#[command(name = "memif-gen", version)]
struct Flags {
    #[command(flatten)]
    interface: interface::Flags,
    /// How to learn of packets.
    #[arg(long, value_enum, default_value = "wait")]
    receive: Receive,
    /// Before sleeping look for so long, where packets come as quickly as that.
    #[arg(long, default_value_t = 0, value_name = "MICROSECONDS")]
    spin: u32,
    /// Stop after so many seconds.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    #[command(subcommand)]
    work: Work,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Receive {
    /// Sleep until the peer signals.
    Wait,
    /// Look all the time: a processor for this alone.
    Poll,
}

#[derive(Debug, Subcommand)]
enum Work {
    /// Sends, and counts what of it comes back.
    Send {
        /// Packets per second, or max.
        #[arg(long, default_value = "max")]
        rate: Rate,
        /// Bytes of a packet.
        #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65535))]
        size: u32,
        /// Stop after so many packets.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Counts what arrives.
    Sink,
    /// Sends back what arrives.
    Echo,
}

/// How fast to send.
#[derive(Debug, Clone, Copy)]
enum Rate {
    Max,
    PerSecond(u32),
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "max" => Ok(Self::Max),
            number => match number.parse() {
                Ok(rate @ 1..) => Ok(Self::PerSecond(rate)),
                Ok(0) | Err(_) => Err(format!("{text:?}: expected max or packets per second")),
            },
        }
    }
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let stop = Stop::new(flags.seconds.map(Duration::from_secs))?;
    let mut interface = flags.interface.open()?;
    let mut totals = Totals::default();
    while let Some(mut connection) = interface.next(|| stop.over())? {
        connection.rx.iter_mut().for_each(|rx| rx.spin(Duration::from_micros(flags.spin.into())));
        let down = match &flags.work {
            Work::Send { rate, size, count } => {
                let sending = Sending { rate: *rate, size: *size as usize, count: count.unwrap_or(u64::MAX) };
                let down = send(connection, sending, flags.receive, &stop, &mut totals);
                stop.ask();
                down
            }
            Work::Sink => sink(connection, flags.receive, &stop, &mut totals),
            Work::Echo => echo(connection, flags.receive, &stop, &mut totals),
        };
        if let Err(down) = down {
            eprintln!("down: {down}");
        }
    }
    println!("{}", totals.line());
    if totals.sent == 0 && totals.seen.received == 0 {
        interface.met()?;
        bail!("nothing passed");
    }
    Ok(())
}

#[derive(Debug, Clone, Copy)]
struct Sending {
    rate: Rate,
    size: usize,
    count: u64,
}

/// What a program tells at its end.
#[derive(Debug, Default)]
struct Totals {
    sent: u64,
    full: u64,
    sending: Duration,
    seen: Seen,
}

/// What arrived.
#[derive(Debug, Default)]
struct Seen {
    received: u64,
    bytes: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    latency: Samples,
    /// First and last number, and how many.
    streams: BTreeMap<u32, (u64, u64, u64)>,
}

impl Totals {
    fn line(&self) -> String {
        let rate = |count: u64, time: Duration| {
            let seconds = time.as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
            if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
        };
        let Seen { received, bytes, first, last, latency, .. } = &self.seen;
        let receiving = first.zip(*last).map_or(Duration::ZERO, |(first, last)| last - first);
        format!(
            "sent={} full={} received={received} received_bytes={bytes} lost={} sent_pps={:.0} received_pps={:.0} {latency}",
            self.sent,
            self.full,
            self.seen.lost(),
            rate(self.sent, self.sending),
            rate(*received, receiving),
        )
    }
}

impl Seen {
    /// Packets of generators whose numbers are missing between the first and the last that came.
    fn lost(&self) -> u64 {
        self.streams.values().map(|(first, last, count)| (last - first).saturating_add(1).saturating_sub(*count)).sum()
    }

    fn mark(&mut self, mark: Mark, now: u64) {
        self.latency.add(now.saturating_sub(mark.sent_ns));
        if self.streams.len() < STREAMS || self.streams.contains_key(&mark.stream) {
            let (first, last, count) = self.streams.entry(mark.stream).or_insert((mark.number, mark.number, 0));
            (*first, *last) = ((*first).min(mark.number), (*last).max(mark.number));
            *count += 1;
        }
    }

    fn take(&mut self, rx: &mut RxQueue, mode: Mode) -> Result<usize, Down> {
        let burst = rx.burst(BURST)?;
        if burst.is_empty() {
            return Ok(0);
        }
        let (now, instant) = (probe::now_ns(), Instant::now());
        self.first.get_or_insert(instant);
        self.last = Some(instant);
        let mut start = [0; 64];
        for packet in burst.iter() {
            self.received += 1;
            self.bytes += packet.len() as u64;
            let length = packet.copy_to(&mut start);
            if let Some(mark) = probe::read(&start[..length], mode) {
                self.mark(mark, now);
            }
        }
        Ok(burst.len())
    }
}

/// Waits for packets as told; false when there are none yet.
fn await_packets(rx: &mut RxQueue, receive: Receive) -> Result<bool, Down> {
    match receive {
        Receive::Wait => rx.wait(LOOK),
        Receive::Poll => Ok(true),
    }
}

fn queues(connection: Connection) -> Result<(RxQueue, TxQueue), Down> {
    let Connection { rx, tx, link, .. } = connection;
    match (rx.into_iter().next(), tx.into_iter().next()) {
        (Some(rx), Some(tx)) => Ok((rx, tx)),
        (_, _) => Err(link.known().err().unwrap_or(Down::Closed)),
    }
}

fn send(
    connection: Connection,
    sending: Sending,
    receive: Receive,
    stop: &Stop,
    totals: &mut Totals,
) -> Result<(), Down> {
    let mode = connection.mode;
    let (mut rx, mut tx) = queues(connection)?;
    let over = Stop::clone(stop);
    let (done, finished) = std::sync::mpsc::channel::<u64>();
    let counting = thread::spawn(move || {
        let mut seen = Seen::default();
        let mut ended: Option<Ended> = None;
        loop {
            if ended.is_none() {
                ended = finished.try_recv().ok().map(|sent| Ended { at: Instant::now(), sent });
            }
            let grace = if over.over() { GRACE } else { PATIENCE };
            if ended.as_ref().is_some_and(|ended| ended.is_final(&seen, grace)) {
                return (seen, Ok(()));
            }
            match await_packets(&mut rx, receive).and_then(|_| seen.take(&mut rx, mode)) {
                Ok(_) => {}
                Err(down) => return (seen, Err(down)),
            }
        }
    });
    let began = Instant::now();
    let sent = generate(&mut tx, mode, sending, stop, totals);
    totals.sending += began.elapsed();
    let _ = done.send(totals.sent);
    let panicked = |_| (Seen::default(), Err(Down::Local("the counting thread panicked".into())));
    let (seen, received) = counting.join().unwrap_or_else(panicked);
    totals.seen = seen;
    sent.and(received)
}

/// When the last packet was sent.
#[derive(Debug)]
struct Ended {
    at: Instant,
    sent: u64,
}

impl Ended {
    /// Whether all of it has come back, or nothing has come for a while.
    fn is_final(&self, seen: &Seen, grace: Duration) -> bool {
        let back = seen.streams.get(&std::process::id()).map_or(0, |(_, _, count)| *count);
        let quiet = seen.last.map_or(self.at, |last| last.max(self.at)).elapsed();
        back >= self.sent || quiet >= grace || self.at.elapsed() >= MOST
    }
}

fn generate(tx: &mut TxQueue, mode: Mode, sending: Sending, stop: &Stop, totals: &mut Totals) -> Result<(), Down> {
    let template = Template::new(mode, sending.size);
    let stream = std::process::id();
    let began = Instant::now();
    // What found no room has no number: a gap is a loss on the way.
    let (mut number, mut full, mut looks) = (0_u64, 0_u64, 0_u32);
    while number < sending.count {
        looks = looks.wrapping_add(1);
        if looks.is_multiple_of(64) && stop.over() {
            break;
        }
        let due = match sending.rate {
            Rate::Max => u64::MAX,
            Rate::PerSecond(rate) => due(began.elapsed(), rate).saturating_sub(number + full),
        };
        if let (0, Rate::PerSecond(rate)) = (due, sending.rate) {
            if stop.over() {
                break;
            }
            thread::sleep((Duration::from_secs(1) / rate).min(LOOK));
            continue;
        }
        let mut burst = tx.burst()?;
        let sent_ns = probe::now_ns();
        for _ in 0..due.min(BURST as u64).min(sending.count - number) {
            match template.put(&mut burst, Mark { stream, number, sent_ns }) {
                Ok(()) => number += 1,
                Err(_) if matches!(sending.rate, Rate::Max) => break,
                Err(_) => full += 1,
            }
        }
        let sent = burst.send()?;
        totals.sent += sent as u64;
        if sent == 0 {
            std::hint::spin_loop();
        }
    }
    totals.full += full;
    Ok(())
}

/// How many packets should have been sent by now: the first one at once.
fn due(elapsed: Duration, rate: u32) -> u64 {
    let due = elapsed.as_nanos() * u128::from(rate) / 1_000_000_000 + 1;
    u64::try_from(due).unwrap_or(u64::MAX)
}

fn sink(connection: Connection, receive: Receive, stop: &Stop, totals: &mut Totals) -> Result<(), Down> {
    let mode = connection.mode;
    let (mut rx, _tx) = queues(connection)?;
    while !stop.over() {
        if await_packets(&mut rx, receive)? {
            totals.seen.take(&mut rx, mode)?;
        }
    }
    Ok(())
}

fn echo(connection: Connection, receive: Receive, stop: &Stop, totals: &mut Totals) -> Result<(), Down> {
    let (mut rx, mut tx) = queues(connection)?;
    let began = Instant::now();
    let result = loop {
        if stop.over() {
            break Ok(());
        }
        match turn(&mut rx, &mut tx, receive) {
            Ok((received, sent)) => {
                totals.seen.received += received;
                totals.sent += sent;
                totals.full += received - sent;
            }
            Err(down) => break Err(down),
        }
    };
    totals.sending += began.elapsed();
    result
}

fn turn(rx: &mut RxQueue, tx: &mut TxQueue, receive: Receive) -> Result<(u64, u64), Down> {
    if !await_packets(rx, receive)? {
        return Ok((0, 0));
    }
    let burst = rx.burst(BURST)?;
    let mut back = tx.burst()?;
    for packet in burst.iter() {
        // What does not fit is lost, as on a full link.
        let _ = back.forward(&packet);
    }
    let received = burst.len() as u64;
    Ok((received, back.send()? as u64))
}
