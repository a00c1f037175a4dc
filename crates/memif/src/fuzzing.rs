//! A door for fuzz targets: what reads a peer's bytes, without a peer. No part of the API.

use std::sync::Arc;

use rustix::{
    fs::{MemfdFlags, ftruncate, memfd_create},
    net::{AddressFamily, SocketFlags, SocketType, socketpair},
};

use crate::{
    control::{Init, MESSAGE_SIZE, Message},
    handshake::{Refusal, client, server},
    index::{Index, Role, Slots as _},
    layout::{Layout, ring_bytes},
    link::Link,
    memory::Region,
    rx::RxQueue,
    session::{Buffers, Session},
    settings::{Identity, Limits, Rings},
    signal::{Bell, Ear, eventfd_for_ring},
    sys::{Mapping, Ring},
    tx::TxQueue,
};

struct Anyone;

impl server::Interfaces for Anyone {
    fn admit(&self, init: &Init) -> Result<(Identity, Limits), Refusal> {
        Ok((Identity::new(init.id), Limits::default()))
    }
}

/// Messages one after another, as both ends would take them. The first byte of each says whether a file comes along.
pub fn control(data: &[u8]) {
    let mut server = server::Server::new();
    let mut client = client::Client::new(Identity::new(0), Rings::default());
    for part in data.chunks(MESSAGE_SIZE + 1) {
        let Some((with_file, bytes)) = part.split_first() else { continue };
        let Ok(message) = Message::parse(bytes) else { continue };
        let file = (with_file & 1 == 1).then_some(());
        if let Ok(server::Step::Connect(announced)) = server.receive(message.clone(), file, &Anyone) {
            let sizes: Vec<u64> = announced.regions.iter().map(|(size, ())| *size).collect();
            for ring in announced.to_server.iter().chain(&announced.to_client) {
                let size = sizes[usize::from(ring.place.region)];
                let end = u64::from(ring.place.offset) + ring_bytes(ring.place.log2_ring_size);
                assert!(end <= size, "a ring that ends at {end} of {size}");
            }
        }
        if let Ok(client::Step::Make(agreed)) = client.receive(message)
            && let Ok(layout) = Layout::new(agreed, 2048)
        {
            let _ = client.announce(&layout);
        }
    }
}

/// Slots of the ring in the memory that is fuzzed.
const LOG2: u8 = 3;
/// Bytes of that memory.
const MEMORY: u32 = 4096;

/// What a peer writes into shared memory: indices, descriptors, everything. Both roles receive from it and send to it.
pub fn memory(data: &[u8]) {
    for role in [Role::Server, Role::Client] {
        let _ = rings(data, role);
    }
}

fn rings(data: &[u8], role: Role) -> Option<()> {
    let mapping = Arc::new(Mapping::private(MEMORY.into()).ok()?);
    let (control, _peer) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).ok()?;
    let region = Region::Mapped { mapping: Arc::clone(&mapping), size: MEMORY.into() };
    // Half of what is said to be there, as of a file that became shorter.
    let file = memfd_create("fuzz", MemfdFlags::CLOEXEC).ok()?;
    ftruncate(&file, u64::from(MEMORY) / 2).ok()?;
    let guarded = Region::Guarded { file: file.into(), size: MEMORY.into() };
    let event = || eventfd_for_ring().ok();
    let ear = Ear::new(event()?, &control).ok()?;
    let session = Arc::new(Session { role, link: Link::new(control), regions: vec![region, guarded] });
    let second = u32::try_from(ring_bytes(LOG2)).ok()?;
    let buffers = match role {
        Role::Server => Buffers::Peers,
        Role::Client => Buffers::Own { first: 2 * second, size: 64 },
    };
    let ring = |offset| Ring::new(&mapping, offset, LOG2);
    let mut rx = RxQueue::new(ring(0)?, ear, Arc::clone(&session), buffers, 1024);
    let mut tx = TxQueue::new(ring(second)?, Bell::new(event()?), Arc::clone(&session), buffers, 1024);
    let view = ring(0)?;
    for part in data.chunks(2 * second as usize) {
        // Most indices are far out: keep some of them near, or nothing but that is ever found.
        mapping.bytes_mut(0, 2 * second)?.write(0, part);
        let peers = if role == Role::Server { Index::Head } else { Index::Tail };
        let claimed = view.load(peers, std::sync::atomic::Ordering::Relaxed);
        if claimed & 0x100 == 0 {
            view.store(peers, rx.next().wrapping_add(claimed & 0xf), std::sync::atomic::Ordering::Relaxed);
        }
        if let Ok(burst) = rx.burst(32) {
            assert!(burst.len() <= 1 << LOG2, "{} packets of {} slots", burst.len(), 1 << LOG2);
            for packet in burst.iter() {
                assert!((1..=1024).contains(&packet.len()), "a packet of {} bytes", packet.len());
                assert_eq!(packet.to_vec().len(), packet.len());
            }
        }
        let copied = rx.copied();
        assert!(copied <= 1 << 21, "{copied} bytes are kept of guarded memory");
        if let Ok(mut burst) = tx.burst() {
            let _ = burst.push(&[7; 100]);
            let _ = burst.push(&[8; 20]);
            if let Ok(mut frame) = burst.reserve(300) {
                assert_eq!(frame.fill(1, 400, 9), 299);
                assert_eq!(frame.parts().map(|part| part.len()).sum::<usize>(), 300);
            }
            let _ = burst.send();
        }
        let _ = rx.arm();
        if session.link.known().is_err() {
            break;
        }
    }
    Some(())
}
