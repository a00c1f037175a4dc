//! What can go wrong with a call.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::retval::Retval;
use crate::wire::{DecodeError, EncodeError};

/// A call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no socket, or nobody listens on it.
    #[error("{}: {advice}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What to do.
        advice: &'static str,
        /// What the kernel says.
        source: Arc<io::Error>,
    },
    /// Who listens is no VPP, or one of another kind.
    #[error("{}: {problem}", path.display())]
    Handshake {
        /// The socket.
        path: PathBuf,
        /// What was expected, and what came.
        problem: String,
    },
    /// VPP's definition of the message is another one, so that it would read something else. Nothing was sent.
    #[error("{message}: its CRC is {ours:08x} here and {theirs:08x} in this VPP: use definitions of VPP's version")]
    OtherVersion {
        /// The message.
        message: String,
        /// The CRC of the definition here.
        ours: u32,
        /// That of VPP's.
        theirs: u32,
    },
    /// VPP does not have the message. Nothing was sent.
    #[error(
        "{message}_{crc:08x}: this VPP has no such message: load the plugin that it belongs to, or use a VPP that has it"
    )]
    NotServed {
        /// The message.
        message: String,
        /// Its CRC here.
        crc: u32,
    },
    /// A field cannot be sent. Nothing was.
    #[error("{message} was not sent: {reason}")]
    NotSent {
        /// The message.
        message: String,
        /// Which field, and why.
        reason: EncodeError,
    },
    /// VPP did not do it.
    #[error("{message}: VPP answers {retval}")]
    Refused {
        /// The message.
        message: String,
        /// What it says.
        retval: Retval,
    },
    /// No answer in time. VPP drops requests with an index or id that it does not know, without a word.
    #[error("{message}: no answer within {after:?}; VPP may still do it")]
    Timeout {
        /// The message.
        message: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection ended first.
    #[error("{message}: {} when the connection was lost: {loss}", sent.words())]
    Lost {
        /// The message.
        message: String,
        /// How far it was.
        sent: Sent,
        /// Why.
        loss: Loss,
    },
    /// Another message came back than the one that answers this.
    #[error("{message}: expected {expected}, VPP sent {found}")]
    WrongReply {
        /// The message.
        message: String,
        /// What answers it.
        expected: String,
        /// What came.
        found: String,
    },
    /// The answer cannot be read.
    #[error("{message} cannot be read: {reason}")]
    Unreadable {
        /// The answer's name.
        message: String,
        /// Where, and why.
        reason: DecodeError,
    },
    /// More came than the caller took or memory is for.
    #[error("{message}: more than {most} bytes of answers wait: take them as they come, or raise the limit")]
    TooMuch {
        /// The message.
        message: String,
        /// The limit.
        most: usize,
    },
    /// More came than one call gathers.
    #[error(
        "{message}: its answers take more than {most} bytes of memory: take details one by one (Client::details), or raise Limits::gathered"
    )]
    TooLarge {
        /// The message.
        message: String,
        /// The limit.
        most: usize,
    },
    /// VPP does not read what it is sent.
    #[error("{message}: {waiting} bytes wait for VPP to read them, it may hang: expected less than {most}")]
    Stuck {
        /// The message.
        message: String,
        /// In the way.
        waiting: usize,
        /// The limit.
        most: usize,
    },
    /// In dynamic mode: the definitions have no such message, or it is not one to call.
    #[error("{0}")]
    NoRequest(String),
}

/// How far a message was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Nothing of it has left: VPP has not done it.
    No,
    /// VPP may have done it or not. After a restart of VPP it makes no difference.
    Perhaps,
}

impl Sent {
    fn words(self) -> &'static str {
        match self {
            Self::No => "it was not sent yet",
            Self::Perhaps => "VPP may have done it or not",
        }
    }
}

/// Why a connection ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Loss {
    /// VPP has closed it, or is gone.
    Closed,
    /// The kernel says so.
    Io(Arc<io::Error>),
    /// VPP sent something that makes no sense.
    Nonsense(String),
    /// We closed it.
    Here,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("VPP closed it"),
            Self::Io(error) => error.fmt(f),
            Self::Nonsense(what) => f.write_str(what),
            Self::Here => f.write_str("it was closed on this side"),
        }
    }
}
