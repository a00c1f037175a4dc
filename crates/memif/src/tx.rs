//! Sending: packets are written where the peer reads them, and handed over together.
//!
//! Guarantees: a packet is sent whole or not at all; nothing is seen by the peer before [`TxBurst::send`], and a burst that is dropped
//! without it has sent nothing. A buffer that a client offers is checked once, from a copy of its descriptor, and nothing is written
//! outside of it.

use std::sync::Arc;

use crate::{
    frame::{Frame, Staged},
    index::{Producer, Slots as _},
    link::{Down, Link},
    memory::{Region, write_guarded},
    packet::Packet,
    session::{Buffers, Session},
    signal::Bell,
    stats::{Counters, Statistics},
    sys::{Descriptor, Ring},
};

/// After so many bursts the kernel is asked whether the peer is still there: a ring with too little room may stay like that for ever.
const CHECK: u32 = 1024;

/// So many bytes for guarded memory wait for one `send`, and at most one packet more.
const MOST_COPIED: usize = 1 << 20;

/// Why a packet was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotTaken {
    /// Not enough free slots: send what there is, and try again when the peer has consumed some.
    #[error("the ring is full")]
    Full,
    /// More than all of the ring's buffers hold, or than allowed.
    #[error("packet of {length} bytes: expected 1 to {most}")]
    Length {
        /// Of the packet.
        length: usize,
        /// The longest possible one.
        most: usize,
    },
    /// The peer offers memory that it does not have. The link is down.
    #[error("the peer offered a buffer outside of its memory")]
    BadBuffer,
}

/// Sends to one ring.
#[derive(Debug)]
pub struct TxQueue {
    ring: Ring,
    producer: Producer,
    bell: Bell,
    session: Arc<Session>,
    buffers: Buffers,
    longest: u32,
    staged: Vec<Staged>,
    /// What goes to guarded memory.
    copies: Vec<u8>,
    counters: Counters,
    /// Since the kernel was asked.
    bursts: u32,
    /// The last burst took nothing for want of room.
    starved: bool,
}

impl TxQueue {
    pub(crate) fn new(ring: Ring, bell: Bell, session: Arc<Session>, buffers: Buffers, longest: u32) -> Self {
        Self {
            ring,
            producer: Producer::new(session.role),
            bell,
            session,
            buffers,
            longest,
            staged: Vec::new(),
            copies: Vec::new(),
            counters: Counters::default(),
            bursts: 0,
            starved: false,
        }
    }

    /// Begins to send. How much there is room for is asked once, here.
    ///
    /// # Errors
    /// The link is down. That is noticed now and then, not by every call.
    #[inline]
    pub fn burst(&mut self) -> Result<TxBurst<'_>, Down> {
        self.session.link.known()?;
        let free = self.producer.free(&self.ring).map_err(|broken| self.session.broken(broken))?;
        self.bursts += 1;
        if self.bursts >= CHECK {
            self.bursts = 0;
            self.session.link.check()?;
        }
        self.staged.clear();
        self.copies.clear();
        Ok(TxBurst { queue: self, free, packets: 0, bytes: 0, refused: 0 })
    }

    /// Sends one packet. For several, [`TxQueue::burst`] is faster.
    ///
    /// # Errors
    /// The link is down.
    pub fn send(&mut self, packet: &[u8]) -> Result<Result<(), NotTaken>, Down> {
        let mut burst = self.burst()?;
        let taken = burst.push(packet);
        burst.send()?;
        Ok(taken)
    }

    /// The connection's link.
    pub fn link(&self) -> &Link {
        &self.session.link
    }

    /// The queue's totals.
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// How many slots the ring has.
    pub fn slots(&self) -> u16 {
        self.ring.slots()
    }

    /// Whether the last burst took nothing, because there was too little room for what was to be sent.
    #[cfg_attr(not(feature = "tokio"), expect(dead_code, reason = "who does not wait has seen it"))]
    pub(crate) const fn starved(&self) -> bool {
        self.starved
    }

    /// The buffer of a slot: whole, as a descriptor.
    #[inline]
    fn buffer(&self, slot: u16) -> Option<Descriptor> {
        match self.buffers {
            Buffers::Own { first, size } => {
                let offset = Buffers::own(first, size, slot, self.ring.slots());
                Some(Descriptor { more: false, region: 0, length: size, offset })
            }
            Buffers::Peers => {
                let offered = self.ring.descriptor(slot);
                let region = self.session.regions.get(usize::from(offered.region))?;
                (offered.length > 0 && region.contains(offered.offset, offered.length)).then_some(offered)
            }
        }
    }

    fn flush(&mut self, packets: usize, bytes: u64) -> Result<(), Down> {
        let mut slot = self.producer.next();
        for staged in &self.staged {
            let Descriptor { region, length, offset, .. } = staged.descriptor;
            if let Some(at) = staged.copy
                && let Some(Region::Guarded { file, .. }) = self.session.regions.get(usize::from(region))
            {
                let copy = &self.copies[at as usize..(at + length) as usize];
                write_guarded(file, offset, copy)
                    .map_err(|error| self.session.link.broken(format!("writing to region {region}: {error}")))?;
            }
            self.ring.set_descriptor(slot, staged.descriptor);
            slot = slot.wrapping_add(1);
        }
        let count = u16::try_from(self.staged.len()).unwrap_or(u16::MAX);
        let wanted = count > 0 && self.producer.publish(&self.ring, count);
        if wanted {
            self.bell.ring();
        }
        let packets = packets as u64;
        self.counters.add(Statistics { packets, bytes, signals: wanted.into(), ..Statistics::default() });
        Ok(())
    }
}

/// Packets that are being written.
#[derive(Debug)]
pub struct TxBurst<'a> {
    queue: &'a mut TxQueue,
    free: u16,
    packets: usize,
    bytes: u64,
    refused: u64,
}

impl TxBurst<'_> {
    /// How many slots are left. A packet takes one for each buffer that it fills.
    #[inline]
    pub fn free(&self) -> usize {
        usize::from(self.free) - self.queue.staged.len()
    }

    /// How many packets there are so far.
    #[inline]
    pub const fn len(&self) -> usize {
        self.packets
    }

    /// Whether there is none so far.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.packets == 0
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// Nothing of it was taken.
    #[inline]
    pub fn push(&mut self, packet: &[u8]) -> Result<(), NotTaken> {
        self.reserve(packet.len())?.write(0, packet);
        Ok(())
    }

    /// Adds a packet that was received elsewhere: one copy, from memory to memory.
    ///
    /// # Errors
    /// Nothing of it was taken.
    #[inline]
    pub fn forward(&mut self, packet: &Packet<'_>) -> Result<(), NotTaken> {
        let mut frame = self.reserve(packet.len())?;
        let mut at = 0;
        for bytes in packet.segments() {
            frame.copy(at, bytes);
            at += bytes.len();
        }
        Ok(())
    }

    /// Adds a packet of this length, to be written in place: see [`Frame`]. What is not written is whatever was there.
    ///
    /// # Errors
    /// Nothing was taken.
    #[inline]
    pub fn reserve(&mut self, length: usize) -> Result<Frame<'_>, NotTaken> {
        let (first, copied) = (self.queue.staged.len(), self.queue.copies.len());
        let reserved = if copied > MOST_COPIED { Err(NotTaken::Full) } else { self.stage(first, length) };
        if let Err(why) = reserved {
            self.queue.staged.truncate(first);
            self.queue.copies.truncate(copied);
            self.refused += u64::from(why == NotTaken::Full);
            return Err(why);
        }
        self.packets += 1;
        self.bytes += length as u64;
        let TxQueue { staged, session, copies, .. } = &mut *self.queue;
        Ok(Frame::new(&staged[first..], &session.regions, &mut copies[copied..], length))
    }

    #[inline]
    fn stage(&mut self, first: usize, length: usize) -> Result<(), NotTaken> {
        let queue = &mut *self.queue;
        let longest = queue.longest as usize;
        let mut rest = match u32::try_from(length) {
            Ok(rest) if length > 0 && length <= longest => rest,
            Ok(_) | Err(_) => return Err(NotTaken::Length { length, most: longest }),
        };
        while rest > 0 {
            let place = queue.staged.len();
            if place >= usize::from(self.free) {
                let slots = queue.ring.slots();
                // Not even an empty ring would have room: a client knows its buffers, a server's differ.
                return Err(if first == 0 && self.free == slots {
                    NotTaken::Length { length, most: length - rest as usize }
                } else {
                    NotTaken::Full
                });
            }
            let slot = queue.producer.next().wrapping_add(u16::try_from(place).unwrap_or(u16::MAX));
            let Some(buffer) = queue.buffer(slot) else {
                queue.session.link.broken(NotTaken::BadBuffer);
                return Err(NotTaken::BadBuffer);
            };
            let length = rest.min(buffer.length);
            rest -= length;
            let descriptor = Descriptor { more: rest > 0, length, ..buffer };
            let copy = match queue.session.regions.get(usize::from(buffer.region)) {
                Some(Region::Guarded { .. }) => {
                    let at = u32::try_from(queue.copies.len()).unwrap_or(u32::MAX);
                    queue.copies.resize(queue.copies.len() + length as usize, 0);
                    Some(at)
                }
                Some(Region::Mapped { .. }) | None => None,
            };
            queue.staged.push(Staged { descriptor, copy });
        }
        Ok(())
    }

    /// Hands all of them over, and wakes the peer if it asked for that. Tells how many.
    ///
    /// # Errors
    /// The peer has taken its memory away. The link is down.
    #[inline]
    pub fn send(self) -> Result<usize, Down> {
        self.queue.flush(self.packets, self.bytes)?;
        Ok(self.len())
    }
}

impl Drop for TxBurst<'_> {
    fn drop(&mut self) {
        self.queue.starved = self.refused > 0 && self.packets == 0;
        if self.refused > 0 {
            self.queue.counters.add(Statistics { full: self.refused, ..Statistics::default() });
        }
    }
}
