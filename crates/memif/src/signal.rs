//! A ring's eventfd: raised by the producer, waited for by the consumer.
//!
//! Both ends have the same open file, so its flags and its counter are the peer's as well: either end may make it blocking, empty it or fill it.
//! Guarantees: a consumer never reads it, hence never blocks on it, and sleeps however full it is: what wakes is that somebody writes, or that
//! something happens to the link.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    fs::{OFlags, fcntl_setfl},
};

use crate::channel::timespec;

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

/// The consumer's end: readable once for all that was written since it was cleared, and as long as the control socket is.
#[derive(Debug)]
pub(crate) struct Ear {
    /// Watches the eventfd for edges, and the control socket. It is this process's alone.
    watch: OwnedFd,
    /// What is watched lives as long.
    _event: OwnedFd,
}

/// What is heard beside the ring's own bell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// Nothing: the bell has rung, or the time is over.
    Nothing,
    /// The link may be down.
    Link,
}

const BELL: u64 = 0;
const LINK: u64 = 1;

impl Ear {
    /// `control` lives as long as well.
    ///
    /// # Errors
    /// No descriptors are left.
    pub(crate) fn new(event: OwnedFd, control: impl AsFd) -> io::Result<Self> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64;
        epoll::add(&watch, &event, data(BELL), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
        epoll::add(&watch, control, data(LINK), epoll::EventFlags::IN)?;
        Ok(Self { watch, _event: event })
    }

    /// Waits for the bell or the link, and takes what was raised: one system call for both.
    ///
    /// # Errors
    /// The kernel cannot wait.
    pub(crate) fn wait(&self, timeout: Duration) -> io::Result<Heard> {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(BELL) }; 2];
        match epoll::wait(&self.watch, &mut events, Some(&timespec(timeout))) {
            Ok(count) if events[..count].iter().any(|event| event.data.u64() == LINK) => Ok(Heard::Link),
            // Who waits looks again in any case.
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(Heard::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes what was raised.
    pub(crate) fn clear(&self) -> Heard {
        self.wait(Duration::ZERO).unwrap_or(Heard::Nothing)
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

    use rustix::{
        event::EventfdFlags,
        net::{AddressFamily, SocketFlags, SocketType, socketpair},
    };

    use super::*;
    use crate::channel::{readable, wait};

    fn sockets() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    fn heard(ear: &Ear) -> bool {
        wait(&mut [readable(&ear.watch)], Duration::ZERO).unwrap()
    }

    #[test]
    fn each_ring_of_the_bell_is_heard_once_whatever_the_peer_made_of_the_eventfd() {
        // Blocking; one that gives out 1 at a time; and the usual one.
        for flags in [EventfdFlags::empty(), EventfdFlags::SEMAPHORE, EventfdFlags::NONBLOCK] {
            let event = eventfd(0, EventfdFlags::CLOEXEC | flags).unwrap();
            let (control, _peer) = sockets();
            let (bell, ear) =
                (Bell::new(event.try_clone().unwrap()), Ear::new(event.try_clone().unwrap(), &control).unwrap());
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

    #[test]
    fn the_end_of_the_link_is_heard_until_somebody_cares() {
        let (control, peer) = sockets();
        let ear = Ear::new(eventfd_for_ring().unwrap(), &control).unwrap();
        assert_eq!(ear.wait(Duration::ZERO).unwrap(), Heard::Nothing);
        drop(peer);
        for _ in 0..2 {
            assert_eq!(ear.wait(Duration::from_secs(5)).unwrap(), Heard::Link);
            assert!(heard(&ear));
        }
    }
}
