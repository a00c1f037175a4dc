#![doc = include_str!("../README.md")]
//!
//! # Where what is
//!
//! [`Client`] is one connection, [`Session`] one that comes back. [`messages`] has the messages and their types, [`message`] what they have in common;
//! they are generated from `api/*.txt`, whose CRCs a test computes anew. [`definition`] and [`dynamic`] are the same at run time, [`wire`] is the encoding.
#![forbid(unsafe_code)]

pub mod bits;
pub mod client;
pub mod definition;
pub mod dynamic;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
pub mod message;
pub mod messages;
mod retval;
pub mod session;
pub mod stats;
mod table;
mod types;
pub mod wire;

pub use client::{Client, Options};
pub use error::{Error, Loss, Sent};
pub use retval::Retval;
pub use session::Session;
pub use stats::Stats;
pub use types::{InterfaceIndex, MacAddress, Prefix, PrefixTooLong};
