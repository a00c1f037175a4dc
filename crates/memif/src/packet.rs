//! A received packet: one or more parts of the peer's memory.

use std::fmt;

use crate::{memory::Region, sys::Bytes};

/// Where a part of a packet lies. It was checked when it was made, and nobody changes it since.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    pub(crate) place: Place,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    Region(u16),
    /// Among the burst's copies of guarded memory.
    Copy,
}

/// A packet as it lies in memory. Its place and length are fixed; its bytes are the peer's to change until the burst is dropped: rely on
/// a copy.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    pub(crate) segments: &'a [Segment],
    pub(crate) length: u32,
    pub(crate) regions: &'a [Region],
    pub(crate) copies: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Its length in bytes, never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "no packet is empty")]
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Its parts; most packets have one.
    #[inline]
    pub fn segments(&self) -> impl Iterator<Item = Bytes<'a>> + use<'a> {
        let Self { regions, copies, segments, .. } = *self;
        segments.iter().filter_map(move |segment| {
            let Segment { place, offset, length } = *segment;
            match place {
                Place::Region(region) => regions.get(usize::from(region))?.mapping()?.bytes(offset, length),
                Place::Copy => copies.get(offset as usize..(offset + length) as usize).map(Bytes::from),
            }
        })
    }

    /// Copies as much as there is room for; tells how much.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        self.segments().fold(0, |done, bytes| done + bytes.copy_to(&mut to[done..]))
    }

    /// A copy of all.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len()];
        self.copy_to(&mut copy);
        copy
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packet of {} bytes in {} parts", self.length, self.segments.len())
    }
}
