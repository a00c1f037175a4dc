//! Listening, in the server's role: one socket, many interfaces.
//!
//! Guarantees: peers do not wait for each other, and none of them keeps a place for longer than [`HANDSHAKE`]; a process has at most
//! [`MOST_OF_ONE`] of the places, and a user, with all processes together, at most [`MOST_OF_USER`]. An interface has one connection at a
//! time; the next is taken once the link of the last is down, whatever is done with its queues. Nothing of a peer is mapped before it has
//! told the secret.

mod door;
mod serve;

use std::{
    collections::{HashMap, VecDeque},
    io,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::event::{EventfdFlags, eventfd};

pub use door::ListenError;

use crate::{
    address::Address,
    channel::{deadline, left, readable, wait},
    connection::Connection,
    control::{Init, Mode},
    handshake::{Refusal, server::Interfaces},
    link::Link,
    peer::Credentials,
    settings::{Identity, Limits},
    text::{Name, Secret},
};

/// How long a client may take to tell all.
pub const HANDSHAKE: Duration = Duration::from_secs(3);
/// Most clients that are telling at the same time.
pub const MOST_AT_ONCE: usize = 16;
/// Most of them of one process.
pub const MOST_OF_ONE: usize = 4;
/// Most of them of one user. Where a process is not seen, as in another PID namespace, this alone counts.
pub const MOST_OF_USER: usize = 12;
/// Most refusals that are kept to be asked for.
const MOST_REFUSED: usize = 64;

/// An interface that a server offers: what clients must know and what they may have.
#[derive(Debug, Clone)]
pub struct Server {
    identity: Identity,
    limits: Limits,
    users: Option<Vec<u32>>,
}

impl Server {
    /// An interface in Ethernet mode, without a secret, with [`Limits::default`], for every user who can connect.
    pub fn new(id: u32) -> Self {
        Self { identity: Identity::new(id), limits: Limits::default(), users: None }
    }

    /// What passes.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.identity.mode = mode;
        self
    }

    /// What clients must know.
    #[must_use]
    pub const fn secret(mut self, secret: Secret) -> Self {
        self.identity.secret = secret;
        self
    }

    /// The name of this interface, as clients are told.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        self.identity.interface = Some(Name::cut(name));
        self
    }

    /// What clients may have.
    #[must_use]
    pub const fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Only these users may connect, as the kernel tells them.
    #[must_use]
    pub fn only_users(mut self, users: impl IntoIterator<Item = u32>) -> Self {
        self.users = Some(users.into_iter().collect());
        self
    }
}

/// A client that was refused.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Refused {
    /// Who it was, if the kernel said so.
    pub credentials: Option<Credentials>,
    /// Which interface it had been admitted to, if it came that far.
    pub id: Option<u32>,
    /// Why. It was told the same.
    pub why: Refusal,
}

/// Why an interface cannot be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AddError {
    /// Its id is taken.
    #[error("interface id {0} exists behind this socket: expected another, or the old one to be dropped first")]
    IdTaken(u32),
    /// There is no descriptor for it.
    #[error("interface id {id}: no descriptor for what tells that a client has come: {cause}")]
    Descriptor {
        /// Of the interface.
        id: u32,
        /// Why.
        cause: io::Error,
    },
}

/// A socket that clients connect to. A thread of its own talks to them; dropping the listener ends it, and waits for that: as long as clients
/// in the middle of a handshake need for their next word, at most some tenths of a second. Connections stay.
#[derive(Debug)]
pub struct Listener {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// The file that goes with the listener.
    _file: Option<door::SocketFile>,
}

#[derive(Debug)]
struct Shared {
    ports: Mutex<HashMap<u32, Slot>>,
    refused: Mutex<VecDeque<Refused>>,
    stop: AtomicBool,
    /// There was an interface at some time. Until then clients wait in the kernel's queue: to refuse them would be hasty.
    opened: AtomicBool,
    wake: OwnedFd,
}

/// What the listener knows of an interface.
#[derive(Debug)]
struct Slot {
    server: Server,
    /// Of the last connection.
    link: Option<Link>,
    /// Nobody has taken it yet.
    waiting: Option<Connection>,
    arrived: Arc<OwnedFd>,
}

impl Shared {
    fn new(wake: OwnedFd) -> Self {
        Self {
            ports: Mutex::default(),
            refused: Mutex::default(),
            stop: AtomicBool::new(false),
            opened: AtomicBool::new(false),
            wake,
        }
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<u32, Slot>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, VecDeque<Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    fn note(&self, refused: Refused) {
        let mut all = self.refused();
        if all.len() >= MOST_REFUSED {
            all.pop_front();
        }
        all.push_back(refused);
    }
}

impl Listener {
    /// Listens. Clients are answered once there is an interface. A socket file that was left behind by a process that is gone is replaced;
    /// one that somebody answers is not.
    ///
    /// # Errors
    /// The address is taken, or cannot be.
    pub fn bind(address: &Address) -> Result<Self, ListenError> {
        let (socket, file) = door::bind(address, None)?;
        Self::start(socket, file).map_err(|cause| ListenError::Thread { cause })
    }

    /// The same inside another network namespace, to which an abstract name then belongs.
    ///
    /// # Errors
    /// As [`Listener::bind`], and if this process may not enter the namespace.
    pub fn bind_in(address: &Address, netns: &OwnedFd) -> Result<Self, ListenError> {
        let (socket, file) = door::bind(address, Some(netns))?;
        Self::start(socket, file).map_err(|cause| ListenError::Thread { cause })
    }

    /// Takes a socket that listens already (`SOCK_SEQPACKET`), for instance from a service manager.
    ///
    /// # Errors
    /// It is another kind of file, or does not listen.
    pub fn from_socket(socket: OwnedFd) -> Result<Self, ListenError> {
        door::judge(&socket)?;
        Self::start(socket, None).map_err(|cause| ListenError::Thread { cause })
    }

    fn start(socket: OwnedFd, file: Option<door::SocketFile>) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(event()?));
        let serving = Arc::clone(&shared);
        let thread =
            thread::Builder::new().name("memif-listener".into()).spawn(move || serve::serve(&socket, &serving))?;
        Ok(Self { shared, thread: Some(thread), _file: file })
    }

    /// Offers an interface.
    ///
    /// # Errors
    /// Its id is taken, or there are no descriptors left.
    pub fn add(&self, server: Server) -> Result<Port, AddError> {
        let id = server.identity.id;
        let mut ports = self.shared.ports();
        if ports.contains_key(&id) {
            return Err(AddError::IdTaken(id));
        }
        let arrived = Arc::new(event().map_err(|cause| AddError::Descriptor { id, cause })?);
        ports.insert(id, Slot { server, link: None, waiting: None, arrived: Arc::clone(&arrived) });
        drop(ports);
        if !self.shared.opened.swap(true, Ordering::AcqRel) {
            self.shared.wake();
        }
        Ok(Port { id, arrived, shared: Arc::clone(&self.shared) })
    }

    /// The clients that were refused since this was asked last, the most recent of them.
    pub fn take_refused(&self) -> Vec<Refused> {
        self.shared.refused().drain(..).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// An interface behind a listener. Dropping it withdraws the interface; a connection that was accepted stays.
#[derive(Debug)]
pub struct Port {
    id: u32,
    arrived: Arc<OwnedFd>,
    shared: Arc<Shared>,
}

impl Port {
    /// The next connection, if a client comes within `timeout`.
    ///
    /// # Errors
    /// The kernel cannot wait.
    pub fn accept(&self, timeout: Duration) -> io::Result<Option<Connection>> {
        let deadline = deadline(timeout);
        loop {
            if let Some(connection) = self.try_accept() {
                return Ok(Some(connection));
            }
            let rest = left(deadline);
            if rest.is_zero() {
                return Ok(None);
            }
            wait(&mut [readable(&self.arrived)], rest)?;
        }
    }

    /// The next connection, if a client has come. One that has gone again is none.
    pub fn try_accept(&self) -> Option<Connection> {
        let _ = rustix::io::read(&*self.arrived, &mut [0; 8]);
        let connection = self.shared.ports().get_mut(&self.id)?.waiting.take()?;
        connection.link.check().is_ok().then_some(connection)
    }

    /// What becomes readable when a client has come.
    pub fn event(&self) -> &OwnedFd {
        &self.arrived
    }

    /// The interface's number behind its socket.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let slot = self.shared.ports().remove(&self.id);
        if let Some(Slot { waiting: Some(connection), .. }) = slot {
            connection.link.close(&Refusal::Removed.to_string());
        }
    }
}

/// The interfaces, as one client sees them.
struct Visit<'a> {
    shared: &'a Shared,
    credentials: Option<Credentials>,
}

impl Interfaces for Visit<'_> {
    fn admit(&self, init: &Init) -> Result<(Identity, Limits), Refusal> {
        let ports = self.shared.ports();
        let slot = ports.get(&init.id).ok_or(Refusal::UnknownId(init.id))?;
        slot.admit(init, self.credentials)?;
        Ok((slot.server.identity.clone(), slot.server.limits))
    }
}

impl Slot {
    fn admit(&self, init: &Init, credentials: Option<Credentials>) -> Result<(), Refusal> {
        let Server { identity, users, .. } = &self.server;
        if let Some(users) = users {
            let Some(Credentials { user, .. }) = credentials else { return Err(Refusal::UnknownUser(init.id)) };
            if !users.contains(&user) {
                return Err(Refusal::User { user, id: init.id });
            }
        }
        if !identity.secret.is_none() && init.secret != identity.secret {
            let none = init.secret.is_none();
            return Err(if none { Refusal::SecretRequired(init.id) } else { Refusal::IncorrectSecret(init.id) });
        }
        if init.mode != identity.mode {
            return Err(Refusal::Mode { got: init.mode, expected: identity.mode });
        }
        self.vacant()
    }

    /// Whether there is no connection. A peer that is gone has none any more, whoever still has its queues.
    fn vacant(&self) -> Result<(), Refusal> {
        match &self.link {
            Some(link) if link.check().is_ok() => Err(Refusal::AlreadyConnected(self.server.identity.id)),
            Some(_) | None => Ok(()),
        }
    }
}
