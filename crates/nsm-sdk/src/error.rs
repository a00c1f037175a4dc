//! Why a Request or a Close failed: a kind that decides the gRPC status, and the typed cause.

use std::{error::Error as StdError, fmt, sync::Arc};

use tonic::{Code, Status};

/// What a caller can do about a failure. The gRPC status follows from it, and so does the CNI error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request itself is wrong; the same one will fail again. `INVALID_ARGUMENT`.
    Invalid,
    /// What the request names does not exist (yet). `NOT_FOUND`.
    NotFound,
    /// The caller may not do this. `PERMISSION_DENIED`.
    Denied,
    /// The name, id or address belongs to somebody else. `ALREADY_EXISTS`.
    Conflict,
    /// No address, number or place is left, or a bound is reached. `RESOURCE_EXHAUSTED`.
    Exhausted,
    /// The next hop said no, with its own reason. `FAILED_PRECONDITION`.
    Refused,
    /// The next hop cannot be reached, or went away in the middle. `UNAVAILABLE`.
    Unavailable,
    /// The time ran out. `DEADLINE_EXCEEDED`.
    Deadline,
    /// Somebody, usually the caller itself, called it off. `CANCELLED`.
    Cancelled,
    /// The kernel, the disk or this program failed. `INTERNAL`.
    Internal,
}

impl Kind {
    /// The gRPC status code of this kind.
    pub fn code(self) -> Code {
        match self {
            Self::Invalid => Code::InvalidArgument,
            Self::NotFound => Code::NotFound,
            Self::Denied => Code::PermissionDenied,
            Self::Conflict => Code::AlreadyExists,
            Self::Exhausted => Code::ResourceExhausted,
            Self::Refused => Code::FailedPrecondition,
            Self::Unavailable => Code::Unavailable,
            Self::Deadline => Code::DeadlineExceeded,
            Self::Cancelled => Code::Cancelled,
            Self::Internal => Code::Internal,
        }
    }

    /// The kind of a status that a peer answered. Go peers put every refusal into UNKNOWN.
    pub fn of(code: Code) -> Self {
        match code {
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid,
            Code::NotFound => Self::NotFound,
            Code::PermissionDenied | Code::Unauthenticated => Self::Denied,
            Code::AlreadyExists => Self::Conflict,
            Code::ResourceExhausted => Self::Exhausted,
            Code::Unavailable => Self::Unavailable,
            Code::DeadlineExceeded => Self::Deadline,
            Code::Cancelled => Self::Cancelled,
            Code::Internal | Code::DataLoss => Self::Internal,
            Code::Ok | Code::Unknown | Code::FailedPrecondition | Code::Aborted | Code::Unimplemented => Self::Refused,
        }
    }
}

/// A failure of a chain. Cheap to clone, since several waiters may get the same one.
#[derive(Clone)]
pub struct Error {
    kind: Kind,
    cause: Arc<dyn StdError + Send + Sync>,
}

impl Error {
    /// `cause` is an element's own error type, or a text.
    pub fn new(kind: Kind, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, cause: Arc::from(cause.into()) }
    }

    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The first cause of type `E` along `source()`.
    pub fn find<E: StdError + 'static>(&self) -> Option<&E> {
        let mut cause: Option<&(dyn StdError + 'static)> = Some(&*self.cause);
        while let Some(error) = cause {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            cause = error.source();
        }
        None
    }
}

/// Prints the cause and what caused it, in one line: gRPC and CNI carry one text.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        let mut source = self.cause.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

/// Its text holds the whole chain of causes, so it exposes none: they would be read twice.
impl StdError for Error {}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        Status::new(error.kind.code(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn causes_are_found_by_type_and_printed_once() {
        let error = Error::new(Kind::Internal, Outer(std::io::Error::other("inner")));
        assert_eq!(error.to_string(), "outer: inner");
        assert!(error.find::<std::io::Error>().is_some());
        assert_eq!(Status::from(error).code(), Code::Internal);
    }
}
