//! How a connection behaves, and how much memory it takes.

use std::time::Duration;

#[cfg(doc)]
use super::{Client, JsonEvents};
#[cfg(doc)]
use crate::error::Error;

/// How a connection behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// What VPP shows as the client's name; up to 63 bytes, more are refused.
    pub name: String,
    /// How long a call waits for its answer unless it says otherwise.
    pub timeout: Duration,
    /// Of what VPP sends.
    pub limits: Limits,
}

/// How much of what VPP sends, or does not read, is kept.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limits {
    /// The longest message, in bytes. A longer one ends the connection.
    pub message: usize,
    /// Details that wait for the reader of a dump, in bytes of memory. More ends that dump.
    pub details: usize,
    /// What one call gathers ([`Client::dump`], [`Client::part`], [`Client::collect`]) or makes JSON of ([`Client::call_by_name`],
    /// [`Client::definitions`], [`JsonEvents`]), in bytes of memory, roughly. More is [`Error::TooLarge`]; [`Client::details`] has no such
    /// limit, as it gathers nothing.
    pub gathered: usize,
    /// Events that wait for a reader. More, and the oldest are lost, of which the reader is told.
    pub events: usize,
    /// Requests that wait for VPP to read them, in bytes. More are not sent.
    pub outgoing: usize,
}

impl Options {
    /// With VPP's usual sizes, and five seconds for a call.
    pub fn new(name: impl Into<String>) -> Self {
        let limits =
            Limits { message: 16 << 20, details: 64 << 20, gathered: 256 << 20, events: 4096, outgoing: 16 << 20 };
        Self { name: name.into(), timeout: Duration::from_secs(5), limits }
    }

    /// Another deadline for calls.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Other limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }
}
