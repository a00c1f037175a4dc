//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

use crate::kind::UnknownKind;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No agent at the socket.
    #[error("{0}")]
    Unreachable(#[from] crate::agent::Unreachable),
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// The named object is not there.
    #[error("{what} {name:?} is not there: nsmctl get {what}s lists what is")]
    NotFound {
        /// Singular name of the kind.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// The command line names a kind that does not exist.
    #[error("{0}")]
    Kind(#[from] UnknownKind),
    /// A document is wrong.
    #[error("{source_name}: {error}")]
    Manifest {
        /// File or standard input.
        source_name: String,
        /// What is wrong with it.
        error: nsm_objects::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A combination of arguments that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// Problems were found and have been printed.
    #[error("problems were found")]
    Findings,
    /// Our own output.
    #[error("cannot write: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::NotFound { .. } | Self::Findings | Self::Output(_) => 1,
            Self::Kind(_) | Self::Manifest { .. } | Self::Read { .. } | Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            tonic::Code::Unimplemented => Self::Refused(format!(
                "the agent does not know this call ({}): it is older than this nsmctl {}; use the nsmctl that came with it",
                status.message(),
                env!("CARGO_PKG_VERSION")
            )),
            tonic::Code::Unavailable if status.message().is_empty() => {
                Self::Refused("the agent went away in the middle: try again".to_owned())
            }
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}
