//! Captures in libpcap's file format, with nanoseconds.

use std::{
    io::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use memif::{Mode, Packet};

const MAGIC_NANOSECONDS: u32 = 0xa1b2_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;
/// LINKTYPE_RAW: IPv4 or IPv6.
const RAW: u32 = 101;

/// Writes a capture.
#[derive(Debug)]
pub struct Capture<W> {
    to: W,
    longest: u32,
    buffer: Vec<u8>,
}

impl<W: Write> Capture<W> {
    /// Begins a capture of packets that are cut at `longest` bytes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut to: W, mode: Mode, longest: u32) -> io::Result<Self> {
        let link = if mode == Mode::Ethernet { ETHERNET } else { RAW };
        for word in [MAGIC_NANOSECONDS, u32::from_ne_bytes(version()), 0, 0, longest, link] {
            to.write_all(&word.to_ne_bytes())?;
        }
        Ok(Self { to, longest, buffer: vec![0; longest as usize] })
    }

    /// Adds a packet.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn packet(&mut self, packet: &Packet<'_>, at: SystemTime) -> io::Result<()> {
        let kept = packet.copy_to(&mut self.buffer);
        self.record(kept, packet.len(), at)
    }

    fn record(&mut self, kept: usize, length: usize, at: SystemTime) -> io::Result<()> {
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let word = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default().to_ne_bytes();
        debug_assert!(kept <= self.longest as usize);
        for word in [word(at.as_secs()), at.subsec_nanos().to_ne_bytes(), word(kept as u64), word(length as u64)] {
            self.to.write_all(&word)?;
        }
        self.to.write_all(&self.buffer[..kept])
    }

    /// Makes what was added visible.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// 2.4 as two halves in this machine's order.
fn version() -> [u8; 4] {
    let ([a, b], [c, d]) = (2_u16.to_ne_bytes(), 4_u16.to_ne_bytes());
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_capture_is_as_readers_expect_it() {
        let mut bytes = Vec::new();
        let mut capture = Capture::new(&mut bytes, Mode::Ip, 4).unwrap();
        capture.buffer.copy_from_slice(b"abcd");
        capture.record(4, 60, UNIX_EPOCH + Duration::new(7, 9)).unwrap();
        capture.flush().unwrap();
        let header = [0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 101, 0, 0, 0];
        assert_eq!(bytes[..24], header);
        assert_eq!(bytes[24..40], [7, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 60, 0, 0, 0]);
        assert_eq!(&bytes[40..], b"abcd");
    }
}
