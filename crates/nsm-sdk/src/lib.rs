//! Clients and endpoints of Network Service Mesh, as chains of elements.
//!
//! A client asks the node's agent for a *network service* by name, and gets a network interface to an endpoint of it. An
//! endpoint registers what it serves, and decides what each client gets. On both sides a Request passes through a chain of
//! elements, each of which does one thing: gives addresses, limits the MTU, keeps the connection alive. A chain of your own is
//! these elements, and yours among them.
//!
//! # Depend on it
//!
//! It is not on crates.io yet:
//!
//! ```toml
//! [dependencies]
//! nsm-sdk = { path = "../nsm/crates/nsm-sdk" } # or git = "URL of this repository"
//! tokio = { version = "1", features = ["macros", "rt", "signal"] }
//! ```
//!
//! [`async_trait`](macro@async_trait) and the protocol's messages ([`proto`]) come with it.
//!
//! # Two programs
//!
//! A client, in full ([`client`] has it with its guarantees; `cargo run -p nsm-sdk --example client`), and an endpoint
//! ([`endpoint`]; `cargo run -p nsm-sdk --example endpoint`). Both take the agent's socket as argument.
//!
//! # An element of your own
//!
//! One type with `request` and `close`; [`null`] is the template to copy. What comes before `next` happens on the way to the
//! endpoint, what comes after it on the way back:
//!
//! ```
//! use nsm_sdk::{Close, Element, Error, Next, Request, async_trait, chain, proto::connection::Connection};
//! use std::{collections::BTreeSet, sync::Mutex};
//!
//! /// Knows which connections are up.
//! #[derive(Default)]
//! struct Up(Mutex<BTreeSet<String>>);
//!
//! #[async_trait]
//! impl Element for Up {
//!     async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
//!         let connection = next.request(request).await?; // a refresh is a Request too
//!         self.0.lock().unwrap().insert(connection.id.clone());
//!         Ok(connection)
//!     }
//!
//!     async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
//!         self.0.lock().unwrap().remove(&close.connection.id);
//!         next.close(close).await
//!     }
//! }
//!
//! # let _ =
//! chain![Up::default(), nsm_sdk::null::Null]
//! # ;
//! ```
//!
//! An endpoint takes it with [`endpoint::Builder::element`].
//!
//! # The modules
//!
//! - **Clients and endpoints** in a few lines: [`client`], [`endpoint`]; how programs spell their settings: [`settings`],
//!   and pods what they ask for: [`annotations`].
//! - **Elements that say what a connection is**: [`ipam`], [`excluded`], [`routes`], [`policies`], [`neighbours`], [`dns`],
//!   [`mtu`], [`kernel`].
//! - **Elements that keep it whole**: [`begin`], [`path`], [`token`], [`refresh`], [`expiry`], [`monitor`], [`heal`],
//!   [`recover`], [`limits`].
//! - **Edges**, where a chain meets gRPC: [`serve`], [`connect`], [`registry`], [`token_headers`].
//! - **For tests and to copy**: [`fail_at`], [`null`]. What clients ask for, apart from what they get: [`asked`].

pub mod annotations;
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

/// For `impl Element`, whose methods are `async`.
pub use async_trait::async_trait;
pub use call::{Call, DEFAULT_TIMEOUT, Files};
pub use chain::{Chain, Close, Element, Next, Request};
pub use error::{Error, Kind};
/// The protocol's messages.
pub use nsm_proto as proto;
