use std::sync::Arc;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::sys::Mapping;

/// What is done to a frame.
#[derive(Debug, Clone)]
enum Deed {
    Write(usize, Vec<u8>),
    Copy(usize, Vec<u8>),
    Fill(usize, usize, u8),
}

fn deed() -> impl Strategy<Value = Deed> {
    let at = 0..150_usize;
    let bytes = vec(any::<u8>(), 0..100);
    prop_oneof![
        (at.clone(), bytes.clone()).prop_map(|(at, bytes)| Deed::Write(at, bytes)),
        (at.clone(), bytes).prop_map(|(at, bytes)| Deed::Copy(at, bytes)),
        (prop_oneof![at, Just(usize::MAX)], 0..100_usize, any::<u8>())
            .prop_map(|(at, len, byte)| Deed::Fill(at, len, byte)),
    ]
}

proptest! {
    /// Buffers of any length, mapped or guarded, with a gap between each two.
    #[test]
    fn a_frame_is_one_piece_and_nothing_else_is_touched(
        lengths in vec((1..40_u32, any::<bool>()), 1..5), deeds in vec(deed(), 1..8)
    ) {
        const GAP: u32 = 3;
        let mapping = Arc::new(Mapping::private(4096).unwrap());
        // Nobody writes to it before the burst is sent.
        let file = tempfile::tempfile().unwrap();
        let regions =
            [Region::Mapped { mapping: Arc::clone(&mapping), size: 4096 }, Region::Guarded { file, size: 4096 }];
        let (mut offset, mut copied, mut parts) = (GAP, 0, Vec::new());
        for (length, guarded) in lengths {
            let descriptor = Descriptor { more: true, region: guarded.into(), length, offset };
            parts.push(Staged { descriptor, copy: guarded.then_some(copied) });
            offset += length + GAP;
            copied += if guarded { length } else { 0 };
        }
        let length = parts.iter().map(|part| part.descriptor.length as usize).sum();
        let (mut model, mut copies) = (vec![0; length], vec![0; copied as usize]);
        let mut frame = Frame::new(&parts, &regions, &mut copies, length);
        for deed in deeds {
            let (at, bytes) = match &deed {
                Deed::Write(at, bytes) | Deed::Copy(at, bytes) => (*at, bytes.clone()),
                Deed::Fill(at, len, byte) => (*at, vec![*byte; *len]),
            };
            let done = match &deed {
                Deed::Write(..) => frame.write(at, &bytes),
                Deed::Copy(..) => frame.copy(at, Bytes::from(bytes.as_slice())),
                Deed::Fill(_, len, byte) => frame.fill(at, *len, *byte),
            };
            let at = at.min(length);
            prop_assert_eq!(done, bytes.len().min(length - at));
            model[at..at + done].copy_from_slice(&bytes[..done]);
        }
        let mut back = vec![0; length + 1];
        prop_assert_eq!(frame.read(0, &mut back), length);
        prop_assert_eq!(&back[..length], &model);
        let lengths: Vec<_> = frame.parts().map(|part| part.len()).collect();
        prop_assert_eq!(lengths, parts.iter().map(|part| part.descriptor.length as usize).collect::<Vec<_>>());
        let all: Vec<u8> = frame.parts().flat_map(|part| part.bytes().iter().collect::<Vec<_>>()).collect();
        prop_assert_eq!(&all, &model);
        // The rest of the memory is as it was.
        let touched = |place: u32| {
            parts.iter().any(|Staged { descriptor, copy }| {
                copy.is_none() && (descriptor.offset..descriptor.offset + descriptor.length).contains(&place)
            })
        };
        let memory = mapping.bytes(0, 4096).unwrap();
        prop_assert!((0..).zip(memory.iter()).all(|(place, byte)| byte == 0 || touched(place)));
    }
}
