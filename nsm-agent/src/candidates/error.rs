//! Why a client cannot be connected to any endpoint.

use std::{collections::BTreeMap, fmt};

use nsm_sdk::Kind;

use crate::registry::Refusal;

/// Why there is no candidate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such service.
    #[error(
        "network service {0:?} is not registered: start an endpoint of it, or nsmctl apply it; nsmctl get networkservices lists those that are"
    )]
    NoService(String),
    /// Nobody knows yet: the agent has just started.
    #[error("network service {0:?} cannot be looked up: the registry has not been read yet; try again")]
    Reading(String),
    /// `service@domain`.
    #[error(transparent)]
    OtherDomain(#[from] crate::registry::Error),
    /// The endpoint that the client names is not there.
    #[error("endpoint {0:?} is not registered: nsmctl get nse")]
    NoSuchEndpoint(String),
    /// The endpoint that the client names is there, for something else.
    #[error("endpoint {endpoint:?} does not offer network service {service:?}, but {offers}")]
    OffersOther {
        /// The service.
        service: String,
        /// The endpoint.
        endpoint: String,
        /// What it does offer.
        offers: String,
    },
    /// The client may not use the service.
    #[error(transparent)]
    MayNotUse(Refusal),
    /// Those that fit, or the one that the client names, may not serve it.
    #[error("no endpoint of {service:?} that fits may serve it: {}", each.join("; "))]
    MayNotServe {
        /// The service.
        service: String,
        /// Each endpoint with the reason, as far as there is room.
        each: Vec<String>,
    },
    /// Those that fit, or the one that the client names, cannot be dialled.
    #[error("no endpoint of {service:?} that fits can be reached: {}", each.join("; "))]
    Unreachable {
        /// The service.
        service: String,
        /// Each endpoint with the reason, as far as there is room.
        each: Vec<String>,
        /// One of them is about to register again.
        returning: bool,
    },
    /// The service's matches let none through.
    #[error(
        "no endpoint of {service:?} matches {labels}; {known} registered: nsmctl describe networkservice {service}"
    )]
    NoEndpoint {
        /// The service.
        service: String,
        /// The client's labels.
        labels: Labels,
        /// How many endpoints offer the service.
        known: usize,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::OtherDomain(error) => error.kind(),
            Self::NoService(_) | Self::NoEndpoint { .. } | Self::NoSuchEndpoint(_) => Kind::NotFound,
            Self::MayNotUse(_) | Self::MayNotServe { .. } => Kind::Denied,
            Self::OffersOther { .. } => Kind::Invalid,
            Self::Unreachable { .. } | Self::Reading(_) => Kind::Unavailable,
        }
    }

    /// Whether waiting a moment may help: an endpoint that fits is about to register again.
    pub fn returning(&self) -> bool {
        match self {
            Self::OtherDomain(_)
            | Self::NoService(_)
            | Self::NoEndpoint { .. }
            | Self::NoSuchEndpoint(_)
            | Self::MayNotUse(_)
            | Self::MayNotServe { .. }
            | Self::OffersOther { .. } => false,
            Self::Reading(_) => true,
            Self::Unreachable { returning, .. } => *returning,
        }
    }
}

impl From<Error> for nsm_sdk::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Labels in an error: `app=firewall,zone=a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "a client without labels");
        }
        for (at, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
