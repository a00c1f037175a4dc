//! What a queue has done, readable from any thread.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Totals of a queue since its connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// Packets received or sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packets received that were none: outside of the memory, empty, too long, or a chain without end.
    pub invalid: u64,
    /// Packets not sent for want of a free slot.
    pub full: u64,
    /// Times that the peer was signalled.
    pub signals: u64,
}

/// One writer, any number of readers.
#[derive(Debug, Default)]
struct Cells {
    packets: AtomicU64,
    bytes: AtomicU64,
    invalid: AtomicU64,
    full: AtomicU64,
    signals: AtomicU64,
}

/// A handle on a queue's totals.
#[derive(Debug, Clone, Default)]
pub struct Counters(Arc<Cells>);

impl Counters {
    /// The totals as they are now.
    pub fn read(&self) -> Statistics {
        let Cells { packets, bytes, invalid, full, signals } = &*self.0;
        Statistics {
            packets: packets.load(Relaxed),
            bytes: bytes.load(Relaxed),
            invalid: invalid.load(Relaxed),
            full: full.load(Relaxed),
            signals: signals.load(Relaxed),
        }
    }

    /// Called by the queue that they belong to alone.
    #[inline]
    pub(crate) fn add(&self, more: Statistics) {
        let add = |cell: &AtomicU64, more: u64| {
            if more > 0 {
                cell.store(cell.load(Relaxed).wrapping_add(more), Relaxed);
            }
        };
        add(&self.0.packets, more.packets);
        add(&self.0.bytes, more.bytes);
        add(&self.0.invalid, more.invalid);
        add(&self.0.full, more.full);
        add(&self.0.signals, more.signals);
    }
}
