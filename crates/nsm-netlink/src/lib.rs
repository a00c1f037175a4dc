//! Links, addresses, routes, rules and neighbours of network namespaces, in plain words: the one crate that speaks netlink.
//!
//! # Guarantees
//!
//! - A call that returns `Ok` was acknowledged by the kernel. Silence, a lost or cut reply, a receive buffer that overflowed: each
//!   is an error of its own ([`Error`]), never a success.
//! - No thread changes its network namespace and comes back. Whoever works inside another namespace is a throw-away thread that
//!   opens what is needed, hands it over and ends ([`Netns::run`]); a socket stays in the namespace it was opened in.
//! - Nothing of anybody else's is replaced or removed: names, addresses, routes and rules are created exclusively, links are deleted
//!   by namespace, index and MAC, never by name.
//!
//! # Assumptions
//!
//! - Calls block: the kernel's network lock may be held by others. Use them on threads made for blocking.
//! - The process has `CAP_NET_ADMIN` and `CAP_SYS_ADMIN` over the namespaces it works on, and a writable `/proc/sys`, there
//!   or elsewhere ([`settings_at`]).
//! - Linux 5.7 or newer (links created across namespaces, strict checking of dumps).
//!
//! # Where what is
//!
//! [`Netns`] is a namespace; [`Netlink`] speaks from the agent's own (pairs, deletion, events); [`NetnsSocket`] speaks from inside
//! another one (reads, [`LinkConfig`]).

mod agent;
mod change;
mod config;
mod configure;
mod defaults;
mod delete;
mod door;
mod error;
mod events;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod inside;
mod inspect;
mod link;
mod mac;
mod message;
mod name;
mod netns;
mod sys;
mod transport;
mod units;
mod usable;
mod veth;
mod workers;

pub use agent::Netlink;
pub use config::{Address, Family, LinkConfig, Neighbour, NeighbourEntry, PortRange, Route, RouteEntry, Rule};
pub use defaults::{DefaultRoute, Hop};
pub use delete::{Deletion, LinkIdentity};
pub use door::settings_at;
pub use error::{Error, Refusal};
pub use events::LinkEvent;
pub use inside::NetnsSocket;
pub use ipnetwork::IpNetwork;
pub use link::LinkState;
pub use mac::{InvalidMac, Mac};
pub use name::{IfName, InvalidIfName};
pub use netns::{Netns, NetnsId};
pub use units::{IfIndex, InvalidMtu, Mtu, Nsid};
pub use veth::{VethEnd, VethLink, VethPair};
