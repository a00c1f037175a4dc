//! The documents `NetworkService` and `NetworkServiceEndpoint`, as kubectl takes them and an API server keeps them.
//!
//! Guarantees: both spellings are read, NSM v1's (`matches`, `source_selector`, `routes`, `destination_selector`) and that of
//! the 2019 manifests (`match`, `sourceSelector`, `route`, `destination`, `destinationSelector`, nested either way). What is not
//! understood is refused with its place, its value and what was expected; nothing is dropped silently. Written is v1's
//! spelling, and what is written is read again. `allowed_client_namespaces` and `allowed_endpoint_namespaces` are ours: NSM v1's
//! message has no place for them.
#![forbid(unsafe_code)]

mod access;
mod read;
#[cfg(test)]
mod tests;
mod write;

use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};

pub use access::{ACCESS_FIELDS, ANY, Access};
pub use read::{Error, Wrong, endpoint, parse, service};
pub use write::{document, endpoint_spec, list, service_spec, time};

/// Group of our objects.
pub const GROUP: &str = "networkservicemesh.io";
/// Group and version in which objects are written.
pub const API_VERSION: &str = "networkservicemesh.io/v1";
/// Group and version of the 2019 manifests.
pub const API_VERSION_2019: &str = "networkservicemesh.io/v1alpha1";
/// Kind of a network service.
pub const SERVICE: &str = "NetworkService";
/// Kind of an endpoint.
pub const ENDPOINT: &str = "NetworkServiceEndpoint";

/// A network service as a document describes it: NSM v1's message, and who may use and serve it, which that cannot say.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Service {
    /// As on the wire.
    pub message: NetworkService,
    /// Who may use and serve it.
    pub access: Access,
}

/// What a document is about.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    /// A network service.
    Service(Service),
    /// An endpoint.
    Endpoint(NetworkServiceEndpoint),
}

impl Object {
    /// Its name.
    pub fn name(&self) -> &str {
        match self {
            Self::Service(service) => &service.message.name,
            Self::Endpoint(endpoint) => &endpoint.name,
        }
    }
}
