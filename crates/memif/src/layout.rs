//! Where a client's rings and buffers lie in its one region.
//!
//! Guarantees: everything lies inside [`Layout::size`], nothing overlaps, and every offset fits the protocol's 32 bits. S2M rings come
//! first, then M2S rings, then the buffers of each ring in the same order.

use crate::{
    control::{AddRing, Direction},
    handshake::Agreed,
};

/// Bytes before a ring's descriptors: two cache lines, one for each end's index.
pub(crate) const RING_HEADER: u64 = 128;
/// Bytes of a descriptor.
pub(crate) const DESCRIPTOR: u64 = 16;

/// Bytes of a ring.
pub(crate) const fn ring_bytes(log2: u8) -> u64 {
    RING_HEADER + (DESCRIPTOR << log2)
}

/// A client's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    agreed: Agreed,
    buffer_size: u32,
}

/// Rings and buffers that offsets of 32 bits cannot reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{agreed} with buffers of {buffer_size} bytes take {bytes} bytes: expected at most 4 GiB, make some of them smaller"
)]
pub struct TooLarge {
    agreed: Agreed,
    buffer_size: u32,
    bytes: u64,
}

impl Layout {
    pub(crate) fn new(agreed: Agreed, buffer_size: u32) -> Result<Self, TooLarge> {
        let layout = Self { agreed, buffer_size };
        match layout.size() {
            bytes if bytes > u64::from(u32::MAX) => Err(TooLarge { agreed, buffer_size, bytes }),
            _ => Ok(layout),
        }
    }

    fn count(&self) -> u64 {
        u64::from(self.agreed.to_server) + u64::from(self.agreed.to_client)
    }

    /// Bytes of the region.
    pub(crate) fn size(&self) -> u64 {
        self.count() * (ring_bytes(self.agreed.log2_ring_size) + self.buffers())
    }

    /// Bytes of one ring's buffers.
    fn buffers(&self) -> u64 {
        u64::from(self.buffer_size) << self.agreed.log2_ring_size
    }

    /// All rings in the order in which they are announced.
    pub(crate) fn rings(&self) -> impl Iterator<Item = AddRing> {
        let Agreed { to_server, to_client, log2_ring_size } = self.agreed;
        let to_server = (0..to_server).map(|index| (Direction::ToServer, index));
        let all = to_server.chain((0..to_client).map(|index| (Direction::ToClient, index)));
        all.zip(0..).map(move |((direction, index), number)| AddRing {
            direction,
            index,
            region: 0,
            offset: small(number * ring_bytes(log2_ring_size)),
            log2_ring_size,
        })
    }

    /// Where the buffers of a ring begin, by its place in [`Layout::rings`].
    pub(crate) fn buffers_of(&self, number: u16) -> u32 {
        small(self.count() * ring_bytes(self.agreed.log2_ring_size) + u64::from(number) * self.buffers())
    }

    pub(crate) const fn buffer_size(&self) -> u32 {
        self.buffer_size
    }
}

/// An offset inside a layout that was found to be small enough.
fn small(offset: u64) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_usual_one_is_as_others_have_it() {
        let layout = Layout::new(Agreed { to_server: 1, to_client: 1, log2_ring_size: 10 }, 2048).unwrap();
        assert_eq!(layout.size(), 4_227_328);
        let rings: Vec<_> = layout.rings().map(|ring| (ring.direction, ring.index, ring.offset)).collect();
        assert_eq!(rings, [(Direction::ToServer, 0, 0), (Direction::ToClient, 0, 16512)]);
        assert_eq!((layout.buffers_of(0), layout.buffers_of(1)), (33024, 33024 + 2048 * 1024));
    }

    proptest! {
        #[test]
        fn nothing_overlaps_and_all_is_inside(
            to_server in 1..=256_u16, to_client in 1..=256_u16, log2_ring_size in 0..=14_u8, buffer_size in 64..=65536_u32
        ) {
            let agreed = Agreed { to_server, to_client, log2_ring_size };
            let Ok(layout) = Layout::new(agreed, buffer_size) else { return Ok(()) };
            let rings: Vec<_> = layout.rings().collect();
            let ring = |ring: &AddRing| (u64::from(ring.offset), ring_bytes(log2_ring_size));
            let buffers = |number| (u64::from(layout.buffers_of(number)), layout.buffers());
            let count = to_server + to_client;
            let parts = rings.iter().map(ring).chain((0..count).map(buffers));
            let end = parts.fold(0, |end, (begin, length)| {
                assert_eq!(begin, end);
                begin + length
            });
            prop_assert_eq!(end, layout.size());
            prop_assert_eq!(rings.len(), usize::from(count));
        }
    }
}
