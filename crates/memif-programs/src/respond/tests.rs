use proptest::prelude::*;

use super::*;

const ME: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEM: [u8; 6] = [2, 0, 0, 0, 0, 2];

fn host() -> Host {
    Host { mac: ME, addresses: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()] }
}

/// The answer as a packet.
fn answer(packet: &[u8], mode: Mode) -> Option<Vec<u8>> {
    host().answer(packet, mode).map(|Answer { head, tail }| [&head, tail].concat())
}

fn v6(text: &str) -> [u8; 16] {
    text.parse::<Ipv6Addr>().unwrap().octets()
}

fn ping_v4(destination: [u8; 4]) -> Vec<u8> {
    let mut icmp = vec![8, 0, 0, 0, 0, 7, 0, 1, b'h', b'i', b'!'];
    let sum = finish(add(0, &icmp));
    icmp[2..4].copy_from_slice(&sum);
    let total = u8::try_from(20 + icmp.len()).unwrap();
    let mut header = vec![0x45, 0, 0, total, 0, 1, 0x40, 0, 30, 1, 0, 0, 10, 0, 0, 2];
    header.extend(destination);
    let sum = finish(add(0, &header));
    header[10..12].copy_from_slice(&sum);
    [header, icmp].concat()
}

fn frame(kind: [u8; 2], body: &[u8]) -> Vec<u8> {
    [&ME, &THEM, kind.as_slice(), body].concat()
}

#[test]
fn pings_are_answered_with_their_data() {
    let mut padded = frame(IPV4, &ping_v4([10, 0, 0, 1]));
    padded.resize(60, 0);
    let said = answer(&padded, Mode::Ethernet).unwrap();
    assert_eq!((&said[..6], &said[6..12], said.len()), (THEM.as_slice(), ME.as_slice(), 14 + 31));
    let packet = &said[14..];
    assert_eq!((&packet[12..20], packet[20]), ([10, 0, 0, 1, 10, 0, 0, 2].as_slice(), 0));
    assert_eq!((finish(add(0, &packet[..20])), finish(add(0, &packet[20..]))), ([0, 0], [0, 0]));
    assert_eq!(&packet[24..], [0, 7, 0, 1, b'h', b'i', b'!']);
    assert_eq!(answer(&ping_v4([10, 0, 0, 1]), Mode::Ip).unwrap()[..], *packet);
    assert_eq!(answer(&ping_v4([10, 0, 0, 9]), Mode::Ip), None);
    let mut broken = ping_v4([10, 0, 0, 1]);
    broken[30] ^= 1;
    assert_eq!(answer(&broken, Mode::Ip), None);
}

#[test]
fn who_has_an_address_is_told() {
    let mut request = [&ARP_FIXED[..], &[0, 1], &THEM, &[10, 0, 0, 2], &[0; 6], &[10, 0, 0, 1]].concat();
    let said = answer(&[&[0xff; 6], &THEM[..], &ARP, &request].concat(), Mode::Ethernet).unwrap();
    let expected = [&ARP_FIXED[..], &[0, 2], &ME, &[10, 0, 0, 1], &THEM, &[10, 0, 0, 2]].concat();
    assert_eq!(said[14..], expected);
    request[27] = 9;
    assert_eq!(answer(&frame(ARP, &request), Mode::Ethernet), None);
}

#[test]
fn version_6_is_answered_as_well() {
    let solicitation = [&[135, 0, 0, 0, 0, 0, 0, 0], v6("fd00::1").as_slice(), &[1, 1], &THEM].concat();
    let asked = packet_v6(&v6("fd00::2"), &v6("ff02::1:ff00:1"), 255, &solicitation, &[]);
    let said = answer(&[&[0x33, 0x33, 0xff, 0, 0, 1], &THEM[..], &IPV6, &asked].concat(), Mode::Ethernet).unwrap();
    let (source, destination, message) = Host::icmp_v6(&said[14..]).unwrap();
    assert_eq!(
        (source, destination, message[0], &message[26..]),
        (&v6("fd00::1")[..], &v6("fd00::2")[..], 136, &ME[..])
    );
    let ping = packet_v6(&v6("fd00::2"), &v6("fd00::1"), 9, &[128, 0, 0, 0, 0, 7, 0, 1, b'x'], &[]);
    let said = answer(&ping, Mode::Ip).unwrap();
    let (source, _, message) = Host::icmp_v6(&said).unwrap();
    assert_eq!((source, message[0], &message[4..]), (&v6("fd00::1")[..], 129, &[0, 7, 0, 1, b'x'][..]));
}

#[test]
fn a_length_of_nothing_is_no_packet() {
    let mut packet = ping_v4([10, 0, 0, 1]);
    packet[2..4].fill(0);
    assert_eq!(answer(&packet, Mode::Ip), None);
}

proptest! {
    #[test]
    fn whatever_comes_is_answered_briefly_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200), kind in 0..4_usize, at in any::<u16>(), bit in 0..8) {
        let good = [frame(IPV4, &ping_v4([10, 0, 0, 1])), frame(ARP, &bytes), frame(IPV6, &bytes), bytes.clone()];
        let mut packet = good[kind].clone();
        let place = usize::from(at) % packet.len().max(1);
        if let Some(byte) = packet.get_mut(place) {
            *byte ^= 1_u8 << bit;
        }
        for mode in [Mode::Ethernet, Mode::Ip] {
            if let Some(said) = answer(&packet, mode) {
                prop_assert!(said.len() <= packet.len() + 42);
            }
        }
    }
}
