//! The same with tokio: waiting without a thread.
//!
//! Guarantees: dropping a future loses no packet; a queue that waits asks its peer to signal, one that does not polls. What waits for a
//! kernel that may be slow (connecting) runs on tokio's blocking threads, with a bound.

use std::{io, os::fd::OwnedFd, sync::Arc, time::Duration};

use tokio::{
    io::unix::AsyncFd,
    task,
    time::{sleep, timeout},
};

use crate::{
    client::{Client, ConnectError},
    connection::Connection,
    link::{Down, Link},
    listener::Port,
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
    match task::spawn_blocking(move || client.connect(bound)).await {
        Ok(connected) => connected,
        Err(error) => Err(ConnectError::Memory(io::Error::other(error))),
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
