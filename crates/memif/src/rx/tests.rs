//! What a receiver costs, which its users do not see.

use std::{fs::File, os::fd::OwnedFd};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, eventfd},
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use super::*;
use crate::{
    index::{Index, Role},
    layout::ring_bytes,
    sys::Mapping,
};

const LOG2: u8 = 10;
const LONGEST: u32 = 65536;

/// A server's queue, and what its client has of it: the ring, the eventfd, the socket. Region 1 is guarded.
fn receiving(event: EventfdFlags) -> (RxQueue, Ring, OwnedFd, OwnedFd) {
    let size = ring_bytes(LOG2);
    let mapping = Arc::new(Mapping::private(size).unwrap());
    let (control, peer) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LONGEST.into()).unwrap();
    let guarded = Region::Guarded { file: File::from(file), size: LONGEST.into() };
    let regions = vec![Region::Mapped { mapping: Arc::clone(&mapping), size }, guarded];
    let event = eventfd(u32::MAX, EventfdFlags::CLOEXEC | event).unwrap();
    let ear = Ear::new(event.try_clone().unwrap(), &control).unwrap();
    let session = Arc::new(Session { role: Role::Server, link: Link::new(control), regions });
    let ring = || Ring::new(&mapping, 0, LOG2).unwrap();
    (RxQueue::new(ring(), ear, session, Buffers::Peers, LONGEST), ring(), event, peer)
}

#[test]
fn a_chain_of_guarded_memory_is_copied_up_to_its_longest() {
    let (mut queue, ring, _event, _peer) = receiving(EventfdFlags::NONBLOCK);
    let slots = ring.slots();
    for (count, invalid) in [(slots - 1, 0), (slots, 1)] {
        for slot in 0..count {
            ring.set_descriptor(slot, Descriptor { more: true, region: 1, length: LONGEST, offset: 0 });
        }
        ring.store(Index::Head, count, std::sync::atomic::Ordering::Release);
        assert!(queue.burst(8).unwrap().is_empty());
        assert_eq!(queue.counters().read().invalid, invalid);
        assert!(queue.copied() <= MOST_COPIED, "{} bytes", queue.copied());
    }
}

#[test]
fn nobody_waits_for_a_signal_that_was_not_given() {
    // Blocking, and with a reader that empties it at the worst moment.
    let (mut queue, ring, event, _peer) = receiving(EventfdFlags::empty());
    for turn in 1..4 {
        assert!(!queue.arm().unwrap());
        let _ = rustix::io::read(&event, &mut [0; 8]);
        ring.set_descriptor(turn - 1, Descriptor { more: false, region: 1, length: 1, offset: 0 });
        ring.store(Index::Head, turn, std::sync::atomic::Ordering::Release);
        assert!(queue.arm().unwrap());
        assert_eq!(queue.burst(8).unwrap().len(), 1);
        rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    }
}

#[test]
fn an_eventfd_that_is_never_empty_keeps_nobody_awake() {
    let (mut queue, _ring, event, _peer) = receiving(EventfdFlags::SEMAPHORE);
    let woken = |queue: &RxQueue| channel::wait(&mut [PollFd::new(&queue.ear, PollFlags::IN)], Duration::ZERO).unwrap();
    assert!(!queue.arm().unwrap() && !queue.arm().unwrap());
    assert!(!woken(&queue));
    rustix::io::write(&event, &1_u64.to_ne_bytes()).unwrap();
    assert!(woken(&queue));
    assert!(!queue.arm().unwrap());
    assert!(!woken(&queue), "one signal wakes once");
}
