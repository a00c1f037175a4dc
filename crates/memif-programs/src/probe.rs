//! The generator's packets: a number and the time, so that loss and latency can be told where they arrive.

use memif::{Mode, NotTaken, TxBurst};

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

/// So much of a probe is put together before it is written: memory that is shared is written by whole words where places are aligned.
const HEAD: usize = 64;

/// Probes of one length, of which only the mark differs: a header, a mark, and zeroes.
#[derive(Debug, Clone)]
pub struct Template {
    head: [u8; HEAD],
    mark: usize,
    length: usize,
}

impl Template {
    /// Of `length` bytes, or as many as a mark needs. In IP mode it is UDP between the addresses for documentation (RFC 5737), without a
    /// checksum, which IPv4 allows.
    pub fn new(mode: Mode, length: usize) -> Self {
        let length = length.clamp(shortest(mode), LONGEST);
        let mut head = [0; HEAD];
        match mode {
            Mode::Ethernet => {
                head[..6].copy_from_slice(&DESTINATION);
                head[6..12].copy_from_slice(&SOURCE);
                head[12..14].copy_from_slice(&ETHERTYPE);
            }
            Mode::Ip | Mode::PuntInject => {
                let size = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
                head[..2].copy_from_slice(&[0x45, 0]);
                head[2..4].copy_from_slice(&size(length));
                head[8..10].copy_from_slice(&[64, 17]);
                head[12..20].copy_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
                let sum = checksum::finish(checksum::add(0, &head[..20]));
                head[10..12].copy_from_slice(&sum);
                head[20..22].copy_from_slice(&PORT);
                head[22..24].copy_from_slice(&PORT);
                head[24..26].copy_from_slice(&size(length - 20));
            }
        }
        Self { head, mark: offset(mode), length }
    }

    /// Writes a probe where it will be read.
    ///
    /// # Errors
    /// There is no room for it.
    #[inline]
    pub fn put(&self, burst: &mut TxBurst<'_>, mark: Mark) -> Result<(), NotTaken> {
        let mut frame = burst.reserve(self.length)?;
        let mut head = self.head;
        head[self.mark..self.mark + MARK].copy_from_slice(&mark.bytes());
        frame.write(0, &head[..self.length.min(HEAD)]);
        frame.fill(HEAD, self.length.saturating_sub(HEAD), 0);
        Ok(())
    }
}

impl Mark {
    fn bytes(self) -> [u8; MARK] {
        let mut bytes = [0; MARK];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.stream.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.sent_ns.to_be_bytes());
        bytes
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

    /// Two ends of an interface with few slots, which are soon used again.
    fn pair() -> (memif::Connection, memif::Connection) {
        let dir = tempfile::tempdir().unwrap();
        let address = memif::Address::path(dir.path().join("memif.sock")).unwrap();
        let listener = memif::Listener::bind(&address).unwrap();
        let port = listener.add(memif::Server::new(0)).unwrap();
        let rings = memif::Rings::default().slots(8).unwrap();
        let soon = std::time::Duration::from_secs(20);
        let near = memif::Client::new(address).rings(rings).connect(soon).unwrap();
        (near, port.accept(soon).unwrap().unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]


        #[test]
        fn a_probe_is_read_as_written(
            ip in any::<bool>(), length in 0..5000_usize, stream in any::<u32>(), number in any::<u64>(), sent_ns in any::<u64>()
        ) {
            let mode = if ip { Mode::Ip } else { Mode::Ethernet };
            let mark = Mark { stream, number, sent_ns };
            let (mut near, mut far) = pair();
            for dirt in [0xff, 0] {
                let template = Template::new(mode, length);
                let mut burst = near.tx[0].burst().unwrap();
                burst.push(&[dirt; 5000]).unwrap();
                template.put(&mut burst, mark).unwrap();
                burst.send().unwrap();
                let packets = far.rx[0].burst(2).unwrap();
                let packet = packets.iter().nth(1).unwrap().to_vec();
                prop_assert_eq!(read(&packet, mode), Some(mark));
                prop_assert_eq!(packet.len(), length.max(shortest(mode)));
                prop_assert!(packet[shortest(mode)..].iter().all(|byte| *byte == 0));
            }
        }

        #[test]
        fn whatever_comes_is_read_or_is_none(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (read(&bytes, Mode::Ip), read(&bytes, Mode::Ethernet));
        }
    }

    #[test]
    fn the_ip_header_has_its_checksum() {
        assert_eq!(checksum::finish(checksum::add(0, &Template::new(Mode::Ip, 100).head[..20])), [0, 0]);
    }
}
