//! Receiving: bursts of packets that stay where the peer has put them until they are dropped.
//!
//! Guarantees: each descriptor is copied once and that copy is checked; a packet of a [`Burst`] lies inside of the connection's memory,
//! is not empty and not longer than allowed. The slots go back to the peer when the burst is dropped, not before. Waiting is bounded.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    channel::{self, left},
    index::{Consumer, Slots as _},
    link::{Down, Link},
    memory::{Region, read_guarded},
    packet::{Packet, Place, Segment},
    session::{Buffers, Session},
    signal::{Ear, Heard},
    spin::Spin,
    stats::{Counters, Statistics},
    sys::{Descriptor, Ring},
};
/// After so many bursts the kernel is asked whether the peer is still there, whatever they found: what is in the ring says nothing about that.
const CHECK: u32 = 1024;
/// A peer without a fence may miss the wish to be woken when it was uttered a moment ago. After this long it cannot any more. A timer that
/// is due before the kernel's next tick (4 ms, 10 ms) would have to be set for each sleep and taken back for each signal: 6 us of a
/// packet's way in a virtual machine.
const SETTLE: Duration = Duration::from_millis(10);
/// And if it does nevertheless, this is how long a packet waits.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// So many bytes of guarded memory are copied for one burst, and at most one packet more.
const MOST_COPIED: usize = 1 << 20;

/// Receives from one ring.
#[derive(Debug)]
pub struct RxQueue {
    ring: Ring,
    consumer: Consumer,
    ear: Ear,
    session: Arc<Session>,
    buffers: Buffers,
    longest: u32,
    found: Found,
    counters: Counters,
    /// A chain that is not whole ends at this index: there is nothing to do before the peer goes on.
    unfinished: Option<u16>,
    /// Since the kernel was asked.
    bursts: u32,
    /// The link is down, and this is where the peer was when that was noticed: what it writes behind is not received.
    end: Option<u16>,
    asleep: Asleep,
    spin: Spin,
}

/// The packets of a burst: kept to spare allocations.
#[derive(Debug, Default)]
struct Found {
    segments: Vec<Segment>,
    /// Where each packet's segments end, and its length.
    packets: Vec<(u32, u32)>,
    /// Copies of guarded memory.
    copies: Vec<u8>,
}

/// Whether the peer has been asked to signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asleep {
    No,
    Since(Instant),
    Settled,
}

impl RxQueue {
    pub(crate) fn new(ring: Ring, ear: Ear, session: Arc<Session>, buffers: Buffers, longest: u32) -> Self {
        let consumer = Consumer::new(session.role);
        consumer.mask(&ring);
        let queue = Self {
            ring,
            consumer,
            ear,
            session,
            buffers,
            longest,
            found: Found::default(),
            counters: Counters::default(),
            unfinished: None,
            bursts: 0,
            end: None,
            asleep: Asleep::No,
            spin: Spin::new(Duration::ZERO),
        };
        queue.offer(0, queue.ring.slots());
        queue.consumer.publish(&queue.ring);
        queue
    }

    /// Fills `count` slots from an index on with empty buffers, where these are ours.
    #[inline]
    fn offer(&self, from: u16, count: u16) {
        if let Buffers::Own { first, size } = self.buffers {
            for slot in 0..count {
                let slot = from.wrapping_add(slot);
                let offset = Buffers::own(first, size, slot, self.ring.slots());
                self.ring.set_descriptor(slot, Descriptor { more: false, region: 0, length: size, offset });
            }
        }
    }

    /// Takes up to `most` packets that are there, without waiting.
    ///
    /// # Errors
    /// The link is down, and the packets that had come when that was noticed are delivered. It is noticed now and then, not by every call.
    #[inline]
    pub fn burst(&mut self, most: usize) -> Result<Burst<'_>, Down> {
        let available = self.consumer.available(&self.ring).map_err(|broken| self.session.broken(broken))?;
        self.bursts += 1;
        let down = if self.bursts >= CHECK {
            self.bursts = 0;
            self.session.link.check()
        } else {
            self.session.link.known()
        };
        let next = self.consumer.next();
        let available = match down {
            Ok(()) => available,
            Err(_) => available.min(self.end.get_or_insert(next.wrapping_add(available)).wrapping_sub(next)),
        };
        // A chain that has no end yet is not looked at again before there is more of it.
        if available == 0 || self.unfinished == Some(next.wrapping_add(available)) {
            down?;
            self.found.packets.clear();
            return Ok(Burst { queue: self, taken: 0 });
        }
        let taken = self.find(available, most);
        Ok(Burst { queue: self, taken })
    }

    /// Collects whole packets of the `available` slots; tells how many slots that took.
    fn find(&mut self, available: u16, most: usize) -> u16 {
        self.unfinished = None;
        let Self { ring, consumer, session, buffers, longest, found, .. } = self;
        let Found { segments, packets, copies } = found;
        segments.clear();
        packets.clear();
        copies.clear();
        let next = consumer.next();
        let (mut taken, mut invalid, mut bytes) = (0, 0, 0);
        while packets.len() < most && taken < available && copies.len() < MOST_COPIED {
            let (first, mut length, mut end, mut whole, mut good) = (segments.len(), 0, taken, false, true);
            while end < available && !whole {
                let slot = next.wrapping_add(end);
                let descriptor = ring.descriptor(slot);
                end += 1;
                whole = !descriptor.more;
                // Of a packet that is bad nothing more is looked at: guarded memory is copied by this.
                let longer = u64::from(length) + u64::from(descriptor.length);
                let segment = match *buffers {
                    _ if !good || longer > u64::from(*longest) => None,
                    Buffers::Own { first, size } => {
                        let offset = Buffers::own(first, size, slot, ring.slots());
                        let length = descriptor.length;
                        (length > 0 && length <= size).then_some(Segment { place: Place::Region(0), offset, length })
                    }
                    Buffers::Peers => segment(&session.regions, descriptor, copies),
                };
                match segment {
                    Some(segment) => {
                        length += segment.length;
                        segments.push(segment);
                    }
                    None => good = false,
                }
            }
            if whole && good {
                packets.push((u32::try_from(segments.len()).unwrap_or(u32::MAX), length));
                bytes += u64::from(length);
            } else {
                segments.truncate(first);
                // A chain that fills the ring without an end will never have one.
                if !whole && end - taken < ring.slots() {
                    self.unfinished = Some(next.wrapping_add(available));
                    break;
                }
                invalid += 1;
            }
            taken = end;
        }
        self.counters.add(Statistics { packets: packets.len() as u64, bytes, invalid, ..Statistics::default() });
        taken
    }

    /// Waits until there is something to receive, at most `timeout` long (in whole milliseconds); false when that is over. The peer is
    /// asked to signal only while this waits, and until something comes.
    ///
    /// # Errors
    /// The link is down.
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, Down> {
        let deadline = channel::deadline(timeout);
        let waited = self.spin.begin();
        if let Some(waited) = waited {
            waited.look(deadline, || self.ready())?;
        }
        let came = self.sleep(deadline)?;
        self.spin.end(waited, came);
        Ok(came)
    }

    /// Before it sleeps, [`RxQueue::wait`] looks at the ring for as long as this, where packets come as quickly one after another: then
    /// they pass in a microsecond instead of ten or twenty, without system calls at either end, and this end's processor has nothing else to do
    /// meanwhile. Where they come more slowly it sleeps at once. Zero, which is never, unless set.
    pub const fn spin(&mut self, most: Duration) {
        self.spin = Spin::new(most);
    }

    fn sleep(&mut self, deadline: Instant) -> Result<bool, Down> {
        loop {
            // What was raised meanwhile is left: at worst it wakes once in vain, and a system call is between a signal and its packet.
            if self.wish()? {
                return Ok(true);
            }
            let rest = left(deadline);
            if rest.is_zero() {
                return Ok(false);
            }
            match self.ear.wait(rest.min(self.longest_sleep())) {
                Ok(Heard::Nothing) => {}
                Ok(Heard::Link) => self.look()?,
                Err(error) => return Err(self.failed(&error)),
            }
        }
    }

    /// Asks to be signalled, for who waits on [`RxQueue::event`] with other files. True: do not wait, something is there already.
    /// Wait no longer than [`RxQueue::longest_sleep`], then call this again.
    ///
    /// # Errors
    /// The link is down.
    pub fn arm(&mut self) -> Result<bool, Down> {
        let armed = self.asleep != Asleep::No;
        // Signalled, for something or for nothing, or not at all. What is signalled from now on was published before: the next look sees it.
        if armed && self.ear.clear() == Heard::Link {
            self.look()?;
        }
        self.wish()
    }

    /// Asks to be signalled unless something is there. True: it is, and the peer is not to signal.
    fn wish(&mut self) -> Result<bool, Down> {
        if self.asleep == Asleep::No && !self.ready()? {
            self.consumer.unmask(&self.ring);
            self.asleep = Asleep::Since(Instant::now());
        }
        if self.ready()? {
            self.rouse();
            return Ok(true);
        }
        if let Asleep::Since(then) = self.asleep
            && then.elapsed() >= SETTLE
        {
            self.asleep = Asleep::Settled;
        }
        Ok(false)
    }

    fn rouse(&mut self) {
        if self.asleep != Asleep::No {
            self.consumer.mask(&self.ring);
            self.asleep = Asleep::No;
        }
    }

    /// Asks the kernel for the link. What came before its end is received first.
    fn look(&self) -> Result<(), Down> {
        let up = self.session.link.check();
        if self.ready()? { Ok(()) } else { up }
    }

    /// Asks not to be signalled any more: this end polls.
    pub fn disarm(&mut self) {
        if self.asleep != Asleep::No {
            self.rouse();
            self.ear.clear();
        }
    }

    /// How long one may wait for a signal before looking again.
    pub fn longest_sleep(&self) -> Duration {
        if self.asleep == Asleep::Settled { LONGEST_SLEEP } else { SETTLE }
    }

    /// What becomes readable when the peer signals, until the next [`RxQueue::arm`] or [`RxQueue::disarm`], and when the link is down. It
    /// is only to be waited on: there is nothing to read.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.ear.as_fd()
    }

    fn ready(&self) -> Result<bool, Down> {
        let available = self.consumer.available(&self.ring).map_err(|broken| self.session.broken(broken))?;
        let until = self.consumer.next().wrapping_add(available);
        Ok(available > 0 && self.unfinished != Some(until))
    }

    fn failed(&self, error: &io::Error) -> Down {
        self.session.link.close(&format!("poll: {error}"));
        self.session.link.known().err().unwrap_or(Down::Closed)
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

    /// How many bytes of memory are kept for copies.
    pub(crate) const fn copied(&self) -> usize {
        self.found.copies.capacity()
    }

    /// The index of the slot that is received next.
    pub(crate) const fn next(&self) -> u16 {
        self.consumer.next()
    }
}

/// What a client's descriptor says, if it says something that is there. Guarded memory is copied here and now.
#[inline]
fn segment(regions: &[Region], descriptor: Descriptor, copies: &mut Vec<u8>) -> Option<Segment> {
    let Descriptor { region, length, offset, .. } = descriptor;
    let memory = regions.get(usize::from(region))?;
    if length == 0 || !memory.contains(offset, length) {
        return None;
    }
    match memory {
        Region::Mapped { .. } => Some(Segment { place: Place::Region(region), offset, length }),
        Region::Guarded { file, .. } => {
            let at = copies.len();
            copies.resize(at + length as usize, 0);
            read_guarded(file, offset, &mut copies[at..]).ok()?;
            Some(Segment { place: Place::Copy, offset: u32::try_from(at).ok()?, length })
        }
    }
}

/// Packets that are borrowed from the peer. Dropping them gives the slots back.
#[derive(Debug)]
pub struct Burst<'a> {
    queue: &'a mut RxQueue,
    taken: u16,
}

impl Burst<'_> {
    /// How many packets.
    #[inline]
    pub fn len(&self) -> usize {
        self.queue.found.packets.len()
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queue.found.packets.is_empty()
    }

    /// The packets, in the order in which they were sent.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Packet<'_>> {
        let Found { segments, packets, copies } = &self.queue.found;
        let regions = &self.queue.session.regions;
        let mut first = 0;
        packets.iter().map(move |(end, length)| {
            let end = *end as usize;
            let packet = Packet { segments: &segments[first..end], length: *length, regions, copies };
            first = end;
            packet
        })
    }
}

impl Drop for Burst<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.taken > 0 {
            let queue = &mut *self.queue;
            queue.offer(queue.consumer.next(), self.taken);
            queue.consumer.release(&queue.ring, self.taken);
        }
    }
}

#[cfg(test)]
mod tests;
