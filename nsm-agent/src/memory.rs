//! How this program takes memory from the system, and gives it back.
#![expect(unsafe_code, reason = "glibc's mallopt and malloc_trim have no safe wrappers")]

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::libc;

use crate::state::blocking;

/// How long after something big was let go what was free by then goes back.
const SOON: Duration = Duration::from_secs(1);

/// One arena for all threads: the agent is rarely busy on more than a few, and an arena per thread keeps for ever what one burst
/// of ADDs needed. To be called before the first thread starts.
pub fn keep_small() {
    // SAFETY: mallopt takes two numbers and no other thread allocates yet (mallopt(3), MT-Safe init).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // What is free at the top goes back from 128 KiB on, whatever was allocated before.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}

/// Something big is about to be let go, a list that was read or answered: what is free a moment later goes back to the system. By
/// itself only what is free at the top does, and what stays of a list lies between what does not.
pub(crate) fn give_back_soon() {
    static UNDER_WAY: AtomicBool = AtomicBool::new(false);
    if UNDER_WAY.swap(true, Ordering::AcqRel) {
        return;
    }
    tokio::spawn(async {
        tokio::time::sleep(SOON).await;
        // Before the work: what is let go from now on asks anew.
        UNDER_WAY.store(false, Ordering::Release);
        blocking(|| {
            // SAFETY: malloc_trim takes a number and may be called at any time (malloc_trim(3), MT-Safe).
            unsafe { libc::malloc_trim(0) };
        })
        .await;
    });
}
