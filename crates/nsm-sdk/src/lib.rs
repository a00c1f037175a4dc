//! Composable chain elements for clients and endpoints of Network Service Mesh.

pub mod begin;
pub mod client;
pub mod heal;
pub mod monitor;
pub mod refresh;
pub mod expiry;
pub mod connect;
pub mod limits;
pub mod serve;
pub mod fail_at;
pub mod null;
pub mod path;
pub mod token;
pub mod token_headers;
mod call;
mod chain;
mod error;
mod tasks;
pub mod ipam;
pub mod kernel;
pub mod mtu;
pub mod dns;
pub mod neighbours;
pub mod policies;
pub mod routes;
pub mod excluded;
pub mod settings;
pub mod endpoint;
pub mod registry;

pub use call::{Call, DEFAULT_TIMEOUT, Files};
pub use chain::{Chain, Close, Element, Next, Request};
pub use error::{Error, Kind};
