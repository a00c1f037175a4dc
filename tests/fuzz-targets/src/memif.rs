//! What the other end of a shared-memory interface says and writes.

/// Messages of the control channel, taken by both roles.
pub fn memif_control(data: &[u8]) {
    ::memif::fuzzing::control(data);
}

/// Indices, descriptors and flags in shared memory, which both roles receive from and send to.
pub fn memif_memory(data: &[u8]) {
    ::memif::fuzzing::memory(data);
}
