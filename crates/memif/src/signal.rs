//! A ring's eventfd: raised by the producer, waited for by the consumer.
//!
//! Both ends have the same open file, so its flags and its counter are the peer's as well: either end may make it blocking, empty it or fill it.
//! Guarantees: a consumer never reads it, hence never blocks on it, and sleeps however full it is: what wakes is that somebody writes.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    event::{EventfdFlags, Timespec, epoll, eventfd},
    fs::{OFlags, fcntl_setfl},
};

/// A client's eventfd.
pub(crate) fn eventfd_for_ring() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// The producer's end.
#[derive(Debug)]
pub(crate) struct Bell(OwnedFd);

impl Bell {
    pub(crate) const fn new(event: OwnedFd) -> Self {
        Self(event)
    }

    /// Wakes the consumer. One that has been woken often enough already needs no more of it.
    pub(crate) fn ring(&self) {
        // The peer may have made it blocking, and full.
        let _ = fcntl_setfl(&self.0, OFlags::NONBLOCK | OFlags::RDWR);
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// The consumer's end: readable once for all that was written since it was cleared.
#[derive(Debug)]
pub(crate) struct Ear {
    /// Watches the eventfd for edges. It is this process's alone.
    watch: OwnedFd,
    /// What is watched lives as long.
    _event: OwnedFd,
}

impl Ear {
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn new(event: OwnedFd) -> io::Result<Self> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&watch, &event, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        Ok(Self { watch, _event: event })
    }

    /// Takes what was raised.
    pub(crate) fn clear(&self) {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }];
        let _ = epoll::wait(&self.watch, &mut events, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
    }

    /// What becomes readable.
    pub(crate) const fn event(&self) -> &OwnedFd {
        &self.watch
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.watch.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::event::EventfdFlags;

    use super::*;
    use crate::channel::{readable, wait};

    fn heard(ear: &Ear) -> bool {
        wait(&mut [readable(ear.event())], Duration::ZERO).unwrap()
    }

    #[test]
    fn each_ring_of_the_bell_is_heard_once_whatever_the_peer_made_of_the_eventfd() {
        // Blocking; one that gives out 1 at a time; and the usual one.
        for flags in [EventfdFlags::empty(), EventfdFlags::SEMAPHORE, EventfdFlags::NONBLOCK] {
            let event = eventfd(0, EventfdFlags::CLOEXEC | flags).unwrap();
            let (bell, ear) = (Bell::new(event.try_clone().unwrap()), Ear::new(event.try_clone().unwrap()).unwrap());
            ear.clear();
            assert!(!heard(&ear));
            for _ in 0..3 {
                bell.ring();
                bell.ring();
                assert!(heard(&ear));
                ear.clear();
                assert!(!heard(&ear), "it is not empty, and nobody has written since");
            }
            // Full, and blocking again.
            let _ = rustix::io::read(&event, &mut [0; 8]);
            rustix::io::write(&event, &(u64::MAX - 9).to_ne_bytes()).unwrap();
            fcntl_setfl(&event, OFlags::RDWR).unwrap();
            for _ in 0..9 {
                bell.ring();
            }
            ear.clear();
            assert!(!heard(&ear));
        }
    }
}
