//! What a receiver costs, which its users do not see.

use std::{fs::File, os::fd::OwnedFd};

use rustix::{
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

/// A server's queue, the ring as its client sees it, and the client's end of the socket. Region 1 is guarded.
fn receiving() -> (RxQueue, Ring, OwnedFd) {
    let size = ring_bytes(LOG2);
    let mapping = Arc::new(Mapping::private(size).unwrap());
    let (control, peer) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let file = memfd_create("test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, LONGEST.into()).unwrap();
    let guarded = Region::Guarded { file: File::from(file), size: LONGEST.into() };
    let regions = vec![Region::Mapped { mapping: Arc::clone(&mapping), size }, guarded];
    let session = Arc::new(Session { role: Role::Server, link: Link::new(control), regions });
    let ring = || Ring::new(&mapping, 0, LOG2).unwrap();
    let signal = Signal::new(Signal::make().unwrap(), Role::Server);
    (RxQueue::new(ring(), signal, session, Buffers::Peers, LONGEST), ring(), peer)
}

#[test]
fn a_chain_of_guarded_memory_is_copied_up_to_its_longest() {
    let (mut queue, ring, _peer) = receiving();
    let slots = ring.slots();
    for (count, invalid) in [(slots - 1, 0), (slots, 1)] {
        for slot in 0..count {
            ring.set_descriptor(slot, Descriptor { more: true, region: 1, length: LONGEST, offset: 0 });
        }
        ring.store(Index::Head, count, std::sync::atomic::Ordering::Release);
        assert!(queue.burst(8).unwrap().is_empty());
        assert_eq!(queue.counters().read().invalid, invalid);
        assert!(queue.found.copies.capacity() <= MOST_COPIED, "{} bytes", queue.found.copies.capacity());
    }
}
