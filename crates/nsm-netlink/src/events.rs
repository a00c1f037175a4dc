//! Links that vanish, in all namespaces that the agent's own has a number for.
//!
//! # Guarantees
//!
//! - One socket and one thread for all; both end when the last [`Netlink`](crate::Netlink) is dropped.
//! - Losses are told: after [`LinkEvent::Overrun`] anything may have happened, look.
//! - A subscriber that panics is dropped, the others go on.
//!
//! # Assumptions
//!
//! - The agent has `CAP_NET_BROADCAST` over those namespaces; without it their events do not come.

use std::collections::HashSet;
use std::io::{self, PipeReader, PipeWriter};
use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netlink_packet_core::NlasIterator;
use netlink_packet_core::Parseable as _;
use netlink_packet_route::nsid::NsidAttribute;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};

use crate::frame::Frames;
use crate::{Error, IfIndex, LinkState, Mac, Netns, Nsid, sys};

/// Room for some ten thousand events while the thread does not run.
const RECEIVE_BUFFER: usize = 16 * 1024 * 1024;

/// Length of `struct rtgenmsg`, padded.
const NSID_HEADER: usize = 4;

/// What happened to links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A link is gone.
    Deleted {
        /// The namespace it was in; `None`: the agent's own.
        nsid: Option<Nsid>,
        /// Its index there.
        index: IfIndex,
        /// Its last name.
        name: String,
        /// Its Ethernet address.
        mac: Option<Mac>,
    },
    /// A namespace is gone, and all that was in it: no event tells of those links. Its number is free for another one. The other ends
    /// of pairs vanish right after.
    NetnsGone {
        /// What it was called.
        nsid: Nsid,
    },
    /// Events were lost. Compare what is there with what should be.
    Overrun,
}

/// A link, anywhere.
pub(crate) type Place = (Nsid, IfIndex);

type Subscriber = Box<dyn FnMut(&LinkEvent) -> ControlFlow<()> + Send>;

/// The listening thread.
pub(crate) struct Events {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Closed to stop the thread.
    stop: Option<PipeWriter>,
}

#[derive(Default)]
struct Shared {
    subscribers: Mutex<Vec<Subscriber>>,
    waiters: Mutex<Vec<Weak<Waiter>>>,
}

impl Events {
    /// Starts to listen from a namespace.
    pub(crate) fn start(netns: &Netns) -> Result<Self, Error> {
        let socket = netns.run(open)?.map_err(|e| Error::io("listen for network events", e))?;
        let (stopped, stop) = io::pipe().map_err(|e| Error::io("make a pipe", e))?;
        let shared = Arc::new(Shared::default());
        let listener = Listener { socket, stopped, shared: Arc::clone(&shared) };
        let thread = thread::Builder::new()
            .name("link-events".into())
            .spawn(move || listener.run())
            .map_err(|e| Error::io("start a thread", e))?;
        Ok(Self { shared, thread: Some(thread), stop: Some(stop) })
    }

    pub(crate) fn subscribe(&self, subscriber: Subscriber) {
        lock(&self.shared.subscribers).push(subscriber);
    }

    /// Waits for links to vanish, from now on.
    pub(crate) fn expect(&self, places: impl IntoIterator<Item = Place>) -> Arc<Waiter> {
        let waiter = Arc::new(Waiter::default());
        lock(&waiter.progress).missing.extend(places);
        let mut waiters = lock(&self.shared.waiters);
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Arc::downgrade(&waiter));
        waiter
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take().filter(|thread| thread.thread().id() != thread::current().id()) {
            // It panics only if a lock's holder did; there is nobody left to tell.
            let _ = thread.join();
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    let fd = sys::descriptor(&socket);
    if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    }
    socket.set_listen_all_namespaces(true)?;
    // Each ADD changes links a dozen times. Without the filter such news come too, and are skipped here.
    if let Err(error) = sys::let_through(sys::descriptor(&socket), &[libc::RTM_DELLINK, libc::RTM_DELNSID]) {
        tracing::debug!(%error, "network events are not filtered");
    }
    socket.bind_auto()?;
    socket.add_membership(libc::RTNLGRP_LINK)?;
    socket.add_membership(libc::RTNLGRP_NSID)?;
    Ok(socket)
}

struct Listener {
    socket: Socket,
    stopped: PipeReader,
    shared: Arc<Shared>,
}

impl Listener {
    fn run(self) {
        let mut buffer = vec![0; 64 * 1024];
        while self.wait() {
            match sys::receive(sys::descriptor(&self.socket), &mut buffer) {
                Ok(received) if !received.from_kernel => {}
                Ok(received) if received.truncated => self.deliver(&LinkEvent::Overrun),
                Ok(received) => self.read(&buffer[..received.len], received.nsid.and_then(Nsid::new)),
                Err(e) if matches!(e.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => {}
                Err(e) if e.raw_os_error() == Some(Errno::ENOBUFS as i32) => self.deliver(&LinkEvent::Overrun),
                Err(error) => {
                    // Not expected of a socket that could be opened. Do not spin; those who wait for an event look for themselves.
                    tracing::error!(%error, "reading network events failed");
                    self.deliver(&LinkEvent::Overrun);
                    thread::sleep(Duration::from_secs(1));
                }
            }
        }
    }

    /// Waits for an event; false: stop.
    fn wait(&self) -> bool {
        loop {
            let mut fds = [
                PollFd::new(sys::descriptor(&self.socket), PollFlags::POLLIN),
                PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) => return !fds[1].any().unwrap_or(true),
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn read(&self, datagram: &[u8], nsid: Option<Nsid>) {
        for frame in Frames::new(datagram) {
            let event = match frame {
                Ok(frame) if frame.kind == libc::RTM_DELLINK => match LinkState::parse(frame.payload) {
                    // Family-specific messages (a bridge's port) say RTM_DELLINK too, of links that stay.
                    Ok(_) if frame.payload.first() != Some(&0) => continue,
                    Ok(link) => LinkEvent::Deleted { nsid, index: link.index, name: link.name, mac: link.mac },
                    Err(_) => LinkEvent::Overrun,
                },
                Ok(frame) if frame.kind == libc::RTM_DELNSID => match read_nsid(frame.payload) {
                    Some(gone) if nsid.is_none() => LinkEvent::NetnsGone { nsid: gone },
                    _ => continue,
                },
                Ok(_) => continue,
                Err(_) => LinkEvent::Overrun,
            };
            self.deliver(&event);
        }
    }

    fn deliver(&self, event: &LinkEvent) {
        let waiters: Vec<_> = lock(&self.shared.waiters).iter().filter_map(Weak::upgrade).collect();
        for waiter in waiters {
            waiter.happened(event);
        }
        lock(&self.shared.subscribers).retain_mut(|subscriber| {
            let told = catch_unwind(AssertUnwindSafe(|| subscriber(event)));
            matches!(told, Ok(ControlFlow::Continue(())))
        });
    }
}

/// The namespace that a message about numbers is about.
pub(crate) fn read_nsid(payload: &[u8]) -> Option<Nsid> {
    let attributes = NlasIterator::new(payload.get(NSID_HEADER..)?).map_while(Result::ok);
    attributes.filter_map(|attribute| NsidAttribute::parse(&attribute).ok()).find_map(|attribute| match attribute {
        NsidAttribute::Id(id) => Nsid::new(id),
        _ => None,
    })
}

/// What somebody who deletes a link waits for.
#[derive(Default)]
pub(crate) struct Waiter {
    progress: Mutex<Progress>,
    changed: Condvar,
}

#[derive(Default)]
struct Progress {
    /// Links not seen to vanish yet.
    missing: HashSet<Place>,
    /// The kernel's answer to the deletion.
    answer: Option<Result<(), Error>>,
    overrun: bool,
}

/// Why a [`Waiter`] woke up.
#[derive(Debug)]
pub(crate) enum Woken {
    /// All expected links have vanished.
    Vanished,
    /// The kernel answered.
    Answered(Result<(), Error>),
    /// Events were lost: look.
    Overrun,
    /// Nothing came in time.
    TimedOut,
}

impl Waiter {
    /// The kernel's answer has come.
    pub(crate) fn answered(&self, answer: Result<(), Error>) {
        lock(&self.progress).answer = Some(answer);
        self.changed.notify_all();
    }

    fn happened(&self, event: &LinkEvent) {
        let mut progress = lock(&self.progress);
        match event {
            LinkEvent::Deleted { nsid: Some(nsid), index, .. } => {
                progress.missing.remove(&(*nsid, *index));
            }
            LinkEvent::NetnsGone { nsid } => progress.missing.retain(|(place, _)| place != nsid),
            LinkEvent::Overrun => progress.overrun = true,
            LinkEvent::Deleted { nsid: None, .. } => return,
        }
        if progress.missing.is_empty() || progress.overrun {
            self.changed.notify_all();
        }
    }

    /// Waits for the next thing worth knowing.
    pub(crate) fn wait(&self, until: Instant) -> Woken {
        let mut progress = lock(&self.progress);
        loop {
            if progress.missing.is_empty() {
                return Woken::Vanished;
            }
            if let Some(answer) = progress.answer.take() {
                return Woken::Answered(answer);
            }
            if std::mem::take(&mut progress.overrun) {
                return Woken::Overrun;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::TimedOut;
            }
            progress = self.changed.wait_timeout(progress, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// What the locks guard stays sound if a holder panics: each change is one step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
