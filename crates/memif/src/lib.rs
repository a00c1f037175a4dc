//! Shared-memory packet interfaces: memif, protocol 2.0, in both roles, with any peer that speaks it (VPP, DPDK, libmemif, this
//! crate).
//!
//! A server listens on a unix socket; a client connects, makes the memory and tells the server where rings and buffers lie. From then
//! on packets pass without system calls.
//!
//! ```
//! use memif::{Address, Client, Listener, Server};
//! use std::time::Duration;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("memif.sock");
//! # let soon = Duration::from_secs(5);
//! let listener = Listener::bind(&Address::path(&path)?)?;
//! let port = listener.add(Server::new(0))?;
//! let mut near = Client::new(Address::path(&path)?).connect(soon)?;
//! let mut far = port.accept(soon)?.ok_or("nobody came")?;
//!
//! near.tx[0].send(b"a frame")??;
//! while far.rx[0].wait(soon)? {
//!     let burst = far.rx[0].burst(64)?;
//!     for packet in burst.iter() {
//!         assert_eq!(packet.to_vec(), b"a frame");
//!     }
//! #   break;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Receiving and sending
//!
//! [`RxQueue::burst`] lends the packets that are there: they stay in shared memory, and their slots go back to the peer when the
//! [`Burst`] is dropped. [`TxQueue::burst`] lends the free slots: packets are written where the peer will read them (a whole one by
//! [`TxBurst::push`], piece by piece in a [`Frame`]), and [`TxBurst::send`] hands them over together. [`TxBurst::forward`] copies once,
//! from ring to ring.
//!
//! Who polls calls `burst` again and again; the peer is asked not to signal. Who waits calls [`RxQueue::wait`], which asks for a signal,
//! or waits on [`RxQueue::event`] beside other files after [`RxQueue::arm`]. In between is [`RxQueue::spin`]: who waits polls for a moment
//! first. The `tokio` feature has the same as futures.
//!
//! # Guarantees
//!
//! A peer may be hostile:
//!
//! - Every message, index, descriptor, offset, length and file of a peer is checked once, from a copy that the peer cannot change, and what is
//!   wrong costs the peer its packet or its link, with the reason told at both ends.
//! - Bytes in shared memory are never seen as `&[u8]`: a peer may change them while they are read, so [`Bytes`] hands out copies. (Who
//!   trusts the peer has an `unsafe` way around that.)
//! - Memory that a client could take away again is not mapped: see [`Unsealed`].
//! - Nobody waits for ever, and a listener's clients do not wait for each other.
//!
//! What a hostile peer, in either role, can do: make a thread that signals it (in [`TxBurst::send`]) wait, by making the eventfd that both ends
//! share blocking between two system calls of ours, and full. Who only receives is safe from that: waiting never reads the eventfd.
//!
//! # Limits
//!
//! Linux; 64-bit targets; version 2.0 of the protocol. A client has one region and its own buffers.
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(all(target_os = "linux", target_pointer_width = "64")))]
compile_error!("memif needs Linux with 64-bit pointers: memfd, eventfd and regions of 4 GiB");

mod address;
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
pub mod asynchronous;
mod channel;
mod client;
mod connection;
pub mod control;
mod frame;
#[doc(hidden)]
pub mod fuzzing;
mod handshake;
#[doc(hidden)]
pub mod index;
mod layout;
mod link;
mod listener;
mod memory;
mod packet;
mod peer;
mod reconnect;
mod rx;
mod session;
mod settings;
mod signal;
mod spin;
mod stats;
mod sys;
mod text;
mod tx;

pub use address::{Address, InvalidAddress, socket_in};
pub use client::{Client, ConnectError};
pub use connection::Connection;
pub use control::Mode;
pub use frame::Frame;
pub use handshake::Refusal;
pub use index::Role;
pub use layout::TooLarge;
pub use link::{Down, Link};
pub use listener::{
    AddError, HANDSHAKE, ListenError, Listener, MOST_AT_ONCE, MOST_OF_ONE, MOST_OF_USER, Port, Refused, Server,
};
pub use packet::Packet;
pub use peer::{Credentials, Peer};
pub use reconnect::{Backoff, Reconnect};
pub use rx::{Burst, RxQueue};
pub use settings::{InvalidSetting, Limits, Rings, Unsealed};
pub use stats::{Counters, Statistics};
pub use sys::{Bytes, BytesMut};
pub use text::{InvalidSecret, Name, Secret, Text};
pub use tx::{NotTaken, TxBurst, TxQueue};

/// The first example that people see has to compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
