//! The fuzz targets of this crate, without a fuzzer: over bytes that come close to what they read.

use proptest::{collection::vec, prelude::*};

/// Bytes of mostly small numbers: most other values are refused at once.
fn bytes(length: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![4 => Just(0), 3 => 0..16_u8, 1 => any::<u8>()], 0..length)
}

proptest! {
    #[test]
    fn control_messages(parts in vec((any::<u8>(), 0..10_u8, bytes(127)), 0..12)) {
        let mut all = Vec::new();
        for (file, kind, body) in parts {
            let mut message = vec![file, kind, 0];
            message.extend(body);
            message.resize(129, 0);
            all.extend(message);
        }
        memif::fuzzing::control(&all);
    }

    #[test]
    fn memory(data in bytes(2048)) {
        memif::fuzzing::memory(&data);
    }
}
