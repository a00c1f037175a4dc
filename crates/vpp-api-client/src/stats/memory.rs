//! The segment's bytes, read by system calls: a mapping would end the process if the file were cut, which nothing rules out. What VPP writes
//! into its own mapping is what is read here, as both are the same pages. The kernel copies by words or more on the machines that VPP runs on; that a
//! counter is never seen half written is no promise of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering, fence};

/// What a pass may read, in sizes of the segment: vectors that lie over one another hold no more than one of them.
const PASSES: u64 = 4;
/// On top, for links that read a column of many vectors.
const SPARE: u64 = 16 << 20;

#[derive(Debug)]
pub(super) struct Memory {
    file: File,
    length: u64,
    left: AtomicU64,
}

impl Memory {
    pub(super) fn new(file: File) -> io::Result<Self> {
        let length = file.metadata()?.len();
        Ok(Self { file, length, left: AtomicU64::new(0) })
    }

    pub(super) fn len(&self) -> u64 {
        self.length
    }

    /// From here on what one pass may read counts anew.
    pub(super) fn begin(&self) {
        self.left.store(self.length.saturating_mul(PASSES).saturating_add(SPARE), Ordering::Relaxed);
    }

    /// What was read before this is older than what is read after it.
    pub(super) fn fence() {
        fence(Ordering::SeqCst);
    }

    pub(super) fn bytes(&self, at: u64, count: usize) -> Result<Vec<u8>, ()> {
        let wanted = u64::try_from(count).map_err(|_| ())?;
        if at.checked_add(wanted).is_none_or(|end| end > self.length) {
            return Err(());
        }
        let left = self.left.load(Ordering::Relaxed).checked_sub(wanted).ok_or(())?;
        self.left.store(left, Ordering::Relaxed);
        let mut bytes = vec![0; count];
        self.file.read_exact_at(&mut bytes, at).map_err(|_| ())?;
        Ok(bytes)
    }

    pub(super) fn word(&self, at: u64) -> Result<u64, ()> {
        let bytes = self.bytes(at, 8)?;
        bytes.try_into().map(u64::from_ne_bytes).map_err(|_| ())
    }

    pub(super) fn half(&self, at: u64) -> Result<u32, ()> {
        let bytes = self.bytes(at, 4)?;
        bytes.try_into().map(u32::from_ne_bytes).map_err(|_| ())
    }
}
