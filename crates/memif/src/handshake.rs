//! Who says what when: the two roles as machines without I/O.
//!
//! Guarantees: a machine takes messages in the protocol's order and nothing else; what it ends with is complete (every ring lies in
//! an announced region, none is missing) and within its limits. A server answers each message that it takes, so that no peer stalls.
//! Files are only carried, so that tests and fuzz targets run the machines without any.

pub(crate) mod client;
pub(crate) mod server;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::{
    control::{AddRing, Direction, MAX_LOG2_RING_SIZE, Mode, VERSION},
    text::Text,
};

/// Why a peer is not talked to any further: what it is told, and what is reported here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A message that does not come here.
    #[error("{got} is out of order: expected {expected}")]
    Order {
        /// What came.
        got: &'static str,
        /// What the protocol has here.
        expected: &'static str,
    },
    /// A file is missing, or one came that nobody asked for.
    #[error("{message} with {got}: expected {expected}")]
    File {
        /// The message.
        message: &'static str,
        /// What came.
        got: &'static str,
        /// What the protocol has.
        expected: &'static str,
    },
    /// Bytes that are no message, more files than one, or a file that was lost.
    #[error("{0}")]
    Malformed(String),
    /// Another version of the protocol.
    #[error("memif version {0:#06x}: expected {VERSION:#06x}")]
    Version(u16),
    /// A server that does not speak this version.
    #[error("server speaks memif {min:#06x} to {max:#06x}: expected {VERSION:#06x}")]
    Versions {
        /// The oldest that it speaks.
        min: u16,
        /// The newest that it speaks.
        max: u16,
    },
    /// No such interface behind this socket.
    #[error("unknown interface id {0}")]
    UnknownId(u32),
    /// Another client has this interface.
    #[error("interface id {0} is already connected")]
    AlreadyConnected(u32),
    /// The interface carries something else.
    #[error("mode mismatch: {got}, expected {expected}")]
    Mode {
        /// What the client wants.
        got: Mode,
        /// What the interface carries.
        expected: Mode,
    },
    /// The interface has a secret and the client told none.
    #[error("secret required for interface id {0}")]
    SecretRequired(u32),
    /// Another secret.
    #[error("incorrect secret for interface id {0}")]
    IncorrectSecret(u32),
    /// The client's user is not among those that may connect.
    #[error("user {user} may not connect to interface id {id}")]
    User {
        /// The peer's user id.
        user: u32,
        /// The interface.
        id: u32,
    },
    /// The kernel did not say which user the client is.
    #[error("the user of the peer is unknown, and interface id {0} is only for some")]
    UnknownUser(u32),
    /// A region or ring that is not the next one.
    #[error("{what} {got}: expected {expected} as the next")]
    Index {
        /// `region`, `S2M ring` or `M2S ring`.
        what: &'static str,
        /// The index that came.
        got: u16,
        /// The index that comes next.
        expected: u16,
    },
    /// More regions or rings than are allowed.
    #[error("{what} {index}: expected at most {most}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The index that came.
        index: u16,
        /// How many are allowed.
        most: u16,
    },
    /// A ring that is larger than allowed.
    #[error("{direction} ring {index} of 2^{log2} slots: expected at most 2^{most}")]
    RingSize {
        /// Which one.
        direction: Direction,
        /// Which one.
        index: u16,
        /// Logarithm of its size.
        log2: u8,
        /// The largest that is allowed.
        most: u8,
    },
    /// A ring that lies outside of its region, or where its indices cannot be.
    #[error("{direction} ring {index} at {offset} of region {region}: expected {expected}")]
    RingPlace {
        /// Which one.
        direction: Direction,
        /// Which one.
        index: u16,
        /// Its region.
        region: u16,
        /// Its place there.
        offset: u32,
        /// What was expected.
        expected: &'static str,
    },
    /// A ring without its mark.
    #[error("{direction} ring {index} has cookie {cookie:#010x}: expected {expected:#010x}", expected = crate::sys::COOKIE)]
    Cookie {
        /// Which one.
        direction: Direction,
        /// Which one.
        index: u16,
        /// What stands there.
        cookie: u32,
    },
    /// No ring in a direction.
    #[error("no {0} ring: expected one or more")]
    NoRing(Direction),
    /// A region that cannot be: empty, larger than its file or than allowed, or no memory at all.
    #[error("region {index}: {why}")]
    Region {
        /// Which one.
        index: u16,
        /// What is wrong with it.
        why: String,
    },
    /// An eventfd that is something else.
    #[error("{direction} ring {index}: expected an eventfd")]
    NoEventfd {
        /// Which one.
        direction: Direction,
        /// Which one.
        index: u16,
    },
    /// A peer that says nothing.
    #[error("no message in time")]
    Silent,
    /// A process, or a user, that connects too often at once.
    #[error("too many connections of one process or user are being made at once")]
    Crowded,
    /// The interface is going away.
    #[error("the interface is being removed")]
    Removed,
    /// The listener is going away.
    #[error("the server is closing its socket")]
    Closing,
}

impl Refusal {
    /// As the peer is told.
    pub(crate) fn text(&self) -> Text<96> {
        Text::cut(&self.to_string())
    }
}

/// A ring as a client announced it, with its eventfd.
#[derive(Debug)]
pub(crate) struct Ring<F> {
    pub(crate) place: AddRing,
    pub(crate) event: F,
}

/// What two ends agreed on from HELLO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Rings from client to server.
    pub(crate) to_server: u16,
    /// Rings from server to client.
    pub(crate) to_client: u16,
    pub(crate) log2_ring_size: u8,
}

impl fmt::Display for Agreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { to_server, to_client, log2_ring_size } = self;
        write!(f, "{to_server} S2M and {to_client} M2S rings of 2^{log2_ring_size} slots")
    }
}

const _: () = assert!(MAX_LOG2_RING_SIZE < 16, "an index could not tell a full ring from an empty one");
