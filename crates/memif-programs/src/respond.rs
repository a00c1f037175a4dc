//! What a host at some addresses answers: who has them (ARP, neighbour discovery) and pings.
//!
//! Guarantees: whatever the bytes, it answers nothing or one packet, never longer than a received one and 42 bytes; what is not for these
//! addresses, or is broken, is not answered. What comes back as it came is not copied before the answer is sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use memif::{Mode, NotTaken, TxBurst};

use crate::checksum::{add, finish};

const ETHERNET: usize = 14;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Ethernet, IPv4, six and four bytes.
const ARP_FIXED: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// A host with addresses.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<'a> {
    /// What is new.
    head: Vec<u8>,
    /// What of the packet follows as it is.
    tail: &'a [u8],
}

impl Answer<'_> {
    /// Writes it where the peer reads it.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn put(&self, burst: &mut TxBurst<'_>) -> Result<(), NotTaken> {
        let mut frame = burst.reserve(self.head.len() + self.tail.len())?;
        frame.write(0, &self.head);
        frame.write(self.head.len(), self.tail);
        Ok(())
    }

    /// Behind something else.
    fn after(self, before: &[&[u8]]) -> Self {
        Self { head: [&before.concat(), self.head.as_slice()].concat(), ..self }
    }
}

impl Host {
    fn is_v4(&self, address: &[u8]) -> bool {
        <[u8; 4]>::try_from(address).is_ok_and(|address| self.addresses.contains(&Ipv4Addr::from(address).into()))
    }

    fn is_v6(&self, address: &[u8]) -> bool {
        <[u8; 16]>::try_from(address).is_ok_and(|address| self.addresses.contains(&Ipv6Addr::from(address).into()))
    }

    /// What it answers.
    pub fn answer<'a>(&self, packet: &'a [u8], mode: Mode) -> Option<Answer<'a>> {
        if mode != Mode::Ethernet {
            return match packet.first()? >> 4 {
                4 => self.echo_v4(packet),
                6 => self.echo_v6(packet),
                _ => None,
            };
        }
        let (header, body) = packet.split_at_checked(ETHERNET)?;
        let (destination, rest) = header.split_at(6);
        // To us, or to many.
        if destination != self.mac && destination[0] & 1 == 0 {
            return None;
        }
        let (source, kind) = rest.split_at(6);
        let body = match <[u8; 2]>::try_from(kind).ok()? {
            ARP => self.arp(body)?,
            IPV4 => self.echo_v4(body)?,
            IPV6 => self.neighbour(body).or_else(|| self.echo_v6(body))?,
            _ => return None,
        };
        Some(body.after(&[source, &self.mac, kind]))
    }

    fn arp<'a>(&self, body: &'a [u8]) -> Option<Answer<'a>> {
        let body = body.get(..28)?;
        let (sender, wanted) = (&body[8..18], &body[24..28]);
        if body[..6] != ARP_FIXED || body[6..8] != [0, 1] || !self.is_v4(wanted) {
            return None;
        }
        Some(Answer { head: [&ARP_FIXED[..], &[0, 2], self.mac.as_slice(), wanted].concat(), tail: sender })
    }

    fn echo_v4<'a>(&self, body: &'a [u8]) -> Option<Answer<'a>> {
        let header = usize::from(body.first()? & 0xf) * 4;
        let total = usize::from(u16::from_be_bytes([*body.get(2)?, *body.get(3)?]));
        // Ethernet pads short frames.
        let body = body.get(..total)?;
        if header < 20 || total < header + 8 || body[0] >> 4 != 4 || finish(add(0, &body[..header])) != [0, 0] {
            return None;
        }
        let fragment = u16::from_be_bytes([body[6], body[7]]) & 0x3fff != 0;
        let (source, destination) = (&body[12..16], &body[16..20]);
        let message = &body[header..];
        if body[9] != 1
            || fragment
            || !self.is_v4(destination)
            || message[..2] != [8, 0]
            || finish(add(0, message)) != [0, 0]
        {
            return None;
        }
        let (head, tail) = body.split_at(header + 4);
        let mut head = head.to_vec();
        head[8] = 64;
        head[12..16].copy_from_slice(destination);
        head[16..20].copy_from_slice(source);
        head[10..12].fill(0);
        let sum = finish(add(0, &head[..header]));
        head[10..12].copy_from_slice(&sum);
        // An echo reply's type is 0.
        let sum = finish(add(0, tail));
        head[header..].copy_from_slice(&[0, 0, sum[0], sum[1]]);
        Some(Answer { head, tail })
    }

    /// The ICMPv6 message of a packet without extension headers, with its addresses.
    fn icmp_v6(packet: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
        let (header, rest) = packet.split_at_checked(40)?;
        let message = rest.get(..usize::from(u16::from_be_bytes([header[4], header[5]])))?;
        let good = header[0] >> 4 == 6 && header[6] == 58 && message.len() >= 8;
        let (source, destination) = (&header[8..24], &header[24..40]);
        (good && sum_v6(source, destination, [message, &[]]) == [0, 0]).then_some((source, destination, message))
    }

    fn echo_v6<'a>(&self, packet: &'a [u8]) -> Option<Answer<'a>> {
        let (source, destination, message) = Self::icmp_v6(packet)?;
        if !self.is_v6(destination) || message[..2] != [128, 0] {
            return None;
        }
        Some(Answer { head: packet_v6(destination, source, 64, &[129, 0, 0, 0], &message[4..]), tail: &message[4..] })
    }

    /// A neighbour solicitation (RFC 4861) is answered with an advertisement: solicited, override, with our address.
    fn neighbour<'a>(&self, packet: &'a [u8]) -> Option<Answer<'a>> {
        let (source, _, message) = Self::icmp_v6(packet)?;
        let target = message.get(8..24)?;
        // A hop limit of less than 255 comes from elsewhere; a source of zeroes looks for duplicates.
        if packet[7] != 255 || message[..2] != [135, 0] || !self.is_v6(target) || source.iter().all(|byte| *byte == 0) {
            return None;
        }
        let answer = [&[136, 0, 0, 0, 0x60, 0, 0, 0], target, &[2, 1], &self.mac].concat();
        Some(Answer { head: packet_v6(target, source, 255, &answer, &[]), tail: &[] })
    }
}

/// Of an ICMPv6 message in two parts, the first of which has an even length.
fn sum_v6(source: &[u8], destination: &[u8], message: [&[u8]; 2]) -> [u8; 2] {
    let length = message.iter().map(|part| part.len()).sum::<usize>();
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    let [first, second] = message;
    finish([source, destination, &length, &[0, 0, 0, 58], first, second].iter().fold(0, |sum, part| add(sum, part)))
}

/// A packet up to the end of its message's first part, with the checksum of both.
fn packet_v6(source: &[u8], destination: &[u8], hops: u8, first: &[u8], second: &[u8]) -> Vec<u8> {
    let mut first = first.to_vec();
    first[2..4].fill(0);
    let sum = sum_v6(source, destination, [&first, second]);
    first[2..4].copy_from_slice(&sum);
    let length = u16::try_from(first.len() + second.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x60, 0, 0, 0], length.as_slice(), &[58, hops], source, destination, &first].concat()
}

#[cfg(test)]
mod tests;
