//! A ring's memory.

use std::{
    mem::offset_of,
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering},
    },
};

use super::mapping::Mapping;
use crate::{
    control::MAX_LOG2_RING_SIZE,
    index::{Index, Slots},
    layout::{DESCRIPTOR, RING_HEADER, ring_bytes},
};

/// What stands at the beginning of every ring.
pub(crate) const COOKIE: u32 = 0x03E3_1F20;

/// As the protocol has it: what each end writes has a cache line of its own.
#[repr(C)]
struct Header {
    cookie: AtomicU32,
    flags: AtomicU16,
    head: AtomicU16,
    _rest: [AtomicU8; 56],
    tail: AtomicU16,
    _other_rest: [AtomicU8; 62],
}

/// As the protocol has it.
#[repr(C)]
struct Slot {
    /// Bit 0: the packet goes on in the next slot.
    flags: AtomicU16,
    region: AtomicU16,
    length: AtomicU32,
    offset: AtomicU32,
    metadata: AtomicU32,
}

const _: () = {
    assert!(size_of::<Header>() as u64 == RING_HEADER && size_of::<Slot>() as u64 == DESCRIPTOR);
    assert!(align_of::<Header>() <= 8 && align_of::<Slot>() <= 8);
    assert!(offset_of!(Header, flags) == 4 && offset_of!(Header, head) == 6 && offset_of!(Header, tail) == 64);
    assert!(offset_of!(Slot, region) == 2 && offset_of!(Slot, length) == 4 && offset_of!(Slot, offset) == 8);
};

/// One packet, or a part of one: copied out of the ring, so that nobody changes it any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Descriptor {
    /// The packet goes on in the next slot.
    pub(crate) more: bool,
    pub(crate) region: u16,
    pub(crate) length: u32,
    pub(crate) offset: u32,
}

/// A ring in a mapping that it keeps alive.
#[derive(Debug)]
pub(crate) struct Ring {
    header: NonNull<Header>,
    slots: NonNull<Slot>,
    mask: u16,
    /// Both point into it.
    _mapping: Arc<Mapping>,
}

// SAFETY: as for `Mapping`.
unsafe impl Send for Ring {}
// SAFETY: as for `Mapping`.
unsafe impl Sync for Ring {}

impl Ring {
    /// The ring of 2^`log2` slots at `offset`, if all of it lies inside and is aligned to 8.
    pub(crate) fn new(mapping: &Arc<Mapping>, offset: u32, log2: u8) -> Option<Self> {
        // An index is 16 bits wide: with more slots a full ring would look like an empty one.
        if log2 > MAX_LOG2_RING_SIZE {
            return None;
        }
        let base = mapping.place(offset.into(), ring_bytes(log2))?;
        if !base.cast::<u64>().is_aligned() {
            return None;
        }
        let header: NonNull<Header> = base.cast();
        // SAFETY: the header is followed by the slots, all inside of the mapping.
        let slots = unsafe { header.add(1) }.cast();
        Some(Self { header, slots, mask: (1 << log2) - 1, _mapping: Arc::clone(mapping) })
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: inside of the mapping and aligned, as `new` has checked; mapped while `self` lives; atomics, whatever others write.
        unsafe { self.header.as_ref() }
    }

    /// A slot by index, whatever the ring's size.
    #[inline]
    fn slot(&self, index: u16) -> &Slot {
        // SAFETY: a masked index is one of the slots that `new` has found inside of the mapping; the rest as for the header.
        unsafe { self.slots.add(usize::from(index & self.mask)).as_ref() }
    }

    pub(crate) fn cookie(&self) -> u32 {
        self.header().cookie.load(Ordering::Relaxed)
    }

    pub(crate) fn mark(&self) {
        self.header().cookie.store(COOKIE, Ordering::Relaxed);
    }

    /// A copy of a descriptor.
    #[inline]
    pub(crate) fn descriptor(&self, index: u16) -> Descriptor {
        let slot = self.slot(index);
        Descriptor {
            more: slot.flags.load(Ordering::Relaxed) & 1 != 0,
            region: slot.region.load(Ordering::Relaxed),
            length: slot.length.load(Ordering::Relaxed),
            offset: slot.offset.load(Ordering::Relaxed),
        }
    }

    #[inline]
    pub(crate) fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        let slot = self.slot(index);
        slot.flags.store(descriptor.more.into(), Ordering::Relaxed);
        slot.region.store(descriptor.region, Ordering::Relaxed);
        slot.length.store(descriptor.length, Ordering::Relaxed);
        slot.offset.store(descriptor.offset, Ordering::Relaxed);
        slot.metadata.store(0, Ordering::Relaxed);
    }
}

impl Slots for Ring {
    #[inline]
    fn slots(&self) -> u16 {
        self.mask + 1
    }

    #[inline]
    fn load(&self, index: Index, ordering: Ordering) -> u16 {
        field(self.header(), index).load(ordering)
    }

    #[inline]
    fn store(&self, index: Index, value: u16, ordering: Ordering) {
        field(self.header(), index).store(value, ordering);
    }

    #[inline]
    fn fence(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
    }
}

#[inline]
const fn field(header: &Header, index: Index) -> &AtomicU16 {
    match index {
        Index::Head => &header.head,
        Index::Tail => &header.tail,
        Index::Flags => &header.flags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_stand_where_the_protocol_has_them() {
        let mapping = Arc::new(Mapping::private(4096).unwrap());
        let ring = Ring::new(&mapping, 256, 1).unwrap();
        ring.mark();
        ring.set_descriptor(3, Descriptor { more: true, region: 2, length: 60, offset: 0x0102_0304 });
        ring.store(Index::Head, 0x0506, Ordering::Relaxed);
        ring.store(Index::Tail, 7, Ordering::Relaxed);
        ring.store(Index::Flags, 1, Ordering::Relaxed);
        let read = |offset, length| mapping.bytes(offset, length).unwrap().to_vec();
        assert_eq!(read(256, 8), [0x20, 0x1f, 0xe3, 0x03, 1, 0, 6, 5]);
        assert_eq!(read(256 + 64, 2), [7, 0]);
        // Slot 3 of 2 is slot 1.
        assert_eq!(read(256 + 128 + 16, 16), [1, 0, 2, 0, 60, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0]);
        assert_eq!(ring.descriptor(1), Descriptor { more: true, region: 2, length: 60, offset: 0x0102_0304 });
        assert_eq!(ring.descriptor(2), Descriptor::default());
        assert_eq!(ring.cookie(), COOKIE);
    }

    #[test]
    fn a_ring_lies_inside_and_is_aligned() {
        let mapping = Arc::new(Mapping::private(4096).unwrap());
        assert!(Ring::new(&mapping, 4096 - 160, 1).is_some());
        assert!(Ring::new(&mapping, 4096 - 152, 1).is_none());
        assert!(Ring::new(&mapping, 4, 1).is_none());
        assert!(Ring::new(&mapping, u32::MAX, 14).is_none());
        assert!(Ring::new(&mapping, 0, 15).is_none() && Ring::new(&mapping, 0, 64).is_none());
    }
}
