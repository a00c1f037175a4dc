//! A client that connects again.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    channel::{deadline, left},
    client::{Client, ConnectError},
    connection::Connection,
    listener::HANDSHAKE,
};

/// How long an attempt that has begun may take, however little is left: one that is given up too soon would have to be made again.
const LEAST: Duration = Duration::from_millis(500);

/// How long to wait between attempts: each time twice as long, up to a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    most: Duration,
}

impl Default for Backoff {
    /// From 10 ms to 3 s.
    fn default() -> Self {
        Self { first: Duration::from_millis(10), most: Duration::from_secs(3) }
    }
}

impl Backoff {
    /// From `first` to `most`; a `most` below `first` is `first`, and nothing is below 1 ms.
    pub fn new(first: Duration, most: Duration) -> Self {
        let first = first.max(Duration::from_millis(1));
        Self { first, most: most.max(first) }
    }
}

/// A client that connects as often as it is asked to, with pauses.
///
/// The pause grows while attempts fail, and while connections end before they are as old as the longest pause: a server that accepts and
/// hangs up is no reason to hurry.
///
/// It waits in the calling thread; `asynchronous::AsyncReconnect` (feature `tokio`) does not.
#[derive(Debug)]
pub struct Reconnect {
    client: Arc<Client>,
    backoff: Backoff,
    pause: Duration,
    next: Instant,
    /// When the last connection was made.
    connected: Option<Instant>,
    failure: Option<ConnectError>,
}

impl Reconnect {
    /// The first attempt is made at once.
    pub fn new(client: Client, backoff: Backoff) -> Self {
        Self {
            client: Arc::new(client),
            backoff,
            pause: backoff.first,
            next: Instant::now(),
            connected: None,
            failure: None,
        }
    }

    /// The next connection, when one can be made within `timeout`. An attempt that has begun has half a second, and [`HANDSHAKE`] if there is as
    /// much time. Call this when the link of the last one is down.
    pub fn connect(&mut self, timeout: Duration) -> Option<Connection> {
        let deadline = deadline(timeout);
        loop {
            let due = self.due();
            thread::sleep(left(due).min(left(deadline)));
            if !left(due).is_zero() {
                return None;
            }
            let ended = self.client.connect(HANDSHAKE.min(left(deadline)).max(LEAST));
            if let Some(connection) = self.note(ended) {
                return Some(connection);
            }
        }
    }

    /// When the next attempt is to be made.
    pub(crate) fn due(&mut self) -> Instant {
        if let Some(connected) = self.connected.take() {
            if connected.elapsed() >= self.backoff.most {
                self.pause = self.backoff.first;
            }
            self.later();
        }
        self.next
    }

    /// How an attempt has ended.
    pub(crate) fn note(&mut self, ended: Result<Connection, ConnectError>) -> Option<Connection> {
        match ended {
            Ok(connection) => {
                self.connected = Some(Instant::now());
                self.failure = None;
                Some(connection)
            }
            Err(error) => {
                self.failure = Some(error);
                self.later();
                None
            }
        }
    }

    fn later(&mut self) {
        self.next = deadline(self.pause);
        self.pause = self.pause.saturating_mul(2).min(self.backoff.most);
    }

    /// Why the last attempt failed; none after one that did not.
    pub const fn failure(&self) -> Option<&ConnectError> {
        self.failure.as_ref()
    }

    /// What it connects to, and how.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same, for another thread.
    #[cfg(feature = "tokio")]
    pub(crate) fn shared(&self) -> Arc<Client> {
        Arc::clone(&self.client)
    }
}
