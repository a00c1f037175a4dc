//! A lab: agents, endpoints and pods as the real programs, in network namespaces that nothing outside can see.
//!
//! Guarantees:
//! - [`sandbox::enter`] moves the process into its own network, mount and PID namespaces (and, without root, a user
//!   namespace), with a private `/run`. The host's network and files under `/run` are never touched, and when the process
//!   ends, however it ends, the kernel ends everything that it started.
//! - Nothing waits by the clock: [`eventually`] polls a condition up to a bound and shows the last value seen.
//! - No program but the product's own is needed: no `ip`, no `ping`, no `nsenter`.
//!
//! Assumption: `sandbox::enter` runs first in `main`, before any thread exists ([`runner::main`] sees to it).
//!
//! ```no_run
//! use nsm_lab::{Endpoint, Node};
//! # fn story() -> anyhow::Result<()> {
//! let node = Node::start("node-1")?;
//! let _endpoint = Endpoint::of("icmp").cidr("172.16.1.0/24").start(&node)?;
//! let before = node.leftovers()?;
//!
//! let pod = node.pod("client")?;
//! let conf = node.conf("icmp");
//! let added = node.cni().add(&pod, "nsm-1", &conf)?.ok()?;
//! pod.ping(added.peer(false)?)?;
//! node.cni().del(&pod, "nsm-1", &conf)?.ok()?;
//! drop(pod);
//! node.nothing_left(&before)
//! # }
//! ```
#![forbid(unsafe_code)]

mod admin;
mod cni;
mod endpoint;
mod eventually;
mod exchange;
mod leftovers;
mod netns;
mod node;
mod ping;
mod program;
pub mod runner;
pub mod sandbox;

pub use cni::{Call, Cni, Outcome};
pub use endpoint::{Endpoint, EndpointPlan, registered};
pub use eventually::{eventually, eventually_at};
pub use exchange::{tcp_exchange, udp_exchange};
pub use leftovers::Leftovers;
pub use netns::Namespace;
pub use node::{Node, Pod};
pub use ping::{Pinger, Pings, ping};
pub use program::{Program, binary};
