//! ICMP echo over datagram sockets, which the kernel matches to their sender.

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

/// One echo request from the thread's namespace; its round-trip time.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`] without an answer, else what the kernel says (no route, unreachable).
pub fn ping(address: IpAddr, timeout: Duration) -> io::Result<Duration> {
    Echo::open(address)?.exchange(1, timeout)
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

    fn exchange(&mut self, sequence: u16, timeout: Duration) -> io::Result<Duration> {
        let [high, low] = sequence.to_be_bytes();
        // Checksum and identifier are the kernel's.
        let mut packet = vec![self.request, 0, 0, 0, 0, 0, high, low];
        packet.extend_from_slice(PAYLOAD);
        let sent = Instant::now();
        self.socket.send(&packet)?;
        let mut answer = [0; 256];
        loop {
            let left = timeout.checked_sub(sent.elapsed()).filter(|left| !left.is_zero());
            self.socket.set_read_timeout(Some(left.ok_or(io::ErrorKind::TimedOut)?))?;
            let length = match self.socket.read(&mut answer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(io::ErrorKind::TimedOut.into()),
                other => other?,
            };
            let ours = answer[0] == self.reply && answer[6..8] == [high, low] && &answer[8..length.max(8)] == PAYLOAD;
            if ours {
                return Ok(sent.elapsed());
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
    /// Requests without an answer in time.
    pub lost: u32,
    /// Longest time without an answer.
    pub gap: Duration,
}

impl Pinger {
    /// Pings `address` from `namespace`, one request each `interval`.
    pub fn start(namespace: &Namespace, address: IpAddr, interval: Duration) -> anyhow::Result<Self> {
        // The socket stays in the namespace, so the thread need not.
        let mut echo = namespace.run(move || Echo::open(address))?.with_context(|| format!("pinging {address}"))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sent = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&sent);
        let thread = thread::spawn(move || {
            let mut pings = Pings::default();
            let mut answered = Instant::now();
            let mut sequence = 0_u16;
            while !stopped.load(Ordering::Relaxed) {
                sequence = sequence.wrapping_add(1);
                let began = Instant::now();
                pings.sent += 1;
                counted.store(pings.sent, Ordering::Relaxed);
                match echo.exchange(sequence, interval) {
                    Ok(_) => {
                        pings.gap = pings.gap.max(answered.elapsed());
                        answered = Instant::now();
                    }
                    Err(_) => pings.lost += 1,
                }
                thread::sleep(interval.saturating_sub(began.elapsed()));
            }
            pings.gap = pings.gap.max(answered.elapsed());
            pings
        });
        Ok(Self { stop, sent, thread })
    }

    /// Requests sent so far.
    pub fn sent(&self) -> u32 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops and counts.
    pub fn stop(self) -> Pings {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
