//! Who is connected to one socket, and how often: no peer takes more than its part of this process's descriptors.
//!
//! Guarantees: each accepted socket counts against its peer and against all, until it is closed; so does each file that waits
//! unclaimed. What a peer does wrong is logged once a minute, however often it does it. A pod is one peer, whichever of its
//! users connects, since root in a pod can be any of them; in this process's own namespace each user is one. Other users cannot
//! take the last places: those are root's there. The last quarter of the others' is for those that have few, so that a handful of
//! peers that take all they can do not lock the rest out.

use std::{
    collections::HashMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Semaphore, time::Instant};

use crate::{InodeId, Peer, sys};

/// How long a peer that was complained of is not complained of again.
const QUIET: Duration = Duration::from_mins(1);
/// Connections that one peer may have of the last quarter.
const FEW: usize = 4;
/// Descriptors of a connection: the socket, its peer's namespace and process; and some for the files that it passes.
const DESCRIPTORS: usize = 8;
/// Peers remembered for their last complaint only, before the oldest are forgotten.
const REMEMBERED: usize = 1024;

/// How much the peers of one socket may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Connections of one peer.
    pub per_peer: usize,
    /// Connections of all peers together.
    pub total: usize,
    /// Files that one peer has passed and that no call has claimed, over all its connections.
    pub files: usize,
    /// How long a peer may take to say the first words of HTTP/2.
    pub silence: Duration,
}

/// 256 connections of a peer and 4096 of all, or fewer where this process may not open that many files.
impl Default for Bounds {
    fn default() -> Self {
        let total = (sys::file_limit() / DESCRIPTORS).clamp(8, 4096);
        Self { per_peer: 256.min(total / 2), total, files: 256.min(total), silence: Duration::from_secs(10) }
    }
}

/// Whom a connection counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Identity {
    /// All of a network namespace: a pod.
    Netns(InodeId),
    /// A user of this process's own network namespace.
    User(u32),
    /// A user of a namespace that the kernel does not tell: root of any pod, for instance.
    Unknown(u32),
}

/// The peers of one socket.
#[derive(Debug)]
pub(crate) struct Guests {
    bounds: Bounds,
    own_netns: Option<InodeId>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    open: usize,
    peers: HashMap<Identity, Of>,
    told_full: Option<Instant>,
}

/// One peer.
#[derive(Debug)]
struct Of {
    open: usize,
    files: Arc<Semaphore>,
    told: HashMap<Complaint, Instant>,
}

/// What a peer can do wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Complaint {
    /// It has enough connections.
    Crowd,
    /// It spoke TLS.
    Tls,
    /// It said nothing.
    Silence,
}

/// A place among the guests; leaving is dropping it.
#[derive(Debug)]
pub(crate) struct Guest {
    guests: Arc<Guests>,
    identity: Identity,
    /// What is left for files of this peer that nobody has claimed.
    pub(crate) files: Arc<Semaphore>,
}

impl Guests {
    pub(crate) fn new(bounds: Bounds) -> Arc<Self> {
        let own_netns = File::open("/proc/self/ns/net").and_then(InodeId::of).ok();
        Arc::new(Self { bounds, own_netns, known: Mutex::default() })
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// A place for a connection of this peer; `None`, logged, when it or all have enough.
    pub(crate) fn admit(self: &Arc<Self>, peer: &Peer) -> Option<Guest> {
        let identity = self.identity(peer);
        let is_root = identity == Identity::User(0);
        let mut known = self.lock();
        let most = if is_root { self.bounds.total } else { self.bounds.total - self.bounds.total / 8 };
        if known.open >= most {
            if due(&mut known.told_full) {
                drop(known);
                tracing::warn!(most, pid = peer.pid, "too many connections: new ones are refused until others end");
            }
            return None;
        }
        let (files, taken) = (self.bounds.files, known.open);
        let of = known.peers.entry(identity).or_insert_with(|| Of {
            open: 0,
            files: Arc::new(Semaphore::new(files)),
            told: HashMap::new(),
        });
        let plenty = most - taken > most / 4;
        let room = if plenty { self.bounds.per_peer } else { self.bounds.per_peer.min(FEW) };
        if of.open >= room && !is_root {
            drop(known);
            if self.complain(identity, Complaint::Crowd) {
                let netns = peer.netns.as_ref().map_or(0, |netns| netns.id.ino);
                tracing::warn!(
                    most = room,
                    pid = peer.pid,
                    uid = peer.uid,
                    netns,
                    "a peer has too many connections open: its new ones are refused until others of it end"
                );
            }
            return None;
        }
        of.open += 1;
        let files = of.files.clone();
        known.open += 1;
        drop(known);
        Some(Guest { guests: self.clone(), identity, files })
    }

    fn identity(&self, peer: &Peer) -> Identity {
        match &peer.netns {
            Some(netns) if Some(netns.id) != self.own_netns => Identity::Netns(netns.id),
            Some(_) => Identity::User(peer.uid),
            None => Identity::Unknown(peer.uid),
        }
    }

    /// Whether this is to be logged now.
    fn complain(&self, identity: Identity, complaint: Complaint) -> bool {
        let mut known = self.lock();
        let Some(of) = known.peers.get_mut(&identity) else { return true };
        let mut last = of.told.get(&complaint).copied();
        let now = due(&mut last);
        of.told.extend(last.map(|last| (complaint, last)));
        now
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Whether this is to be logged now.
    pub(crate) fn complain(&self, complaint: Complaint) -> bool {
        self.guests.complain(self.identity, complaint)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut known = self.guests.lock();
        known.open -= 1;
        if let Some(of) = known.peers.get_mut(&self.identity) {
            of.open -= 1;
        }
        let crowded = known.peers.len() > REMEMBERED;
        known.peers.retain(|_, of| of.open > 0 || !crowded && of.told.values().any(|told| told.elapsed() < QUIET));
    }
}

/// Whether a minute has passed; notes the time if so.
fn due(last: &mut Option<Instant>) -> bool {
    let now = last.is_none_or(|last| last.elapsed() >= QUIET);
    if now {
        *last = Some(Instant::now());
    }
    now
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::PeerNetns;

    /// A user of this process's namespace.
    fn peer(uid: u32) -> Peer {
        let fd: OwnedFd = File::open("/proc/self/ns/net").unwrap().into();
        let netns = PeerNetns { id: InodeId::of(&fd).unwrap(), fd: Arc::new(fd) };
        Peer { netns: Some(netns), ..stranger(uid) }
    }

    /// A user of nobody knows which.
    fn stranger(uid: u32) -> Peer {
        Peer { netns: None, pid: 1, uid, gid: 0, process: crate::Process::Unseen, asked: crate::Asked::default() }
    }

    fn guests(per_peer: usize, total: usize) -> Arc<Guests> {
        Guests::new(Bounds { per_peer, total, ..Bounds::default() })
    }

    #[test]
    fn a_peer_has_its_part_and_others_theirs() {
        let guests = guests(2, 16);
        let places: Vec<_> = (0..2).map(|_| guests.admit(&peer(7)).unwrap()).collect();
        assert!(guests.admit(&peer(7)).is_none());
        assert!(guests.admit(&peer(8)).is_some());
        drop(places);
        assert!(guests.admit(&peer(7)).is_some());
    }

    #[test]
    fn root_of_an_unknown_namespace_is_not_root_here() {
        let guests = guests(2, 16);
        let _places: Vec<_> = (0..2).map(|_| guests.admit(&stranger(0)).unwrap()).collect();
        assert!(guests.admit(&stranger(0)).is_none());
        assert!(guests.admit(&peer(0)).is_some());
    }

    #[test]
    fn the_last_places_are_roots() {
        let guests = guests(4, 16);
        let _taken: Vec<_> = (0..14).map(|number| guests.admit(&peer(1 + number / 4)).unwrap()).collect();
        assert!(guests.admit(&peer(20)).is_none());
        assert!(guests.admit(&stranger(0)).is_none(), "root of some namespace");
        let _root: Vec<_> = (0..2).map(|_| guests.admit(&peer(0)).unwrap()).collect();
        assert!(guests.admit(&peer(0)).is_none());
    }

    #[test]
    fn those_who_take_all_that_they_can_leave_some_for_others() {
        let guests = guests(256, 4096);
        let mut taken = Vec::new();
        for greedy in 1..=20 {
            while let Some(place) = guests.admit(&peer(greedy)) {
                taken.push(place);
            }
        }
        assert!((100..110).all(|modest| guests.admit(&peer(modest)).is_some()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_complaint_comes_once_a_minute() {
        let guests = guests(2, 16);
        let told = |complaint| guests.admit(&peer(7)).unwrap().complain(complaint);
        assert!(told(Complaint::Tls));
        assert!(!told(Complaint::Tls), "a new connection of the same peer");
        assert!(told(Complaint::Silence));
        tokio::time::advance(QUIET).await;
        assert!(told(Complaint::Tls));
    }

    #[test]
    fn nobody_is_remembered_for_nothing() {
        let guests = guests(2, 16);
        for uid in 1..100 {
            drop(guests.admit(&peer(uid)));
        }
        assert!(guests.lock().peers.is_empty());
    }
}
