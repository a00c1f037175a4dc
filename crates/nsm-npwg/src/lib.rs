//! Several networks of one pod, as the network plumbing working group's specification (NPWG, version 1.3) and Multus have them,
//! without I/O: what a pod asks for ([`Selection`]), what a NetworkAttachmentDefinition is ([`List`]), what the meta-plugin's
//! configuration says ([`Meta`]), what follows from all of it ([`plan()`]), and what is told of the result ([`status`]).
//!
//! Guarantees: no input makes it panic; a mistake names thing, value and expectation, all mistakes of one text at once; the same
//! input gives the same plan, in the agent and in the plugin; no definition decides where the host's programs, logs, sockets and
//! credentials are, and none calls a meta-plugin again.

#![forbid(unsafe_code)]

mod change;
mod complete;
mod error;
mod flag;
mod list;
mod meta;
mod mistakes;
mod names;
mod plan;
mod selection;
mod spelling;
pub mod status;

pub use change::{ATTACH, Attach, Change, Changed, DETACH, Detach};
pub use complete::Completion;
pub use error::Error;
pub use flag::flag;
pub use list::{List, REACHING, declares};
pub use meta::{Chosen, KEYS, Key, Meta, Treatment};
pub use plan::{Definition, Lookup, Network, Planned, names_for, plan, plan_added, plan_everybodys};
pub use selection::{Annotations, DEFAULT_NETWORK, LONGEST, MOST, NETWORKS, Selection};

/// The annotation of a NetworkAttachmentDefinition that names the resource whose devices its networks are made of: a device plugin's, or
/// what devices of claims say of themselves.
pub const RESOURCE_NAME: &str = "k8s.v1.cni.cncf.io/resourceName";
