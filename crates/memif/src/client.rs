//! Connecting, in the client's role.

mod error;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use rustix::net::connect;

pub use error::ConnectError;

use crate::{
    address::{Address, socket, socket_in},
    channel::{self, left, readable, wait},
    connection::{About, Connection, mark},
    control::{Message, Mode},
    handshake::{
        Refusal,
        client::{Attachment, Client as Handshake, Failed, Step},
    },
    layout::Layout,
    memory::Region,
    peer::Peer,
    settings::{Identity, Rings},
    signal::eventfd_for_ring,
    sys,
    text::{Name, Secret, Text},
};

/// How long to wait before a full queue of a server is tried again.
const BUSY: Duration = Duration::from_millis(5);

/// What to connect to, and how. It can be used again and again: each connection has new memory.
#[derive(Debug)]
pub struct Client {
    address: Address,
    netns: Option<OwnedFd>,
    identity: Identity,
    rings: Rings,
}

impl Client {
    /// Interface 0 behind a server's socket, in Ethernet mode, without a secret, with [`Rings::default`].
    pub fn new(address: Address) -> Self {
        Self { address, netns: None, identity: Identity::new(0), rings: Rings::default() }
    }

    /// Another interface behind the same socket.
    #[must_use]
    pub fn id(mut self, id: u32) -> Self {
        self.identity.id = id;
        self
    }

    /// What passes. The server's interface must have the same mode.
    #[must_use]
    pub const fn mode(mut self, mode: Mode) -> Self {
        self.identity.mode = mode;
        self
    }

    /// What the server's interface asks for.
    #[must_use]
    pub const fn secret(mut self, secret: Secret) -> Self {
        self.identity.secret = secret;
        self
    }

    /// The name of this interface, as the server is told.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        self.identity.interface = Some(Name::cut(name));
        self
    }

    /// How many queues, slots and bytes. The server may allow less.
    #[must_use]
    pub const fn rings(mut self, rings: Rings) -> Self {
        self.rings = rings;
        self
    }

    /// Connects from inside another network namespace, to which an abstract name belongs.
    #[must_use]
    pub fn netns(mut self, netns: OwnedFd) -> Self {
        self.netns = Some(netns);
        self
    }

    /// Where it connects to.
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Connects, within `timeout`.
    ///
    /// # Errors
    /// Why there is no connection.
    pub fn connect(&self, timeout: Duration) -> Result<Connection, ConnectError> {
        let deadline = channel::deadline(timeout);
        let control =
            self.dial(deadline).map_err(|cause| ConnectError::Connect { address: self.address.clone(), cause })?;
        let mut handshake = Handshake::new(self.identity.clone(), self.rings);
        let mut memory: Option<(Layout, Region, OwnedFd, Vec<OwnedFd>)> = None;
        loop {
            let message = self.hear(&control, &handshake, deadline, timeout)?;
            let (message, attachment) =
                match handshake.receive(message).map_err(|failed| self.failed(&control, failed))? {
                    Step::Make(agreed) => {
                        let layout = Layout::new(agreed, self.rings.buffer_size)?;
                        let (region, file) = Region::make(layout.size()).map_err(ConnectError::Memory)?;
                        mark(&region, &layout)
                            .ok_or_else(|| ConnectError::Memory(io::Error::other("rings outside")))?;
                        let events = layout.rings().map(|_| eventfd_for_ring()).collect::<Result<_, _>>();
                        memory = Some((layout, region, file, events.map_err(ConnectError::Memory)?));
                        handshake.announce(&layout)
                    }
                    Step::Send(message, attachment) => (message, attachment),
                    Step::Connected(interface) => {
                        let credentials = sys::credentials(&control).ok();
                        let peer = Peer { program: handshake.server(), interface, credentials };
                        let about = About { peer, mode: self.identity.mode, id: self.identity.id };
                        let Some((layout, region, _, events)) = memory else {
                            return Err(ConnectError::Memory(io::Error::other("CONNECTED before there was memory")));
                        };
                        return Connection::of_client(control, region, &layout, events, about)
                            .map_err(ConnectError::Memory);
                    }
                };
            let file = memory.as_ref().and_then(|(_, _, file, events)| match attachment {
                Attachment::None => None,
                Attachment::Region => Some(file.as_fd()),
                Attachment::Event(number) => events.get(number).map(AsFd::as_fd),
            });
            // What the server said before it closed is more than that it did.
            if let Err(error) = channel::send(&control, &message, file)
                && !matches!(error, channel::Error::Closed)
            {
                return Err(self.broken(error, &handshake));
            }
        }
    }

    /// A socket that is connected. A server whose queue is full is asked again.
    fn dial(&self, deadline: Instant) -> io::Result<OwnedFd> {
        let address = self.address.to_socket_address()?;
        let control = match &self.netns {
            Some(netns) => socket_in(netns)?,
            None => socket()?,
        };
        loop {
            match connect(&control, &address) {
                Ok(()) => return Ok(control),
                Err(rustix::io::Errno::AGAIN) if !left(deadline).is_zero() => thread::sleep(BUSY.min(left(deadline))),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn hear(
        &self,
        control: &OwnedFd,
        handshake: &Handshake,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<Message, ConnectError> {
        loop {
            match channel::receive(control) {
                Ok(Some(channel::Received { message, file: None })) => return Ok(message),
                Ok(Some(channel::Received { message, file: Some(_) })) => {
                    let refusal = Refusal::File { message: message.name(), got: "a file", expected: "no file" };
                    return Err(self.failed(control, Failed::Refusal(refusal)));
                }
                Ok(None) if left(deadline).is_zero() => {
                    let awaited = handshake.awaited();
                    return Err(ConnectError::Timeout { address: self.address.clone(), awaited, timeout });
                }
                Ok(None) => {
                    let _ = wait(&mut [readable(control)], left(deadline))
                        .map_err(|error| self.broken(error.into(), handshake))?;
                }
                Err(error) => {
                    if !matches!(error, channel::Error::Closed) {
                        let reason = Text::cut(&error.to_string());
                        let _ = channel::send(control, &Message::Disconnect { code: 0, reason }, None);
                    }
                    return Err(self.broken(error, handshake));
                }
            }
        }
    }

    fn broken(&self, error: channel::Error, handshake: &Handshake) -> ConnectError {
        let address = self.address.clone();
        match error {
            channel::Error::Closed => ConnectError::Closed { address, awaited: handshake.awaited() },
            other => ConnectError::Protocol { address, refusal: Refusal::Malformed(other.to_string()) },
        }
    }

    fn failed(&self, control: &OwnedFd, failed: Failed) -> ConnectError {
        let address = self.address.clone();
        match failed {
            Failed::Refused { code, reason } => {
                let reason = reason.to_string();
                ConnectError::Refused { address, id: self.identity.id, code, reason }
            }
            Failed::Refusal(refusal) => {
                let _ = channel::send(control, &Message::Disconnect { code: 0, reason: refusal.text() }, None);
                ConnectError::Protocol { address, refusal }
            }
        }
    }
}
