//! A link that is up, with its queues.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use crate::{
    control::{AddRing, Direction, Mode},
    handshake::{Refusal, Ring as Announcement, server::Announced},
    index::{Producer, Role},
    layout::Layout,
    link::Link,
    memory::{Region, is_eventfd},
    peer::{Credentials, Peer},
    rx::RxQueue,
    session::{Buffers, Session},
    signal::{Bell, Ear},
    sys::{COOKIE, Ring},
    tx::TxQueue,
};

/// The longest packet that a client takes or sends.
const LONGEST: u32 = 65536;

/// One connection to one peer. Its queues can be taken out and used by a thread each; it ends when the last of them is dropped.
#[derive(Debug)]
#[non_exhaustive]
pub struct Connection {
    /// What comes from the peer.
    pub rx: Vec<RxQueue>,
    /// What goes to the peer.
    pub tx: Vec<TxQueue>,
    /// Whether it is still up.
    pub link: Link,
    /// Who is at the other end.
    pub peer: Peer,
    /// Which end this is.
    pub role: Role,
    /// What passes.
    pub mode: Mode,
    /// The interface's number behind its socket.
    pub id: u32,
}

/// What is known of a connection besides its queues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About {
    pub(crate) peer: Peer,
    pub(crate) mode: Mode,
    pub(crate) id: u32,
}

impl Connection {
    /// A client's, once the server has said CONNECTED: only now may its indices move.
    pub(crate) fn of_client(
        control: OwnedFd,
        region: Region,
        layout: &Layout,
        events: Vec<OwnedFd>,
        about: About,
    ) -> io::Result<Self> {
        let outside = || io::Error::other("rings outside");
        let mapping = Arc::clone(region.mapping().ok_or_else(outside)?);
        let link = Link::new(control);
        let session = Arc::new(Session { role: Role::Client, link: link.clone(), regions: vec![region] });
        let (mut rx, mut tx) = (Vec::new(), Vec::new());
        for ((place, event), number) in layout.rings().zip(events).zip(0..) {
            let ring = Ring::new(&mapping, place.offset, place.log2_ring_size).ok_or_else(outside)?;
            let buffers = Buffers::Own { first: layout.buffers_of(number), size: layout.buffer_size() };
            let session = Arc::clone(&session);
            match place.direction {
                Direction::ToServer => tx.push(TxQueue::new(ring, Bell::new(event), session, buffers, LONGEST)),
                Direction::ToClient => {
                    let ear = Ear::new(event, link.control())?;
                    rx.push(RxQueue::new(ring, ear, session, buffers, LONGEST));
                }
            }
        }
        Ok(Self { rx, tx, link, peer: about.peer, role: Role::Client, mode: about.mode, id: about.id })
    }

    /// A server's, from what a client announced.
    ///
    /// # Errors
    /// What is wrong with that.
    pub(crate) fn of_server(
        control: impl FnOnce() -> Result<OwnedFd, Refusal>,
        announced: Announced<OwnedFd>,
        credentials: Option<Credentials>,
    ) -> Result<Self, Refusal> {
        let Announced { identity, limits, regions, to_server, to_client, program, interface } = announced;
        let regions: Vec<Region> = (0..)
            .zip(regions)
            .map(|(index, (size, file))| Region::accept(index, size, file, limits.unsealed))
            .collect::<Result<_, _>>()?;
        let [to_server, to_client] = [to_server, to_client].map(|rings| -> Result<Vec<_>, Refusal> {
            rings.into_iter().map(|announcement| adopt(announcement, &regions)).collect()
        });
        let (to_server, to_client) = (to_server?, to_client?);
        let link = Link::new(control()?);
        let session = Arc::new(Session { role: Role::Server, link: link.clone(), regions });
        let longest = limits.packet;
        let rx = to_server.into_iter().map(|(ring, event)| {
            let ear = Ear::new(event, link.control())
                .map_err(|error| Refusal::Malformed(format!("waiting for an eventfd: {error}")))?;
            Ok(RxQueue::new(ring, ear, Arc::clone(&session), Buffers::Peers, longest))
        });
        let tx = to_client.into_iter().map(|(ring, event)| {
            Producer::new(Role::Server).publish_start(&ring);
            TxQueue::new(ring, Bell::new(event), Arc::clone(&session), Buffers::Peers, longest)
        });
        let (rx, tx) = (rx.collect::<Result<_, Refusal>>()?, tx.collect());
        let peer = Peer { program, interface, credentials };
        Ok(Self { rx, tx, link, peer, role: Role::Server, mode: identity.mode, id: identity.id })
    }
}

/// A ring that a client announced: in memory that stays, marked, with an eventfd.
fn adopt(announcement: Announcement<OwnedFd>, regions: &[Region]) -> Result<(Ring, OwnedFd), Refusal> {
    let Announcement { place: AddRing { direction, index, region, offset, log2_ring_size }, event } = announcement;
    let misplaced = |expected| Refusal::RingPlace { direction, index, region, offset, expected };
    let mapping = regions
        .get(usize::from(region))
        .and_then(Region::mapping)
        .ok_or(misplaced("a region with the seal F_SEAL_SHRINK, not on hugetlbfs"))?;
    let ring =
        Ring::new(mapping, offset, log2_ring_size).ok_or(misplaced("a multiple of 8 that leaves room for it"))?;
    match ring.cookie() {
        COOKIE => {}
        cookie => return Err(Refusal::Cookie { direction, index, cookie }),
    }
    match is_eventfd(event.as_fd()) {
        Ok(true) => Ok((ring, event)),
        Ok(false) => Err(Refusal::NoEventfd { direction, index }),
        Err(error) => Err(Refusal::Malformed(format!("no look at the eventfd, is /proc mounted? {error}"))),
    }
}

/// Marks the rings of a client's new memory.
pub(crate) fn mark(region: &Region, layout: &Layout) -> Option<()> {
    let mapping = region.mapping()?;
    for place in layout.rings() {
        Ring::new(mapping, place.offset, place.log2_ring_size)?.mark();
    }
    Some(())
}
