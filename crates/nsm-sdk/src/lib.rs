//! Composable chain elements for clients and endpoints of Network Service Mesh.

mod call;
mod chain;
mod error;

pub use call::{Call, DEFAULT_TIMEOUT, Files};
pub use chain::{Chain, Close, Element, Next, Request};
pub use error::{Error, Kind};
