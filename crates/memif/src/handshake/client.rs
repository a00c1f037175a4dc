//! The client's side: it announces what it made, one message for each answer.

use std::collections::VecDeque;

use super::{Agreed, Refusal};
use crate::{
    control::{Hello, Init, Message, VERSION},
    layout::Layout,
    settings::{Identity, Rings},
    text::{Name, Text},
};

/// Which file goes with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attachment {
    None,
    /// The memory.
    Region,
    /// The eventfd of this ring, in the layout's order.
    Event(usize),
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The limits are known: make the memory, then go on with [`Client::announce`].
    Make(Agreed),
    Send(Message, Attachment),
    /// The link is up; this is the server's interface.
    Connected(Name),
}

/// What ends a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The server said no.
    Refused { code: u32, reason: Text<96> },
    /// We say no.
    Refusal(Refusal),
}

#[derive(Debug)]
enum State {
    Hello,
    /// The memory is being made.
    Making,
    /// Each acknowledgement releases the next of these.
    Announcing(VecDeque<(Message, Attachment)>),
    Connecting,
    Connected,
}

/// A client in its handshake.
#[derive(Debug)]
pub(crate) struct Client {
    identity: Identity,
    rings: Rings,
    state: State,
    server: Name,
}

impl Client {
    pub(crate) fn new(identity: Identity, rings: Rings) -> Self {
        Self { identity, rings, state: State::Hello, server: Name::cut("") }
    }

    /// The server program's name.
    pub(crate) const fn server(&self) -> Name {
        self.server
    }

    /// What is waited for, for people.
    pub(crate) const fn awaited(&self) -> &'static str {
        match self.state {
            State::Hello | State::Making => "HELLO",
            State::Announcing(_) => "ACK",
            State::Connecting | State::Connected => "CONNECTED",
        }
    }

    /// Takes a message of the server. It never sends files.
    pub(crate) fn receive(&mut self, message: Message) -> Result<Step, Failed> {
        if let Message::Disconnect { code, reason } = message {
            return Err(Failed::Refused { code, reason });
        }
        match (&mut self.state, message) {
            (State::Hello, Message::Hello(hello)) => {
                let agreed = agree(&hello, self.rings).map_err(Failed::Refusal)?;
                self.server = hello.name;
                self.state = State::Making;
                Ok(Step::Make(agreed))
            }
            (State::Announcing(queue), Message::Ack) => {
                let (message, attachment) = queue
                    .pop_front()
                    .unwrap_or((Message::Connect { interface: self.identity.interface() }, Attachment::None));
                if matches!(message, Message::Connect { .. }) {
                    self.state = State::Connecting;
                }
                Ok(Step::Send(message, attachment))
            }
            (State::Connecting, Message::Connected { interface }) => {
                self.state = State::Connected;
                Ok(Step::Connected(interface))
            }
            (_, other) => Err(Failed::Refusal(Refusal::Order { got: other.name(), expected: self.awaited() })),
        }
    }

    /// Announces the memory that was made: INIT goes first.
    pub(crate) fn announce(&mut self, layout: &Layout) -> (Message, Attachment) {
        let mut queue = VecDeque::from([(Message::AddRegion { index: 0, size: layout.size() }, Attachment::Region)]);
        queue.extend(
            layout.rings().enumerate().map(|(number, place)| (Message::AddRing(place), Attachment::Event(number))),
        );
        self.state = State::Announcing(queue);
        let Identity { id, mode, secret, program, .. } = self.identity;
        (Message::Init(Init { version: VERSION, id, mode, secret, name: program }), Attachment::None)
    }
}

/// The smaller of what both can do. Limits are highest indexes.
fn agree(hello: &Hello, rings: Rings) -> Result<Agreed, Refusal> {
    if !(hello.min_version..=hello.max_version).contains(&VERSION) {
        return Err(Refusal::Versions { min: hello.min_version, max: hello.max_version });
    }
    Ok(Agreed {
        to_server: rings.transmit.min(hello.max_s2m_ring.saturating_add(1)),
        to_client: rings.receive.min(hello.max_m2s_ring.saturating_add(1)),
        log2_ring_size: rings.log2_size.min(hello.max_log2_ring_size),
    })
}
