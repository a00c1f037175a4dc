//! A ring's eventfd.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    fs::{OFlags, fcntl_setfl},
};

use crate::index::Role;

/// What wakes a ring's consumer.
#[derive(Debug)]
pub(crate) struct Signal {
    event: OwnedFd,
    /// The client made it, and shares its flags: a peer may have made it blocking again.
    theirs: bool,
}

impl Signal {
    /// A client's.
    pub(crate) fn make() -> io::Result<OwnedFd> {
        Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
    }

    pub(crate) fn new(event: OwnedFd, role: Role) -> Self {
        Self { event, theirs: role == Role::Server }
    }

    fn never_block(&self) {
        if self.theirs {
            let _ = fcntl_setfl(&self.event, OFlags::NONBLOCK | OFlags::RDWR);
        }
    }

    /// Wakes the consumer. One that has been woken often enough already needs no more of it.
    pub(crate) fn raise(&self) {
        self.never_block();
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// Takes what was raised.
    pub(crate) fn clear(&self) {
        self.never_block();
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }

    pub(crate) fn event(&self) -> &OwnedFd {
        &self.event
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.event.as_fd()
    }
}
