//! The node's agent: NSM manager, kernel forwarder and CNI server, each a library that a test can start.

/// This program's version.
pub const VERSION: &str = MARKED.split_at("nsm-agent version ".len()).1;
/// It stands once in the program, so that a test makes another version of it in no time.
const MARKED: &str = concat!("nsm-agent version ", env!("CARGO_PKG_VERSION"));

pub mod admin;
pub mod agent;
pub mod annotations;
mod arrival;
pub mod attach;
pub mod candidates;
pub mod cni;
pub mod config;
pub mod excluded;
pub mod failpoint;
mod files;
pub mod forwarder;
#[doc(hidden)]
pub mod fuzzing;
pub mod host;
pub mod http;
mod identified;
pub mod install;
pub mod kubernetes;
pub mod manager;
pub mod memory;
pub mod metrics;
mod netns;
pub mod networks;
pub mod node;
pub mod notes;
pub mod pods;
pub mod privileges;
pub mod processes;
pub mod registry;
pub mod sandboxes;
pub mod selftest;
pub mod share;
pub mod state;
