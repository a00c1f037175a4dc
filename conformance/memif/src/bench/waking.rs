//! How long a sleeper takes to have what it was woken for, from thread to thread: a packet, and for comparison nothing but an eventfd.
//!
//! Guarantees: the memory is there, as it is after the first round of a ring; both take turns, packet by packet, so that whatever else the
//! machine does slows both. The threads have a processor each, where there are two.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use memif::{Address, Client, Connection, Listener, RxQueue, Server};
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    resource::{UsageWho, getrusage},
    time::{TimeVal, TimeValLike as _},
};

use crate::programs::{SOON, pin, processors};

const FRAME: usize = 64;
/// Between two packets: both ends sleep.
const PAUSE: Duration = Duration::from_micros(500);

/// Of many, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Spread {
    fn of(mut all: Vec<u64>) -> Self {
        all.sort_unstable();
        #[expect(clippy::cast_precision_loss, reason = "nanoseconds of a moment")]
        let at = |percent: usize| all.get(all.len() * percent / 100).map_or(f64::NAN, |took| *took as f64 / 1e3);
        Self { p50: at(50), p99: at(99) }
    }
}

/// Of packets, and of bare eventfds.
pub(crate) struct Both {
    pub(crate) memif: Spread,
    pub(crate) bare: Spread,
}

/// A moment, in nanoseconds since another.
fn since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

fn pair() -> anyhow::Result<(Connection, Connection)> {
    let dir = tempfile::tempdir()?;
    let address = Address::path(dir.path().join("memif.sock"))?;
    let listener = Listener::bind(&address)?;
    let port = listener.add(Server::new(0))?;
    let mut near = Client::new(address).connect(SOON)?;
    let mut far = port.accept(SOON)?.context("nobody came")?;
    // Once around: the kernel gives memory when it is touched first, which takes some microseconds at either end.
    for number in 0..u64::from(near.tx[0].slots()) {
        near.tx[0].send(&frame(number))??;
        receive(&mut far.rx[0])?;
        far.tx[0].send(&frame(number))??;
        receive(&mut near.rx[0])?;
    }
    Ok((near, far))
}

/// The number in the packet that comes next.
fn receive(rx: &mut RxQueue) -> anyhow::Result<u64> {
    loop {
        if !rx.wait(SOON)? {
            bail!("a packet is lost");
        }
        if let Some(packet) = rx.burst(1)?.iter().next() {
            let mut number = [0; 8];
            packet.copy_to(&mut number);
            return Ok(u64::from_ne_bytes(number));
        }
    }
}

fn frame(number: u64) -> [u8; FRAME] {
    let mut frame = [0; FRAME];
    frame[..8].copy_from_slice(&number.to_ne_bytes());
    frame
}

/// One way, with pauses: both ends are asleep when a packet is sent.
pub(crate) fn one_way(count: usize) -> anyhow::Result<Both> {
    let [here, there] = processors()?;
    let (mut near, mut far) = pair()?;
    let (bell, sent) =
        (EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_SEMAPHORE)?, AtomicU64::new(0));
    let began = Instant::now();
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| -> anyhow::Result<Both> {
            pin(there);
            let (mut memif, mut bare) = (Vec::with_capacity(count), Vec::with_capacity(count));
            for _ in 0..count {
                let sent_at = receive(&mut far.rx[0])?;
                memif.push(since(began) - sent_at);
                bell.read()?;
                bare.push(since(began).saturating_sub(sent.load(Ordering::Acquire)));
            }
            Ok(Both { memif: Spread::of(memif), bare: Spread::of(bare) })
        });
        let sender = scope.spawn(|| -> anyhow::Result<()> {
            pin(here);
            for _ in 0..count {
                thread::sleep(PAUSE);
                near.tx[0].send(&frame(since(began)))??;
                thread::sleep(PAUSE);
                sent.store(since(began), Ordering::Release);
                bell.write(1)?;
            }
            Ok(())
        });
        let sent = sender.join();
        // Who waits for a packet hears of it; for an eventfd, nobody says so.
        let _ = bell.write(1);
        let both = sleeper.join().ok().context("the receiver panicked")??;
        sent.ok().context("the sender panicked")??;
        Ok(both)
    })
}

/// Half of what a packet takes there and back, each sent as soon as the last has come.
pub(crate) fn to_and_fro(count: usize, spin: Duration) -> anyhow::Result<Spread> {
    let [here, there] = processors()?;
    let (mut near, mut far) = pair()?;
    near.rx[0].spin(spin);
    far.rx[0].spin(spin);
    thread::scope(|scope| {
        let echo = scope.spawn(|| -> anyhow::Result<()> {
            pin(there);
            for _ in 0..count {
                let number = receive(&mut far.rx[0])?;
                far.tx[0].send(&frame(number))??;
            }
            Ok(())
        });
        let asking = scope.spawn(|| -> anyhow::Result<Vec<u64>> {
            pin(here);
            let mut all = Vec::with_capacity(count);
            for number in 0..count as u64 {
                let began = Instant::now();
                near.tx[0].send(&frame(number))??;
                receive(&mut near.rx[0])?;
                all.push(since(began) / 2);
            }
            Ok(all)
        });
        let all = asking.join().ok().context("the asking one panicked")?;
        echo.join().ok().context("the echo panicked")??;
        all.map(Spread::of)
    })
}

/// What a thread takes that waits for packets, of which none comes, in hundredths of a processor.
pub(crate) fn idle(long: Duration) -> anyhow::Result<f64> {
    let (mut near, _far) = pair()?;
    let idle = thread::spawn(move || -> anyhow::Result<f64> {
        let (before, began) = (took()?, Instant::now());
        if near.rx[0].wait(long)? {
            bail!("a packet that nobody sent");
        }
        #[expect(clippy::cast_precision_loss, reason = "microseconds of some seconds")]
        let share = (took()? - before).num_microseconds() as f64 / 1e6 / began.elapsed().as_secs_f64();
        Ok(share * 100.0)
    });
    idle.join().ok().context("the waiting thread panicked")?
}

fn took() -> anyhow::Result<TimeVal> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD)?;
    Ok(usage.user_time() + usage.system_time())
}
