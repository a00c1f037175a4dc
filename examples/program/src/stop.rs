//! SIGTERM and SIGINT.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Tells when the program shall end.
#[derive(Debug)]
pub struct Stop {
    terminate: Signal,
    interrupt: Signal,
    stopped: bool,
}

impl Stop {
    /// From now on the signals do not end the process by themselves.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        let (terminate, interrupt) = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, stopped: false })
    }

    /// Returns when the first signal has come, also if it came before.
    pub async fn wait(&mut self) {
        if !self.stopped {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            self.stopped = true;
        }
    }
}
