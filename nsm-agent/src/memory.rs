//! How this program takes memory from the system.
#![expect(unsafe_code, reason = "glibc's mallopt has no safe wrapper")]

use nix::libc;

/// One arena for all threads: the agent is rarely busy on more than a few, and an arena per thread keeps for ever what one burst
/// of ADDs needed. To be called before the first thread starts.
pub(crate) fn keep_small() {
    // SAFETY: mallopt takes two numbers and no other thread allocates yet (mallopt(3), MT-Safe init).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // What is free at the top goes back from 128 KiB on, whatever was allocated before.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 128 << 10);
    }
}
