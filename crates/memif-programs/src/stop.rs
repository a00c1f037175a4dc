//! When to stop: SIGINT, SIGTERM, or when the time is over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::sys::signal::{SigSet, Signal};

/// Tells when to stop. The first signal asks, the second one ends the process.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<AtomicBool>,
    until: Option<Instant>,
}

impl Stop {
    /// To be called before any thread is started: they all leave the signals to the one that waits for them.
    ///
    /// # Errors
    /// There can be no thread.
    pub fn new(after: Option<Duration>) -> anyhow::Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
        signals.thread_block().context("blocking signals")?;
        let asked = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked);
        thread::Builder::new().name("signals".into()).spawn(move || {
            let _ = signals.wait();
            told.store(true, Ordering::Relaxed);
            let _ = signals.thread_unblock();
            loop {
                thread::park();
            }
        })?;
        Ok(Self { asked, until: after.map(|after| Instant::now() + after) })
    }

    /// Whether it is time.
    pub fn over(&self) -> bool {
        self.asked.load(Ordering::Relaxed) || self.until.is_some_and(|until| Instant::now() >= until)
    }

    /// Ends it from inside.
    pub fn ask(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}
