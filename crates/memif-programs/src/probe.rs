//! The generator's packets: a number and the time, so that loss and latency can be told where they arrive.

use memif::Mode;

use crate::checksum;

/// IEEE 802's local experimental Ethertype 1.
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];
const DESTINATION: [u8; 6] = [0x02, 0xfe, 0x6d, 0x65, 0x6d, 0x02];
const SOURCE: [u8; 6] = [0x02, 0xfe, 0x6d, 0x65, 0x6d, 0x01];
const MAGIC: [u8; 4] = *b"mgen";
/// Bytes of magic, stream, number and time.
const MARK: usize = 24;
/// Discard (RFC 863).
const PORT: [u8; 2] = [0, 9];

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Which generator's.
    pub stream: u32,
    /// Its number, from 0.
    pub number: u64,
    /// When it was sent, in nanoseconds of the machine's monotonic clock.
    pub sent_ns: u64,
}

/// Where the mark begins.
const fn offset(mode: Mode) -> usize {
    match mode {
        Mode::Ethernet => 14,
        Mode::Ip | Mode::PuntInject => 28,
    }
}

/// The shortest probe.
pub const fn shortest(mode: Mode) -> usize {
    offset(mode) + MARK
}

/// The longest probe: what an IPv4 header can say.
pub const LONGEST: usize = 65535;

/// A probe of `length` bytes, in which only the mark is still missing. In IP mode it is UDP between the addresses for documentation
/// (RFC 5737), without a checksum, which IPv4 allows.
pub fn template(mode: Mode, length: usize) -> Vec<u8> {
    let mut packet = vec![0; length.clamp(shortest(mode), LONGEST)];
    match mode {
        Mode::Ethernet => {
            packet[..6].copy_from_slice(&DESTINATION);
            packet[6..12].copy_from_slice(&SOURCE);
            packet[12..14].copy_from_slice(&ETHERTYPE);
        }
        Mode::Ip | Mode::PuntInject => {
            let size = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
            let total = size(packet.len());
            packet[..2].copy_from_slice(&[0x45, 0]);
            packet[2..4].copy_from_slice(&total);
            packet[8..10].copy_from_slice(&[64, 17]);
            packet[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
            let sum = checksum::finish(checksum::add(0, &packet[..20]));
            packet[10..12].copy_from_slice(&sum);
            packet[20..22].copy_from_slice(&PORT);
            packet[22..24].copy_from_slice(&PORT);
            let udp = size(packet.len() - 20);
            packet[24..26].copy_from_slice(&udp);
        }
    }
    packet
}

/// Writes the mark into a template.
#[inline]
pub fn write(packet: &mut [u8], mode: Mode, mark: Mark) {
    if let Some(place) = packet.get_mut(offset(mode)..shortest(mode)) {
        place[..4].copy_from_slice(&MAGIC);
        place[4..8].copy_from_slice(&mark.stream.to_be_bytes());
        place[8..16].copy_from_slice(&mark.number.to_be_bytes());
        place[16..24].copy_from_slice(&mark.sent_ns.to_be_bytes());
    }
}

/// Reads the mark of a packet, if it is a probe.
#[inline]
pub fn read(packet: &[u8], mode: Mode) -> Option<Mark> {
    let place = packet.get(offset(mode)..shortest(mode))?;
    let (magic, rest) = place.split_first_chunk::<4>()?;
    let (stream, rest) = rest.split_first_chunk::<4>()?;
    let (number, rest) = rest.split_first_chunk::<8>()?;
    let sent_ns = u64::from_be_bytes(*rest.first_chunk::<8>()?);
    (*magic == MAGIC).then(|| Mark {
        stream: u32::from_be_bytes(*stream),
        number: u64::from_be_bytes(*number),
        sent_ns,
    })
}

/// The machine's monotonic clock.
#[inline]
pub fn now_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| now.tv_sec().cast_unsigned() * 1_000_000_000 + now.tv_nsec().cast_unsigned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_mark_is_read_as_written(
            ip in any::<bool>(), length in 0..3000_usize, stream in any::<u32>(), number in any::<u64>(), sent_ns in any::<u64>()
        ) {
            let mode = if ip { Mode::Ip } else { Mode::Ethernet };
            let mark = Mark { stream, number, sent_ns };
            let mut packet = template(mode, length);
            prop_assert_eq!(read(&packet, mode), None);
            write(&mut packet, mode, mark);
            prop_assert_eq!(read(&packet, mode), Some(mark));
            prop_assert_eq!(packet.len(), length.max(shortest(mode)));
        }

        #[test]
        fn whatever_comes_is_read_or_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (read(&bytes, Mode::Ip), read(&bytes, Mode::Ethernet));
        }
    }

    #[test]
    fn the_ip_header_has_its_checksum() {
        assert_eq!(checksum::finish(checksum::add(0, &template(Mode::Ip, 100)[..20])), [0, 0]);
    }
}
