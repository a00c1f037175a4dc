//! Composable chain elements for clients and endpoints of Network Service Mesh.

pub mod begin;
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
pub mod ipam;

pub use call::{Call, DEFAULT_TIMEOUT, Files};
pub use chain::{Chain, Close, Element, Next, Request};
pub use error::{Error, Kind};
