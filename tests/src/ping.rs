//! ICMP echo over datagram sockets, which the kernel matches to their sender.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use crate::Namespace;

const PAYLOAD: &[u8] = b"nsm-lab: one echo, answered or not";
/// How long a [`Pinger`] waits for each answer, whatever its pace: a busy machine answers late, but it answers.
const PATIENCE: Duration = Duration::from_secs(2);
/// Shortest time that a socket waits: zero would be for ever.
const LEAST: Duration = Duration::from_millis(1);

/// One echo request from the thread's namespace; its round-trip time.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] without an answer, else what the kernel says (no route, unreachable).
pub fn ping(address: IpAddr, timeout: Duration) -> io::Result<Duration> {
    let mut echo = Echo::open(address)?;
    let sent = Instant::now();
    echo.send(1)?;
    // Only the answer to that one is for this socket.
    echo.receive(sent + timeout)?.map(|_| sent.elapsed()).ok_or_else(|| io::ErrorKind::TimedOut.into())
}

struct Echo {
    socket: Socket,
    request: u8,
    reply: u8,
}

impl Echo {
    fn open(address: IpAddr) -> io::Result<Self> {
        let (domain, protocol, request, reply) = match address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
        };
        let socket = Socket::new(domain, Type::DGRAM, Some(protocol))?;
        socket.connect(&SocketAddr::new(address, 0).into())?;
        Ok(Self { socket, request, reply })
    }

    fn send(&self, sequence: u16) -> io::Result<()> {
        let [high, low] = sequence.to_be_bytes();
        // Checksum and identifier are the kernel's.
        let mut packet = vec![self.request, 0, 0, 0, 0, 0, high, low];
        packet.extend_from_slice(PAYLOAD);
        self.socket.send(&packet).map(drop)
    }

    /// The sequence number of an answer, which may have come long ago; none: nothing came until then.
    fn receive(&mut self, until: Instant) -> io::Result<Option<u16>> {
        let mut answer = [0; 256];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            self.socket.set_read_timeout(Some(left.max(LEAST)))?;
            match self.socket.read(&mut answer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() >= until => return Ok(None),
                Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted].contains(&error.kind()) => {}
                Err(error) => return Err(error),
                Ok(length) if answer[0] == self.reply && &answer[8..length.max(8)] == PAYLOAD => {
                    return Ok(Some(u16::from_be_bytes([answer[6], answer[7]])));
                }
                Ok(_) => {}
            }
        }
    }
}

/// Echo requests at a steady pace until stopped.
#[derive(Debug)]
pub struct Pinger {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: JoinHandle<Pings>,
}

/// What became of a [`Pinger`]'s echo requests.
#[derive(Debug, Default, Clone, Copy)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Requests without an answer within two seconds.
    pub lost: u32,
    /// Longest time without an answer.
    pub gap: Duration,
}

/// What a [`Pinger`] has done so far.
struct Pinging {
    echo: Echo,
    pings: Pings,
    /// When the last answer came.
    answered: Instant,
    /// When those were sent that have no answer yet.
    waiting: BTreeMap<u16, Instant>,
}

impl Pinging {
    fn send(&mut self, sequence: u16) {
        self.pings.sent += 1;
        // As long as there is no way to it, it is lost.
        self.waiting.insert(sequence, Instant::now());
        let _ = self.echo.send(sequence);
    }

    /// Takes answers until then.
    fn listen(&mut self, until: Instant) {
        loop {
            match self.echo.receive(until) {
                Ok(Some(sequence)) => {
                    if self.waiting.remove(&sequence).is_some() {
                        self.pings.gap = self.pings.gap.max(self.answered.elapsed());
                        self.answered = Instant::now();
                    }
                }
                Ok(None) => return,
                // What the kernel says of an earlier request (no route, unreachable).
                Err(_) => thread::sleep(LEAST),
            }
            if Instant::now() >= until {
                return;
            }
        }
    }

    fn give_up(&mut self) {
        let before = self.waiting.len();
        self.waiting.retain(|_, sent| sent.elapsed() < PATIENCE);
        self.pings.lost += u32::try_from(before - self.waiting.len()).unwrap_or(u32::MAX);
    }

    /// The rest of the answers.
    fn end(mut self) -> Pings {
        self.give_up();
        while let Some(oldest) = self.waiting.values().min().copied() {
            // Each is due at its own time; the first answers come at once, as a rule.
            self.listen((Instant::now() + 10 * LEAST).min(oldest + PATIENCE));
            self.give_up();
        }
        self.pings.gap = self.pings.gap.max(self.answered.elapsed());
        self.pings
    }
}

impl Pinger {
    /// Pings `address` from `namespace`, one request each `interval`.
    pub fn start(namespace: &Namespace, address: IpAddr, interval: Duration) -> anyhow::Result<Self> {
        // The socket stays in the namespace, so the thread need not.
        let echo = namespace.run(move || Echo::open(address))?.with_context(|| format!("pinging {address}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sent = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sent);
        let mut pinging = Pinging { echo, pings: Pings::default(), answered: Instant::now(), waiting: BTreeMap::new() };
        let thread = thread::spawn(move || {
            let mut sequence = 0_u16;
            while !stopped.load(Ordering::Relaxed) {
                sequence = sequence.wrapping_add(1);
                let next = Instant::now() + interval;
                pinging.send(sequence);
                counted.store(pinging.pings.sent, Ordering::Relaxed);
                pinging.listen(next);
                pinging.give_up();
            }
            pinging.end()
        });
        Ok(Self { stop, sent, thread })
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and counts when at least so many requests were sent: what is quick is still looked at for a while.
    pub fn stop_behind(self, least: u32) -> Pings {
        while self.sent() < least && !self.thread.is_finished() {
            thread::sleep(LEAST);
        }
        self.stop()
    }

    /// Stops and counts.
    pub fn stop(self) -> Pings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
