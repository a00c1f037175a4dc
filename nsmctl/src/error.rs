//! What can go wrong, and what to do about it.

use std::{
    io,
    path::{Path, PathBuf},
};

use nsm_apiserver::Failure;

use crate::kind::UnknownKind;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// No agent at the socket.
    #[error("{0}; nsmctl check tells more")]
    Unreachable(#[from] crate::agent::Unreachable),
    /// The agent said no.
    #[error("{0}")]
    Refused(String),
    /// Nobody at the socket knows the call.
    #[error(
        "nobody at {} knows this call: it is not the agent's private socket (the NSM socket?), set --cni-socket; or the \
         agent is older than this nsmctl {}, then use the nsmctl that came with it",
        .0.display(), env!("CARGO_PKG_VERSION")
    )]
    UnknownCall(PathBuf),
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
    /// An annotation cannot be changed as asked.
    #[error("{0}")]
    Annotation(#[from] crate::pods::AnnotationError),
    /// No API server.
    #[error("{0}")]
    Cluster(String),
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
    /// With the socket that was asked, where that is the likely mistake.
    pub(crate) fn at(self, socket: &Path) -> Self {
        match self {
            Self::UnknownCall(_) => Self::UnknownCall(socket.to_owned()),
            other => other,
        }
    }

    /// The process's exit code.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Refused(_) | Self::UnknownCall(_) | Self::NotFound { .. } | Self::Findings | Self::Output(_) => 1,
            Self::Kind(_) | Self::Manifest { .. } | Self::Read { .. } | Self::Usage(_) | Self::Annotation(_) => 2,
            Self::Unreachable(_) | Self::Cluster(_) => 3,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(why) => Self::Cluster(format!("the API server cannot be reached: {why}")),
            Failure::Conflict(why) | Failure::Missing(why) | Failure::Forbidden(why) | Failure::Invalid(why) => {
                Self::Refused(format!("the API server refuses: {why}"))
            }
        }
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        match status.code() {
            // What gRPC itself answers where nobody serves the call.
            tonic::Code::Unimplemented if status.message().is_empty() => Self::UnknownCall(PathBuf::new()),
            tonic::Code::Unimplemented => Self::Refused(format!(
                "the agent does not know this call ({}): it is older than this nsmctl {}; use the nsmctl that came with it",
                status.message(),
                env!("CARGO_PKG_VERSION")
            )),
            tonic::Code::Unavailable if status.message().is_empty() => {
                Self::Refused("the agent went away in the middle: try again".to_owned())
            }
            code if status.message().is_empty() => {
                Self::Refused(format!("the agent answered {code:?}, without a word: see its log"))
            }
            _ => Self::Refused(status.message().to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_is_empty() {
        let wrong = Error::from(tonic::Status::unimplemented("")).at(Path::new("/run/a.sock")).to_string();
        assert!(wrong.contains("/run/a.sock") && wrong.contains("--cni-socket"), "{wrong}");
        assert!(Error::from(tonic::Status::internal("")).to_string().contains("Internal"));
    }
}
