//! Packet bytes, where others may write them at any time.
//!
//! What is read is copied, and only the copy can be relied on: a peer may change a byte between two looks. So there is no `&[u8]`.

use std::{fmt, marker::PhantomData, ptr::NonNull, sync::atomic::Ordering};

use super::mapping::{byte, word};

/// Bytes to read, in shared memory or in our own.
#[derive(Clone, Copy)]
pub struct Bytes<'a> {
    at: NonNull<u8>,
    len: usize,
    writers: Writers,
    memory: PhantomData<&'a [u8]>,
}

/// Who may write bytes that are read here.
#[derive(Clone, Copy)]
enum Writers {
    /// Anybody, at any time. They can be read and written, and are read by atomic operations.
    Anybody,
    /// Nobody: a shared slice, of which atomic references must not be made.
    Nobody,
}

// SAFETY: reads of borrowed memory that belongs to no thread.
unsafe impl Send for Bytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for Bytes<'_> {}

impl<'a> Bytes<'a> {
    /// # Safety
    /// `len` bytes from `at` can be read and written by atomic operations for `'a`.
    pub(super) const unsafe fn new(at: NonNull<u8>, len: usize) -> Self {
        Self { at, len, writers: Writers::Anybody, memory: PhantomData }
    }

    /// The bytes as the slice that they were made of, if they were.
    #[inline]
    const fn slice(&self) -> Option<&'a [u8]> {
        match self.writers {
            Writers::Anybody => None,
            // SAFETY: a part of a slice that is borrowed for `'a`.
            Writers::Nobody => Some(unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }),
        }
    }

    /// How many.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `from` on, at most `len` of them.
    #[inline]
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> Self {
        let from = from.min(self.len);
        // SAFETY: `from` is inside, or at the end.
        Self { at: unsafe { self.at.add(from) }, len: len.min(self.len - from), ..*self }
    }

    /// Copies as many as both have; tells how many.
    #[inline]
    pub fn copy_to(&self, to: &mut [u8]) -> usize {
        let len = self.len.min(to.len());
        if let Some(slice) = self.slice() {
            to[..len].copy_from_slice(&slice[..len]);
            return len;
        }
        let (mut from, mut to) = (self.at.as_ptr().cast_const(), to.as_mut_ptr());
        // SAFETY: both have `len` bytes, of which each step takes one or eight while that many are left; a word is read where it
        // is aligned. `to` is borrowed exclusively, hence overlaps with nothing that others write.
        unsafe {
            let end = from.add(len);
            while from < end && !from.cast::<u64>().is_aligned() {
                *to = byte(from).load(Ordering::Relaxed);
                (from, to) = (from.add(1), to.add(1));
            }
            while end.offset_from(from) >= 8 {
                to.cast::<u64>().write_unaligned(word(from).load(Ordering::Relaxed));
                (from, to) = (from.add(8), to.add(8));
            }
            while from < end {
                *to = byte(from).load(Ordering::Relaxed);
                (from, to) = (from.add(1), to.add(1));
            }
        }
        len
    }

    /// The bytes, each read once.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = u8> + use<'a> {
        let Self { at, len, .. } = *self;
        let slice = self.slice();
        (0..len).map(move |place| match slice {
            Some(slice) => slice[place],
            // SAFETY: `place` is inside, where atomic operations can read for `'a`.
            None => unsafe { byte(at.as_ptr().add(place)).load(Ordering::Relaxed) },
        })
    }

    /// The first `N` bytes, if there are that many.
    #[inline]
    pub fn first<const N: usize>(&self) -> Option<[u8; N]> {
        let mut copy = [0; N];
        (self.copy_to(&mut copy) == N).then_some(copy)
    }

    /// A copy of all.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len];
        self.copy_to(&mut copy);
        copy
    }

    /// The bytes as a slice, without copying them.
    ///
    /// # Safety
    /// Nobody writes them while the slice lives: neither this process nor the peer, which must be trusted with that.
    #[inline]
    pub const unsafe fn as_trusted_slice(&self) -> &'a [u8] {
        // SAFETY: readable for `'a`, and by the caller not written.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl<'a> From<&'a [u8]> for Bytes<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self { at: NonNull::from(bytes).cast(), len: bytes.len(), writers: Writers::Nobody, memory: PhantomData }
    }
}

impl fmt::Debug for Bytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// Bytes to write, in shared memory or in our own.
pub struct BytesMut<'a> {
    at: NonNull<u8>,
    len: usize,
    memory: PhantomData<&'a mut [u8]>,
}

// SAFETY: as for `Bytes`.
unsafe impl Send for BytesMut<'_> {}
// SAFETY: as for `Bytes`.
unsafe impl Sync for BytesMut<'_> {}

impl BytesMut<'_> {
    /// # Safety
    /// `len` bytes from `at` can be read and written by atomic operations for `'a`.
    pub(super) const unsafe fn new(at: NonNull<u8>, len: usize) -> Self {
        Self { at, len, memory: PhantomData }
    }

    /// How many.
    #[inline]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same bytes, to read.
    #[inline]
    pub const fn bytes(&self) -> Bytes<'_> {
        // SAFETY: what can be written can be read, while `self` is borrowed.
        unsafe { Bytes::new(self.at, self.len) }
    }

    /// The bytes from `from` on, at most `len` of them.
    #[inline]
    #[must_use]
    pub fn part(&mut self, from: usize, len: usize) -> BytesMut<'_> {
        let from = from.min(self.len);
        // SAFETY: `from` is inside, or at the end, and `self` is borrowed as long.
        unsafe { BytesMut::new(self.at.add(from), len.min(self.len - from)) }
    }

    /// Writes the same byte everywhere.
    #[inline]
    pub fn fill(&mut self, with: u8) {
        self.store(0, self.len, |_| with, |_| u64::from_ne_bytes([with; 8]));
    }

    /// Writes as many bytes from `at` on as there is room for; tells how many.
    #[inline]
    pub fn write(&mut self, at: usize, from: &[u8]) -> usize {
        let start = from.as_ptr();
        // SAFETY: nobody writes a borrowed slice, and `store` asks for what is inside.
        self.store(
            at,
            from.len(),
            |done| unsafe { *start.add(done) },
            |done| unsafe { start.add(done).cast::<u64>().read_unaligned() },
        )
    }

    /// The same from bytes that others may write meanwhile.
    #[inline]
    pub fn copy(&mut self, at: usize, from: Bytes<'_>) -> usize {
        if let Some(slice) = from.slice() {
            return self.write(at, slice);
        }
        let start = from.at.as_ptr().cast_const();
        // SAFETY: atomic operations can read and write them, and `store` asks for what is inside.
        self.store(
            at,
            from.len,
            |done| unsafe { byte(start.add(done)).load(Ordering::Relaxed) },
            |done| unsafe { load(start.add(done)) },
        )
    }

    /// Writes `len` bytes from `at` on, as far as there is room. `load_byte` is asked for one of them, `load_word` for eight, by how many
    /// went before: never for more than `len` in all.
    #[inline]
    fn store(
        &mut self,
        at: usize,
        len: usize,
        load_byte: impl Fn(usize) -> u8,
        load_word: impl Fn(usize) -> u64,
    ) -> usize {
        let at = at.min(self.len);
        let len = len.min(self.len - at);
        // SAFETY: there are `len` bytes from here on, of which each step takes one or eight while that many are left; a word is written where
        // it is aligned.
        unsafe {
            let to = self.at.as_ptr().add(at);
            let mut done = 0;
            while done < len && !to.add(done).cast::<u64>().is_aligned() {
                byte(to.add(done)).store(load_byte(done), Ordering::Relaxed);
                done += 1;
            }
            while len - done >= 8 {
                word(to.add(done)).store(load_word(done), Ordering::Relaxed);
                done += 8;
            }
            while done < len {
                byte(to.add(done)).store(load_byte(done), Ordering::Relaxed);
                done += 1;
            }
        }
        len
    }

    /// The bytes as a slice to write, without a copy.
    ///
    /// # Safety
    /// Nobody else reads or writes them while the slice lives: not the peer either, which must be trusted with that.
    #[inline]
    pub const unsafe fn as_trusted_slice(&mut self) -> &mut [u8] {
        // SAFETY: readable and writable while `self` is borrowed, and by the caller touched by nobody else.
        unsafe { std::slice::from_raw_parts_mut(self.at.as_ptr(), self.len) }
    }
}

impl<'a> From<&'a mut [u8]> for BytesMut<'a> {
    fn from(bytes: &'a mut [u8]) -> Self {
        let len = bytes.len();
        // SAFETY: borrowed exclusively for `'a`.
        unsafe { Self::new(NonNull::from(bytes).cast(), len) }
    }
}

impl fmt::Debug for BytesMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

/// Eight bytes from anywhere.
///
/// # Safety
/// They can be read and written by atomic operations.
#[inline]
unsafe fn load(from: *const u8) -> u64 {
    // SAFETY: by the caller; a word is read where it is aligned.
    unsafe {
        if from.cast::<u64>().is_aligned() {
            return word(from).load(Ordering::Relaxed);
        }
        u64::from_ne_bytes(std::array::from_fn(|place| byte(from.add(place)).load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn copies_are_copies(
            bytes in proptest::collection::vec(any::<u8>(), 0..200), from in 0..9_usize, at in 0..9_usize, room in 0..200_usize
        ) {
            // Once as a slice of our own, once as if others might write it.
            let mut shared = bytes.clone();
            let shared = BytesMut::from(shared.as_mut_slice());
            let all = [Bytes::from(bytes.as_slice()), shared.bytes()];
            for source in all {
                let source = source.part(from, usize::MAX);
                let expected = &bytes[from.min(bytes.len())..];
                prop_assert_eq!(source.to_vec(), expected);
                let mut memory = vec![0; room];
                let mut target = BytesMut::from(memory.as_mut_slice());
                let copied = target.copy(at, source);
                let written = target.write(at, expected);
                prop_assert_eq!(copied, written);
                prop_assert_eq!(copied, expected.len().min(room.saturating_sub(at)));
                prop_assert_eq!(&memory[at.min(room)..][..copied], &expected[..copied]);
                prop_assert!(memory[at.min(room) + copied..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn too_few_are_told() {
        let bytes = Bytes::from([1, 2, 3].as_slice());
        assert_eq!(bytes.first::<2>(), Some([1, 2]));
        assert_eq!(bytes.first::<4>(), None);
        assert_eq!(bytes.part(2, 9).to_vec(), [3]);
        assert_eq!(bytes.part(9, 9).to_vec(), []);
    }
}
