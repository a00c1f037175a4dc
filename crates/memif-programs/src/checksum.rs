//! The internet checksum (RFC 1071).

/// Of these bytes, after what `sum` has from others. Each part but the last has an even length.
pub fn add(sum: u32, bytes: &[u8]) -> u32 {
    let (pairs, rest) = bytes.as_chunks::<2>();
    let sum = pairs.iter().fold(sum, |sum, pair| fold(sum + u32::from(u16::from_be_bytes(*pair))));
    rest.first().map_or(sum, |last| fold(sum + u32::from(u16::from_be_bytes([*last, 0]))))
}

fn fold(sum: u32) -> u32 {
    (sum & 0xffff) + (sum >> 16)
}

/// The field's value.
pub fn finish(sum: u32) -> [u8; 2] {
    let [_, _, high, low] = fold(fold(sum)).to_be_bytes();
    [!high, !low]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_its_checksum_sums_up_to_nothing() {
        // The example of RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(finish(add(0, &bytes)), [0x22, 0x0d]);
        let mut odd = vec![1, 2, 3, 4, 0, 0, 7];
        let sum = finish(add(0, &odd));
        odd[4..6].copy_from_slice(&sum);
        assert_eq!(finish(add(0, &odd)), [0, 0]);
    }
}
