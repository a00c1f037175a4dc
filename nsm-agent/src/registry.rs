//! Where network services and their endpoints are found.
//!
//! Guarantees, whatever the backend:
//! - Reading ([`Directory`]) happens in memory, by index, and never waits for a disk or a network.
//! - Writing ([`Registry`]) answers when the object is as durable as the backend makes it; a failed write leaves memory and
//!   backend as they were. A caller who hangs up cannot cut a write in half.
//! - An object belongs to who registered it ([`Owner`]); only the owner and the operator can change or remove it.
//! - An endpoint goes when its time is over, or at once when it passed its own socket and its process ends; never because
//!   a connection was closed.
//!
//! A backend keeps a [`Directory`] up to date and implements the five verbs of [`Registry`]. [`Registrar`] has the rules and asks
//! something that keeps objects: a database file ([`Embedded`]) or
//! an API server ([`Kubernetes`]).

mod access;
mod check;
mod directory;
mod embedded;
mod entry;
#[doc(hidden)]
pub mod fuzzing;
mod kubernetes;
mod listener;
pub(crate) mod offers;
mod owner;
mod pods;
mod process;
mod record;
mod registrar;
pub mod services;
mod store;
mod template;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;

use async_trait::async_trait;
use nsm_objects::Access;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use nsm_sdk::Kind;

pub use access::{Party, Refusal, Role, ServiceAccess};
pub(crate) use check::own_domain;
pub(crate) use directory::State;
pub use directory::{Directory, Service};
pub use embedded::{Embedded, Settings};
pub(crate) use entry::DIALLED;
pub use entry::{Entry, Reach, Standing};
pub use kubernetes::{Kubernetes, Rivals, Settings as KubernetesSettings};
pub use owner::{Owner, Registrant, Term};
pub use pods::Pods;
pub use registrar::Registrar;
pub use store::OpenError;
pub use watch::{Change, Watch};

/// A backend. Everything that is read comes from its [`Directory`].
#[async_trait]
pub trait Registry: Send + Sync + 'static {
    /// What is registered, as this node knows it.
    fn directory(&self) -> &Arc<Directory>;

    /// An endpoint's (or client's) registration of a service. Without matches it never changes a service that exists.
    async fn register_service(&self, service: NetworkService, by: Owner) -> Result<Registered<Service>, Error>;

    /// The operator's word: replaces the whole service, whoever registered it, and who may use and serve it; `None`: that stays.
    async fn apply_service(
        &self,
        service: NetworkService,
        access: Option<Access>,
    ) -> Result<Registered<Service>, Error>;

    /// `false`: there was none.
    async fn unregister_service(&self, name: &str, by: Owner) -> Result<bool, Error>;

    /// Registers or renews an endpoint, if it may serve what it offers.
    async fn register_endpoint(
        &self,
        endpoint: NetworkServiceEndpoint,
        by: Registrant,
    ) -> Result<Registered<Entry>, Error>;

    /// `false`: there was none.
    async fn unregister_endpoint(&self, name: &str, by: Owner) -> Result<bool, Error>;
}

/// What a registration did.
#[derive(Debug)]
pub struct Registered<T> {
    /// The object as it is now.
    pub object: Arc<T>,
    /// Whether it was there before.
    pub outcome: Outcome,
}

/// What a registration changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// There was none of that name.
    Created,
    /// There was another one.
    Changed,
    /// It was there already; at most its expiry moved.
    Unchanged,
}

/// Why a registration failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A field is out of bounds.
    #[error("{field} {value:?}: expected {expected}")]
    Invalid {
        /// Path of the field.
        field: String,
        /// What it was, cut to a readable length.
        value: String,
        /// What would do.
        expected: String,
    },
    /// `service@domain`.
    #[error("{0:?} names another domain; this agent serves its own only: drop what follows the @")]
    OtherDomain(String),
    /// A file was named and not passed.
    #[error("url {0:?} names a file that was not passed on this socket")]
    NotPassed(String),
    /// The name belongs to somebody else.
    #[error("{what} {name:?} belongs to {owner}: take another name, or have its owner unregister it")]
    Taken {
        /// `network service` or `endpoint`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Who has it.
        owner: Owner,
    },
    /// Somebody else's object was to be removed.
    #[error("{what} {name:?} belongs to {owner}: only its owner or the operator can unregister it")]
    NotYours {
        /// `network service` or `endpoint`.
        what: &'static str,
        /// Its name.
        name: String,
        /// Who has it.
        owner: Owner,
    },
    /// The endpoint may not serve that service.
    #[error(transparent)]
    MayNot(#[from] Refusal),
    /// A bound of one owner, or of all, is reached.
    #[error("{owner} has registered {have} {what}, the most is {most}: unregister what is not needed")]
    TooMuch {
        /// Who.
        owner: Owner,
        /// What is counted.
        what: &'static str,
        /// How many there would be.
        have: usize,
        /// How many there may be.
        most: usize,
    },
    /// A bound of all peers together is reached.
    #[error("all peers together have registered {most} {what}, the most that there may be: try again later")]
    Full {
        /// What is counted.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// No space left for the database.
    #[error("the disk that holds the registry ({path}) is full, nothing was changed: free some space and try again")]
    DiskFull {
        /// The database file.
        path: String,
    },
    /// Any other failure to write.
    #[error("the registry's database {path} cannot be written, nothing was changed: {cause}")]
    Disk {
        /// The database file.
        path: String,
        /// What the disk or the database said.
        cause: String,
    },
    /// Nobody answers who keeps the objects.
    #[error("the Kubernetes API server did not take it, try again: {0}")]
    Away(String),
    /// This agent may not do that.
    #[error("this agent may not do that in Kubernetes (deploy/rbac.yaml says what it needs): {0}")]
    Forbidden(String),
    /// The definition does not allow it.
    #[error("the Kubernetes API server refuses it: {0}")]
    Refused(String),
    /// The agent is ending.
    #[error("the registry is shutting down: try again when the agent is back")]
    ShuttingDown,
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } | Self::OtherDomain(_) | Self::NotPassed(_) | Self::Refused(_) => Kind::Invalid,
            Self::Taken { .. } => Kind::Conflict,
            Self::NotYours { .. } | Self::Forbidden(_) | Self::MayNot(_) => Kind::Denied,
            Self::TooMuch { .. } | Self::Full { .. } | Self::DiskFull { .. } => Kind::Exhausted,
            Self::Disk { .. } => Kind::Internal,
            Self::ShuttingDown | Self::Away(_) => Kind::Unavailable,
        }
    }
}

impl From<Error> for nsm_sdk::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        nsm_sdk::Error::from(error).into()
    }
}
