//! Programs over the upstream Go SDK (`conformance/go-peers`) as processes of a lab.
#![forbid(unsafe_code)]

mod peer;
pub mod tools;

pub use peer::{Peer, go_client, go_endpoint, registry};
