//! The server's side: it takes what a client announces, within limits, and answers each message.

use super::{Refusal, Ring};
use crate::{
    control::{AddRing, Direction, Hello, Init, Message, VERSION},
    settings::{Identity, Limits},
    text::{Name, Text},
};

/// The interfaces behind a socket.
pub(crate) trait Interfaces {
    /// The interface that INIT asks for, if it may have it.
    fn admit(&self, init: &Init) -> Result<(Identity, Limits), Refusal>;
}

/// All that a client announced, once it is whole.
#[derive(Debug)]
pub(crate) struct Announced<F> {
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    /// Sizes and files, by index.
    pub(crate) regions: Vec<(u64, F)>,
    /// By index.
    pub(crate) to_server: Vec<Ring<F>>,
    pub(crate) to_client: Vec<Ring<F>>,
    /// The client's program and interface.
    pub(crate) program: Name,
    pub(crate) interface: Name,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step<F> {
    /// Say so, and wait for the next message.
    Send(Message),
    /// Map what was announced; CONNECTED follows when that went well.
    Connect(Box<Announced<F>>),
}

/// What ends a handshake.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// The client has changed its mind.
    Left { code: u32, reason: Text<96> },
    /// We say no.
    Refusal(Refusal),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refusal(refusal)
    }
}

#[derive(Debug)]
enum State<F> {
    Init,
    /// Regions first, then S2M rings, then M2S rings: which of the three is told by what is there already.
    Announcing(Box<Announced<F>>),
    Done,
}

/// A server in one client's handshake.
#[derive(Debug)]
pub(crate) struct Server<F> {
    state: State<F>,
    /// The interface that the client was admitted to; also once it has been refused.
    id: Option<u32>,
}

/// The first word is the server's.
pub(crate) fn hello(program: Name, limits: Limits) -> Message {
    Message::Hello(Hello {
        name: program,
        min_version: VERSION,
        max_version: VERSION,
        max_region: limits.regions - 1,
        max_m2s_ring: limits.rings - 1,
        max_s2m_ring: limits.rings - 1,
        max_log2_ring_size: limits.log2_ring_size,
    })
}

impl<F> Server<F> {
    pub(crate) const fn new() -> Self {
        Self { state: State::Init, id: None }
    }

    /// The interface that the client was admitted to, once it was.
    pub(crate) const fn id(&self) -> Option<u32> {
        self.id
    }

    /// Takes a message of the client.
    pub(crate) fn receive(
        &mut self,
        message: Message,
        file: Option<F>,
        interfaces: &impl Interfaces,
    ) -> Result<Step<F>, Failed> {
        let expects_file = matches!(message, Message::AddRegion { .. } | Message::AddRing(_));
        if expects_file != file.is_some() {
            let word = |there| if there { "a file" } else { "no file" };
            let (got, expected) = (word(file.is_some()), word(expects_file));
            return Err(Refusal::File { message: message.name(), got, expected }.into());
        }
        if let Message::Disconnect { code, reason } = message {
            return Err(Failed::Left { code, reason });
        }
        match (std::mem::replace(&mut self.state, State::Done), message, file) {
            (State::Init, Message::Init(init), _) => {
                if init.version != VERSION {
                    return Err(Refusal::Version(init.version).into());
                }
                let (identity, limits) = interfaces.admit(&init)?;
                self.id = Some(identity.id);
                self.state = State::Announcing(Box::new(Announced {
                    identity,
                    limits,
                    regions: Vec::new(),
                    to_server: Vec::new(),
                    to_client: Vec::new(),
                    program: init.name,
                    interface: Name::cut(""),
                }));
                Ok(Step::Send(Message::Ack))
            }
            (State::Announcing(mut announced), Message::AddRegion { index, size }, Some(file)) => {
                announced.region(index, size, file)?;
                self.state = State::Announcing(announced);
                Ok(Step::Send(Message::Ack))
            }
            (State::Announcing(mut announced), Message::AddRing(place), Some(event)) => {
                announced.ring(place, event)?;
                self.state = State::Announcing(announced);
                Ok(Step::Send(Message::Ack))
            }
            (State::Announcing(mut announced), Message::Connect { interface }, _) => {
                for (rings, direction) in
                    [(&announced.to_server, Direction::ToServer), (&announced.to_client, Direction::ToClient)]
                {
                    if rings.is_empty() {
                        return Err(Refusal::NoRing(direction).into());
                    }
                }
                announced.interface = interface;
                Ok(Step::Connect(announced))
            }
            (state, other, _) => {
                let expected = match state {
                    State::Init => "INIT",
                    State::Announcing(_) => "ADD_REGION, ADD_RING or CONNECT",
                    State::Done => "nothing any more",
                };
                Err(Refusal::Order { got: other.name(), expected }.into())
            }
        }
    }
}

impl<F> Announced<F> {
    fn region(&mut self, index: u16, size: u64, file: F) -> Result<(), Refusal> {
        if !self.to_server.is_empty() || !self.to_client.is_empty() {
            return Err(Refusal::Order { got: "ADD_REGION", expected: "ADD_RING or CONNECT" });
        }
        next("region", index, self.regions.len(), self.limits.regions)?;
        let before: u64 = self.regions.iter().map(|(size, _)| size).sum();
        let refused = |why| Refusal::Region { index, why };
        if size == 0 {
            return Err(refused("its size is 0".into()));
        }
        if before.checked_add(size).is_none_or(|all| all > self.limits.memory) {
            return Err(refused(format!(
                "{size} bytes, and {before} before it: expected at most {}",
                self.limits.memory
            )));
        }
        self.regions.push((size, file));
        Ok(())
    }

    fn ring(&mut self, place: AddRing, event: F) -> Result<(), Refusal> {
        let AddRing { direction, index, region, offset, log2_ring_size: log2 } = place;
        let (rings, what) = match direction {
            Direction::ToServer => (&mut self.to_server, "S2M ring"),
            Direction::ToClient => (&mut self.to_client, "M2S ring"),
        };
        next(what, index, rings.len(), self.limits.rings)?;
        if log2 > self.limits.log2_ring_size {
            return Err(Refusal::RingSize { direction, index, log2, most: self.limits.log2_ring_size });
        }
        let misplaced = |expected| Refusal::RingPlace { direction, index, region, offset, expected };
        let Some((size, _)) = self.regions.get(usize::from(region)) else {
            return Err(misplaced("a region that was announced"));
        };
        if u64::from(offset) + crate::layout::ring_bytes(log2) > *size {
            return Err(misplaced("all of it to lie in the region"));
        }
        rings.push(Ring { place, event });
        Ok(())
    }
}

/// Indices ascend from 0 without gaps.
fn next(what: &'static str, index: u16, there: usize, most: u16) -> Result<(), Refusal> {
    let expected = u16::try_from(there).unwrap_or(u16::MAX);
    if index != expected {
        return Err(Refusal::Index { what, got: index, expected });
    }
    if index >= most {
        return Err(Refusal::TooMany { what, index, most });
    }
    Ok(())
}
