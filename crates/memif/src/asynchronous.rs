//! The same with tokio: waiting without a thread.
//!
//! Guarantees: dropping a future loses no packet; a queue that waits asks its peer to signal, one that does not polls. What waits for a
//! kernel that may be slow (connecting) runs on tokio's blocking threads, with a bound.
//!
//! [`AsyncRx`] and [`AsyncTx`] own their queues: take them out of [`Connection::rx`] and [`Connection::tx`] (`remove(0)`, or all of them by
//! `into_iter`). The connection lasts as long as one of its queues.
//!
//! ```
//! use memif::{
//!     Address, Client, Connection, Down, Listener, Server,
//!     asynchronous::{AsyncPort, AsyncRx, AsyncTx, connect},
//! };
//! use std::{sync::Arc, time::Duration};
//!
//! async fn echo(mut connection: Connection) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//!     let mut rx = AsyncRx::new(connection.rx.remove(0))?;
//!     let mut tx = AsyncTx::new(connection.tx.remove(0));
//!     loop {
//!         let burst = rx.burst(64).await?;
//!         let mut back = tx.burst().await?;
//!         for packet in burst.iter() {
//!             let _ = back.forward(&packet); // what does not fit is lost, as on a link that is full
//!         }
//!         back.send()?;
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! #   let dir = tempfile::tempdir()?;
//! #   let path = dir.path().join("memif.sock");
//!     let address = Address::path(path)?;
//!     let listener = Listener::bind(&address)?;
//!     let port = AsyncPort::new(listener.add(Server::new(0))?)?;
//!     let server = tokio::spawn(async move { echo(port.accept().await?).await });
//!
//!     let mut connection = connect(Arc::new(Client::new(address)), Duration::from_secs(5)).await?;
//!     let mut rx = AsyncRx::new(connection.rx.remove(0))?;
//!     let mut tx = AsyncTx::new(connection.tx.remove(0));
//!     let mut burst = tx.burst().await?;
//!     burst.push(b"a frame")?;
//!     burst.send()?;
//!     for packet in rx.burst(64).await?.iter() {
//!         assert_eq!(packet.to_vec(), b"a frame");
//!     }
//!     drop((connection, rx, tx)); // the end of the link, of which the other end hears
//!     assert!(server.await?.unwrap_err().is::<Down>());
//!     Ok(())
//! }
//! ```

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::unix::AsyncFd,
    task::{self, JoinError, JoinHandle},
    time::{sleep, timeout},
};

use crate::{
    channel::left,
    client::{Client, ConnectError},
    connection::Connection,
    link::{Down, Link},
    listener::{HANDSHAKE, Port},
    reconnect::Reconnect,
    rx::{Burst, RxQueue},
    sys::watched,
    tx::{TxBurst, TxQueue},
};

/// How often a sender with a full ring looks again: returned buffers do not signal.
const RETRY: Duration = Duration::from_millis(1);

/// Connects, within `bound`.
///
/// # Errors
/// Why there is no connection.
///
/// # Panics
/// Outside of a tokio runtime.
pub async fn connect(client: Arc<Client>, bound: Duration) -> Result<Connection, ConnectError> {
    joined(task::spawn_blocking(move || client.connect(bound)).await)
}

fn joined(ended: Result<Result<Connection, ConnectError>, JoinError>) -> Result<Connection, ConnectError> {
    ended.unwrap_or_else(|error| Err(ConnectError::Memory(io::Error::other(error))))
}

/// A client that connects again, without a thread that waits.
///
/// ```no_run
/// # use memif::{Backoff, Client, Reconnect, asynchronous::{AsyncReconnect, AsyncRx}};
/// # async fn run(client: Client) -> Result<(), Box<dyn std::error::Error>> {
/// let mut again = AsyncReconnect::new(Reconnect::new(client, Backoff::default()));
/// loop {
///     let mut connection = again.connect().await;
///     let mut rx = AsyncRx::new(connection.rx.remove(0))?;
///     while let Ok(burst) = rx.burst(64).await {
///         println!("{} packets", burst.len());
///     }
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct AsyncReconnect {
    reconnect: Reconnect,
    /// One that has begun: it ends even if nobody waits for it.
    attempt: Option<JoinHandle<Result<Connection, ConnectError>>>,
}

impl AsyncReconnect {
    /// Goes on where the other one is.
    pub const fn new(reconnect: Reconnect) -> Self {
        Self { reconnect, attempt: None }
    }

    /// The next connection, however long that takes: put a `timeout` around it, and ask [`AsyncReconnect::failure`] then. An attempt has
    /// [`HANDSHAKE`]. One that is under way when the future is dropped is what the next call waits for. Call this when the link of the last
    /// connection is down.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(&mut self) -> Connection {
        loop {
            let attempt = if let Some(attempt) = &mut self.attempt {
                attempt
            } else {
                sleep(left(self.reconnect.due())).await;
                let client = self.reconnect.shared();
                self.attempt.insert(task::spawn_blocking(move || client.connect(HANDSHAKE)))
            };
            let ended = joined(attempt.await);
            self.attempt = None;
            if let Some(connection) = self.reconnect.note(ended) {
                return connection;
            }
        }
    }

    /// Why the last attempt failed; none after one that did not.
    pub const fn failure(&self) -> Option<&ConnectError> {
        self.reconnect.failure()
    }

    /// What it connects to, and how.
    pub fn client(&self) -> &Client {
        self.reconnect.client()
    }
}

/// An interface that waits for clients.
#[derive(Debug)]
pub struct AsyncPort {
    port: Port,
    arrived: AsyncFd<OwnedFd>,
}

impl AsyncPort {
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(port: Port) -> io::Result<Self> {
        Ok(Self { arrived: watched(port.event().try_clone()?)?, port })
    }

    /// The next connection.
    ///
    /// # Errors
    /// The runtime is shutting down.
    pub async fn accept(&self) -> io::Result<Connection> {
        loop {
            if let Some(connection) = self.port.try_accept() {
                return Ok(connection);
            }
            self.arrived.readable().await?.clear_ready();
            // What arrived between the two is not lost: its event is cleared by the look, not by the wait.
            if let Some(connection) = self.port.try_accept() {
                return Ok(connection);
            }
        }
    }
}

/// Waits for the end of a link.
#[derive(Debug)]
pub struct AsyncLink {
    link: Link,
    control: AsyncFd<OwnedFd>,
}

impl AsyncLink {
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(link: &Link) -> io::Result<Self> {
        Ok(Self { control: watched(link.control().try_clone()?)?, link: link.clone() })
    }

    /// Why the link is down, as soon as it is.
    pub async fn down(&self) -> Down {
        loop {
            if let Err(down) = self.link.check() {
                return down;
            }
            match self.control.readable().await {
                Ok(mut ready) => {
                    if let Err(down) = self.link.check() {
                        return down;
                    }
                    ready.clear_ready();
                }
                Err(_) => return self.link.check().err().unwrap_or(Down::Local("the runtime is shutting down".into())),
            }
        }
    }
}

/// Receives from one ring.
#[derive(Debug)]
pub struct AsyncRx {
    queue: RxQueue,
    event: AsyncFd<OwnedFd>,
}

impl AsyncRx {
    /// # Errors
    /// The runtime cannot watch it.
    pub fn new(queue: RxQueue) -> io::Result<Self> {
        let event = watched(queue.event().try_clone_to_owned()?)?;
        Ok(Self { queue, event })
    }

    /// Waits until there is something to receive.
    ///
    /// # Errors
    /// The link is down.
    pub async fn readable(&mut self) -> Result<(), Down> {
        loop {
            if self.queue.arm()? {
                return Ok(());
            }
            // The end of the link is an event, too.
            if let Ok(Ok(mut ready)) = timeout(self.queue.longest_sleep(), self.event.readable()).await {
                ready.clear_ready();
            }
        }
    }

    /// Packets, once there are some: one to `most` of them, or none where all that came was invalid.
    ///
    /// # Errors
    /// The link is down.
    pub async fn burst(&mut self, most: usize) -> Result<Burst<'_>, Down> {
        self.readable().await?;
        self.queue.burst(most)
    }

    /// The queue, to poll it.
    pub const fn queue(&mut self) -> &mut RxQueue {
        &mut self.queue
    }
}

/// Sends to one ring.
#[derive(Debug)]
pub struct AsyncTx {
    queue: TxQueue,
}

impl AsyncTx {
    /// Any queue.
    pub const fn new(queue: TxQueue) -> Self {
        Self { queue }
    }

    /// A burst with room for one buffer at least. After one that had too little room for what was to be sent this waits a moment.
    ///
    /// # Errors
    /// The link is down.
    pub async fn burst(&mut self) -> Result<TxBurst<'_>, Down> {
        if self.queue.starved() {
            self.queue.link().check()?;
            sleep(RETRY).await;
        }
        while self.queue.burst()?.free() == 0 {
            self.queue.link().check()?;
            sleep(RETRY).await;
        }
        self.queue.burst()
    }

    /// The queue, to send without waiting.
    pub const fn queue(&mut self) -> &mut TxQueue {
        &mut self.queue
    }
}
