//! The messages of the control channel, and nothing of the order in which they come (that is `handshake`).
//!
//! Guarantees: what [`Message::parse`] accepts is one of the eight messages with every field in its range; whatever the bytes,
//! it returns. [`Message::encode`] is its inverse, always 128 bytes with zeroes where nothing stands.

use std::fmt;

use crate::text::{Name, Secret, Text};

#[cfg(test)]
mod tests;

/// Bytes of every message.
pub const MESSAGE_SIZE: usize = 128;

/// The one version of the protocol that is spoken: 2.0.
pub const VERSION: u16 = 0x0200;

/// The largest ring has 2^14 slots: the free-running indices are 16 bits wide.
pub const MAX_LOG2_RING_SIZE: u8 = 14;

/// What passes through an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Mode {
    /// Ethernet frames.
    #[default]
    Ethernet,
    /// IPv4 and IPv6 packets, beginning with their header.
    Ip,
    /// What VPP punts and has injected.
    PuntInject,
}

impl Mode {
    const fn number(self) -> u8 {
        match self {
            Self::Ethernet => 0,
            Self::Ip => 1,
            Self::PuntInject => 2,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ethernet => "Ethernet",
            Self::Ip => "IP",
            Self::PuntInject => "punt/inject",
        })
    }
}

/// Where a ring's packets go. The names are the protocol's; master is the server, slave the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// S2M: from the client to the server.
    ToServer,
    /// M2S: from the server to the client.
    ToClient,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ToServer => "S2M",
            Self::ToClient => "M2S",
        })
    }
}

/// A server's first message: what it can do. The limits are highest indexes, not counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// The program at the other end.
    pub name: Name,
    /// The oldest version that it speaks.
    pub min_version: u16,
    /// The newest version that it speaks.
    pub max_version: u16,
    /// Highest index of a region.
    pub max_region: u16,
    /// Highest index of a ring from server to client.
    pub max_m2s_ring: u16,
    /// Highest index of a ring from client to server.
    pub max_s2m_ring: u16,
    /// Highest logarithm of a ring's number of slots.
    pub max_log2_ring_size: u8,
}

/// A client's first message: which interface it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// The version that the client speaks.
    pub version: u16,
    /// The interface among those behind one socket.
    pub id: u32,
    /// What passes through it.
    pub mode: Mode,
    /// What both know; nothing but zeroes where nothing is asked for.
    pub secret: Secret,
    /// The program at the other end.
    pub name: Name,
}

/// One ring: where it lies and how large it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddRing {
    /// Where its packets go.
    pub direction: Direction,
    /// Its number among the rings of that direction.
    pub index: u16,
    /// The region that it lies in.
    pub region: u16,
    /// Where in the region.
    pub offset: u32,
    /// Logarithm of its number of slots, at most 14.
    pub log2_ring_size: u8,
}

/// A message of the control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Message {
    /// The server took a message; the client may send the next.
    Ack,
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Init`].
    Init(Init),
    /// A region of the client's memory; its file comes along.
    AddRegion {
        /// Its number.
        index: u16,
        /// Its size in bytes.
        size: u64,
    },
    /// See [`AddRing`]; its eventfd comes along.
    AddRing(AddRing),
    /// The client has told all.
    Connect {
        /// The client's name for its interface.
        interface: Name,
    },
    /// The server is ready.
    Connected {
        /// The server's name for its interface.
        interface: Name,
    },
    /// The sender is going.
    Disconnect {
        /// A number, 0 in all implementations that are known.
        code: u32,
        /// Why, for people.
        reason: Text<96>,
    },
}

/// Bytes that are no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A message of another size.
    #[error("message of {0} bytes: expected {MESSAGE_SIZE}")]
    Size(usize),
    /// An unknown type.
    #[error("message type {0}: expected 1 to 8")]
    Type(u16),
    /// An unknown mode.
    #[error("mode {0}: expected 0 (Ethernet), 1 (IP) or 2 (punt/inject)")]
    Mode(u8),
    /// A ring without slots, or one larger than its indices can count.
    #[error("ring of 2^{0} slots: expected at most 2^{MAX_LOG2_RING_SIZE}")]
    RingSize(u8),
    /// A header before each packet, which version 2.0 has no use for.
    #[error("private header of {0} bytes: expected 0")]
    PrivateHeader(u16),
    /// A flag of a ring that nobody has defined.
    #[error("ring flags {0:#06x}: expected 0 or 1")]
    RingFlags(u16),
    /// An interface's or version's limit that cannot be.
    #[error("versions {min:#06x} to {max:#06x}: expected the first to be the lower one")]
    Versions {
        /// The oldest.
        min: u16,
        /// The newest.
        max: u16,
    },
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: &[u8; MESSAGE_SIZE] = bytes.try_into().map_err(|_| Malformed::Size(bytes.len()))?;
        let fields = Fields(bytes);
        match fields.u16::<0>() {
            1 => Ok(Self::Ack),
            2 => fields.hello().map(Self::Hello),
            3 => fields.init().map(Self::Init),
            4 => Ok(Self::AddRegion { index: fields.u16::<2>(), size: fields.u64::<4>() }),
            5 => fields.add_ring().map(Self::AddRing),
            6 => Ok(Self::Connect { interface: Name::from_field(fields.take::<2, 32>()) }),
            7 => Ok(Self::Connected { interface: Name::from_field(fields.take::<2, 32>()) }),
            8 => Ok(Self::Disconnect { code: fields.u32::<2>(), reason: Text::from_field(fields.take::<6, 96>()) }),
            other => Err(Malformed::Type(other)),
        }
    }

    /// Writes the message.
    pub fn encode(&self) -> [u8; MESSAGE_SIZE] {
        let mut bytes = [0; MESSAGE_SIZE];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &self.number().to_ne_bytes());
        match self {
            Self::Ack => {}
            Self::Hello(hello) => {
                put(2, hello.name.field());
                put(34, &hello.min_version.to_ne_bytes());
                put(36, &hello.max_version.to_ne_bytes());
                put(38, &hello.max_region.to_ne_bytes());
                put(40, &hello.max_m2s_ring.to_ne_bytes());
                put(42, &hello.max_s2m_ring.to_ne_bytes());
                put(44, &[hello.max_log2_ring_size]);
            }
            Self::Init(init) => {
                put(2, &init.version.to_ne_bytes());
                put(4, &init.id.to_ne_bytes());
                put(8, &[init.mode.number()]);
                put(9, init.secret.field());
                put(33, init.name.field());
            }
            Self::AddRegion { index, size } => {
                put(2, &index.to_ne_bytes());
                put(4, &size.to_ne_bytes());
            }
            Self::AddRing(ring) => {
                put(2, &u16::from(ring.direction == Direction::ToServer).to_ne_bytes());
                put(4, &ring.index.to_ne_bytes());
                put(6, &ring.region.to_ne_bytes());
                put(8, &ring.offset.to_ne_bytes());
                put(12, &[ring.log2_ring_size]);
            }
            Self::Connect { interface } | Self::Connected { interface } => put(2, interface.field()),
            Self::Disconnect { code, reason } => {
                put(2, &code.to_ne_bytes());
                put(6, reason.field());
            }
        }
        bytes
    }

    const fn number(&self) -> u16 {
        match self {
            Self::Ack => 1,
            Self::Hello(_) => 2,
            Self::Init(_) => 3,
            Self::AddRegion { .. } => 4,
            Self::AddRing(_) => 5,
            Self::Connect { .. } => 6,
            Self::Connected { .. } => 7,
            Self::Disconnect { .. } => 8,
        }
    }

    /// The protocol's name of the message.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ack => "ACK",
            Self::Hello(_) => "HELLO",
            Self::Init(_) => "INIT",
            Self::AddRegion { .. } => "ADD_REGION",
            Self::AddRing(_) => "ADD_RING",
            Self::Connect { .. } => "CONNECT",
            Self::Connected { .. } => "CONNECTED",
            Self::Disconnect { .. } => "DISCONNECT",
        }
    }
}

/// Fields at their offsets, in the order of bytes of this machine, which both ends run on.
struct Fields<'a>(&'a [u8; MESSAGE_SIZE]);

impl Fields<'_> {
    fn take<const AT: usize, const SIZE: usize>(&self) -> [u8; SIZE] {
        const { assert!(AT + SIZE <= MESSAGE_SIZE) };
        let mut field = [0; SIZE];
        field.copy_from_slice(&self.0[AT..AT + SIZE]);
        field
    }

    fn u8<const AT: usize>(&self) -> u8 {
        self.take::<AT, 1>()[0]
    }

    fn u16<const AT: usize>(&self) -> u16 {
        u16::from_ne_bytes(self.take::<AT, 2>())
    }

    fn u32<const AT: usize>(&self) -> u32 {
        u32::from_ne_bytes(self.take::<AT, 4>())
    }

    fn u64<const AT: usize>(&self) -> u64 {
        u64::from_ne_bytes(self.take::<AT, 8>())
    }

    fn hello(&self) -> Result<Hello, Malformed> {
        let hello = Hello {
            name: Name::from_field(self.take::<2, 32>()),
            min_version: self.u16::<34>(),
            max_version: self.u16::<36>(),
            max_region: self.u16::<38>(),
            max_m2s_ring: self.u16::<40>(),
            max_s2m_ring: self.u16::<42>(),
            max_log2_ring_size: self.u8::<44>(),
        };
        if hello.min_version > hello.max_version {
            return Err(Malformed::Versions { min: hello.min_version, max: hello.max_version });
        }
        Ok(hello)
    }

    fn init(&self) -> Result<Init, Malformed> {
        Ok(Init {
            version: self.u16::<2>(),
            id: self.u32::<4>(),
            mode: match self.u8::<8>() {
                0 => Mode::Ethernet,
                1 => Mode::Ip,
                2 => Mode::PuntInject,
                other => return Err(Malformed::Mode(other)),
            },
            secret: Secret::from_field(self.take::<9, 24>()),
            name: Name::from_field(self.take::<33, 32>()),
        })
    }

    fn add_ring(&self) -> Result<AddRing, Malformed> {
        let direction = match self.u16::<2>() {
            0 => Direction::ToClient,
            1 => Direction::ToServer,
            other => return Err(Malformed::RingFlags(other)),
        };
        let log2_ring_size = self.u8::<12>();
        if log2_ring_size > MAX_LOG2_RING_SIZE {
            return Err(Malformed::RingSize(log2_ring_size));
        }
        if let header @ 1.. = self.u16::<13>() {
            return Err(Malformed::PrivateHeader(header));
        }
        Ok(AddRing {
            direction,
            index: self.u16::<4>(),
            region: self.u16::<6>(),
            offset: self.u32::<8>(),
            log2_ring_size,
        })
    }
}
