//! Composable chain elements for clients and endpoints of Network Service Mesh.

pub mod asked;
pub mod begin;
mod call;
mod chain;
pub mod client;
pub mod connect;
pub mod dns;
mod encoded;
pub mod endpoint;
mod error;
pub mod excluded;
pub mod expiry;
pub mod fail_at;
pub mod heal;
pub mod ipam;
pub mod kernel;
pub mod limits;
pub mod monitor;
pub mod mtu;
pub mod neighbours;
pub mod null;
pub mod path;
pub mod policies;
pub mod recover;
pub mod refresh;
pub mod registry;
pub mod routes;
pub mod serve;
pub mod settings;
mod tasks;
pub mod token;
pub mod token_headers;

pub use call::{Call, DEFAULT_TIMEOUT, Files};
pub use chain::{Chain, Close, Element, Next, Request};
pub use error::{Error, Kind};
