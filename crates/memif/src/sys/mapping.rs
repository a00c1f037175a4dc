//! Memory of a file, mapped.

use std::{
    io,
    os::fd::AsFd,
    ptr::{self, NonNull},
    sync::atomic::{AtomicU8, AtomicU64},
};

use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use super::{Bytes, BytesMut};

/// Mapped memory, shared with whoever has the file.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory belongs to no thread, and is touched by atomic operations alone.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len` bytes of a file. They must not go away while they are mapped: see [`crate::memory`], the one caller.
    pub(crate) fn of_file(file: impl AsFd, len: u64) -> io::Result<Self> {
        let len = mappable(len)?;
        // SAFETY: the kernel chooses a place where nothing is mapped.
        let base =
            unsafe { mmap(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, file, 0) }?;
        Self::new(base.cast(), len)
    }

    /// Memory of this process alone, zeroed.
    pub(crate) fn private(len: u64) -> io::Result<Self> {
        let len = mappable(len)?;
        // SAFETY: the kernel chooses a place where nothing is mapped.
        let base =
            unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
        Self::new(base.cast(), len)
    }

    fn new(base: *mut u8, len: usize) -> io::Result<Self> {
        let base = NonNull::new(base).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(Self { base, len })
    }

    /// Bytes to read, if they lie inside.
    pub(crate) fn bytes(&self, offset: u32, len: u32) -> Option<Bytes<'_>> {
        let place = self.place(offset.into(), len.into())?;
        // SAFETY: `place` has `len` bytes, which the borrow keeps mapped.
        Some(unsafe { Bytes::new(place, len as usize) })
    }

    /// Bytes to write, if they lie inside. Others may write them too: what is written is no promise about what is read.
    pub(crate) fn bytes_mut(&self, offset: u32, len: u32) -> Option<BytesMut<'_>> {
        let place = self.place(offset.into(), len.into())?;
        // SAFETY: `place` has `len` bytes, which the borrow keeps mapped.
        Some(unsafe { BytesMut::new(place, len as usize) })
    }

    /// Where `len` bytes from `offset` begin, if they lie inside.
    #[inline]
    pub(super) fn place(&self, offset: u64, len: u64) -> Option<NonNull<u8>> {
        if offset.checked_add(len)? > self.len as u64 {
            return None;
        }
        // SAFETY: `offset` is at most the length of the mapping.
        Some(unsafe { self.base.add(usize::try_from(offset).ok()?) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `of_file` or `private` with this length, and unmapped nowhere else; what points into it borrows it or
        // keeps it alive.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

fn mappable(len: u64) -> io::Result<usize> {
    match usize::try_from(len) {
        // The largest object of a program; more could not be addressed by offsets.
        Ok(len) if len > 0 && isize::try_from(len).is_ok() => Ok(len),
        Ok(_) | Err(_) => Err(io::Error::other(format!("{len} bytes cannot be mapped"))),
    }
}

/// A byte of memory that others may write.
///
/// # Safety
/// `at` can be read and written for `'a`.
#[inline]
pub(super) unsafe fn byte<'a>(at: *const u8) -> &'a AtomicU8 {
    // SAFETY: by the caller; a byte is aligned everywhere.
    unsafe { &*at.cast::<AtomicU8>() }
}

/// Eight bytes of memory that others may write.
///
/// # Safety
/// They can be read and written for `'a`, and `at` is aligned to 8.
#[inline]
pub(super) unsafe fn word<'a>(at: *const u8) -> &'a AtomicU64 {
    debug_assert!(at.cast::<u64>().is_aligned());
    // SAFETY: by the caller.
    unsafe { &*at.cast::<AtomicU64>() }
}
