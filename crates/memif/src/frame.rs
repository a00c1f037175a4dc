//! A packet that is being written where the peer will read it.
//!
//! Guarantees: nothing is written outside of the slots that were reserved for it, whatever place or length is asked for.

use std::mem;

use crate::{
    memory::Region,
    sys::{Bytes, BytesMut, Descriptor},
};

/// A filled slot that the peer has not been told of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staged {
    pub(crate) descriptor: Descriptor,
    /// Where among the burst's copies, if the buffer is guarded.
    pub(crate) copy: Option<u32>,
}

/// A packet that is being written in place. It goes with its burst.
///
/// It lies in one buffer of the ring, or in several where it is longer than one. [`Frame::write`], [`Frame::copy`] and [`Frame::fill`] do not
/// care for that; [`Frame::parts`] are the buffers themselves, to write and to read back. Nothing of it is a `&mut [u8]`: the peer may write
/// there, too.
///
/// ```
/// # use memif::{Address, Client, Listener, Server};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let address = Address::abstract_name(format!("memif-doc/{}", std::process::id()))?;
/// # let listener = Listener::bind(&address)?;
/// # let port = listener.add(Server::new(0))?;
/// # let mut near = Client::new(address).connect(Duration::from_secs(5))?;
/// # let mut far = port.accept(Duration::from_secs(5))?.ok_or("nobody came")?;
/// let mut burst = near.tx[0].burst()?;
/// let mut frame = burst.reserve(1500)?;
/// frame.write(0, &[0xff; 6]);                      // to all
/// frame.write(6, &[2, 0, 0, 0, 0, 1, 0x88, 0xb5]); // from here
/// frame.fill(14, 1486, 0);                         // what was there before is sent otherwise
/// let sum: u64 = frame.parts().map(|part| part.bytes().iter().map(u64::from).sum::<u64>()).sum();
/// frame.write(14, &sum.to_be_bytes());
/// burst.send()?;
/// # assert!(far.rx[0].wait(Duration::from_secs(5))?);
/// # let burst = far.rx[0].burst(1)?;
/// # let packet = burst.iter().next().ok_or("no packet")?.to_vec();
/// # assert_eq!((packet.len(), &packet[14..22]), (1500, &(6 * 0xff_u64 + 3 + 0x88 + 0xb5).to_be_bytes()[..]));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Frame<'a> {
    parts: &'a [Staged],
    regions: &'a [Region],
    /// What goes to guarded memory, of this frame alone.
    copies: &'a mut [u8],
    length: usize,
}

impl<'a> Frame<'a> {
    pub(crate) const fn new(parts: &'a [Staged], regions: &'a [Region], copies: &'a mut [u8], length: usize) -> Self {
        Self { parts, regions, copies, length }
    }

    /// Its length in bytes, never 0.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "no packet is empty")]
    pub const fn len(&self) -> usize {
        self.length
    }

    /// The buffers that it lies in, in their order; most packets have one. Together they are as long as it is.
    #[inline]
    pub fn parts(&mut self) -> impl Iterator<Item = BytesMut<'_>> {
        let Self { parts, regions, copies, .. } = self;
        // The copies follow one another as the parts do.
        let mut rest = &mut **copies;
        parts.iter().filter_map(move |part| {
            let Descriptor { region, length, offset, .. } = part.descriptor;
            if part.copy.is_some() {
                let (copy, behind) = mem::take(&mut rest).split_at_mut_checked(length as usize)?;
                rest = behind;
                return Some(BytesMut::from(copy));
            }
            regions.get(usize::from(region))?.mapping()?.bytes_mut(offset, length)
        })
    }

    /// Writes bytes at a place; tells how many there was room for.
    #[inline]
    pub fn write(&mut self, at: usize, bytes: &[u8]) -> usize {
        self.each(at, bytes.len(), |part, inside, done| part.write(inside, &bytes[done..]))
    }

    /// The same from bytes that others may write meanwhile.
    #[inline]
    pub fn copy(&mut self, at: usize, bytes: Bytes<'_>) -> usize {
        self.each(at, bytes.len(), |part, inside, done| part.copy(inside, bytes.part(done, usize::MAX)))
    }

    /// Writes `len` times the same byte; tells how often there was room for it.
    #[inline]
    pub fn fill(&mut self, at: usize, len: usize, byte: u8) -> usize {
        self.each(at, len, |part, inside, done| {
            let mut place = part.part(inside, len - done);
            place.fill(byte);
            place.len()
        })
    }

    /// Reads back what is at a place; tells how many bytes there were.
    #[inline]
    pub fn read(&mut self, at: usize, to: &mut [u8]) -> usize {
        self.each(at, to.len(), |part, inside, done| part.bytes().part(inside, usize::MAX).copy_to(&mut to[done..]))
    }

    /// Gives each part that `len` bytes from `at` on touch, with where in the part, and how many bytes went before.
    #[inline]
    fn each(
        &mut self,
        at: usize,
        len: usize,
        mut touch: impl FnMut(&mut BytesMut<'_>, usize, usize) -> usize,
    ) -> usize {
        let (mut begin, mut done, mut copied) = (0, 0, 0);
        for part in self.parts {
            let Descriptor { region, length, offset, .. } = part.descriptor;
            let end = begin + length as usize;
            let place = at.saturating_add(done);
            if place < end && done < len {
                let inside = place - begin;
                done += if part.copy.is_some() {
                    let copy = self.copies.get_mut(copied..copied + length as usize);
                    copy.map_or(0, |copy| touch(&mut BytesMut::from(copy), inside, done))
                } else {
                    let mapping = self.regions.get(usize::from(region)).and_then(Region::mapping);
                    let part = mapping.and_then(|mapping| mapping.bytes_mut(offset, length));
                    part.map_or(0, |mut part| touch(&mut part, inside, done))
                };
            }
            begin = end;
            copied += if part.copy.is_some() { length as usize } else { 0 };
        }
        done
    }
}

#[cfg(test)]
mod tests;
