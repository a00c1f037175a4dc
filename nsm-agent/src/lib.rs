//! The node's agent: NSM manager, kernel forwarder and CNI server, each a library that a test can start.

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
pub mod http;
pub mod install;
pub mod kubernetes;
pub mod manager;
pub mod memory;
pub mod metrics;
mod netns;
pub mod node;
pub mod notes;
pub mod pods;
pub mod privileges;
pub mod registry;
pub mod sandboxes;
pub mod selftest;
pub mod share;
pub mod state;
