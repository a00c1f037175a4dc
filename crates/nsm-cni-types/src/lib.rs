//! CNI 0.1.0 to 1.1.0 without I/O: what a plugin reads ([`Environment`], [`Stdin`], [`Conf`], [`Args`]) and what it answers
//! ([`Answer`], [`Error`]).
//!
//! Guarantees: no input makes it panic; broken environment, JSON, names and versions are answered with the CNI library's codes
//! and texts; a mistake in a configuration names key, value and what was expected, all mistakes at once; a previous result
//! that stays in its version keeps every field, known or not.

#![forbid(unsafe_code)]

mod answer;
mod args;
pub mod chained;
mod conf;
mod env;
mod error;
pub mod lost;
mod mechanism;
pub mod owed;
pub mod pods;
mod stdin;
mod version;

pub use answer::{Answer, Dns, Interface, Ip, Route};
pub use args::Args;
pub use conf::{Attach, Attachment, Conf, DEFAULT_SOCKET, Lenient, Mode, OfPod, RESERVED_LABELS};
pub use env::{Command, Environment};
pub use error::{Error, code};
pub use mechanism::{Mechanism, UnknownMechanism};
pub use stdin::Stdin;
pub use version::Version;
