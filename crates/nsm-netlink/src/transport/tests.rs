//! Conversations that go wrong, with bytes as the kernel would send them and on a real socket.

use std::time::{Duration, Instant};

use netlink_packet_core::{
    NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NLMSG_NOOP, NLMSG_OVERRUN,
};
use nix::errno::Errno;

use super::{Answers, Progress, Request, Table, Transport};
use crate::{Error, Netns, link, sys};

const RTM_NEWLINK: u16 = 16;

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(16 + payload.len()).unwrap();
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn code(errno: i32) -> [u8; 4] {
    (-errno).to_ne_bytes()
}

fn requests(count: usize) -> Vec<Request> {
    (0..count).map(|_| link::get_all()).collect()
}

#[test]
fn answers_are_matched_by_sequence_number() {
    let batch = requests(3);
    let mut answers = Answers::new(&batch, u32::MAX);
    let mut datagram = message(RTM_NEWLINK, 0, 4711, b"late");
    datagram.extend(message(NLMSG_NOOP, 0, 0, b""));
    datagram.extend(message(NLMSG_ERROR, NLM_F_CAPPED, 1, &code(Errno::EPERM as i32)));
    datagram.extend(message(RTM_NEWLINK, 0, u32::MAX, b"first"));
    answers.read(&datagram).unwrap();
    assert!(answers.next_missing().is_some(), "the second one");
    answers.read(&message(NLMSG_ERROR, NLM_F_CAPPED, 0, &code(0))).unwrap();
    assert!(answers.next_missing().is_none());
    let all = answers.into_all();
    assert_eq!(all[0], Ok(Some(b"first".to_vec())));
    assert_eq!(all[1], Ok(None));
    assert_eq!(all[2].as_ref().unwrap_err().errno, Errno::EPERM);
}

#[test]
fn the_kernels_words_are_kept() {
    let batch = requests(1);
    let words = b"\x0e\x00\x01\x00too small\x00\x00\x00";
    let repeated = message(RTM_NEWLINK, 0, 1, b"body of eight..");
    for (flags, repeated) in [(NLM_F_CAPPED, &repeated[..16]), (0, &repeated[..])] {
        let payload = [&code(Errno::EINVAL as i32), repeated, words].concat();
        let mut answers = Answers::new(&batch, 1);
        answers.read(&message(NLMSG_ERROR, flags | NLM_F_ACK_TLVS, 1, &payload)).unwrap();
        let refusal = answers.into_all().remove(0).unwrap_err();
        assert_eq!(refusal.detail.as_deref(), Some("too small"));
        assert_eq!(refusal.to_string(), "cannot list interfaces: Invalid argument (too small)");
    }
}

#[test]
fn cut_answers_are_no_answers() {
    let batch = requests(1);
    let whole = message(NLMSG_ERROR, 0, 1, &code(0));
    for len in 1..whole.len() {
        let error = Answers::new(&batch, 1).read(&whole[..len]).unwrap_err();
        assert!(matches!(error, Error::Malformed { .. }) && error.is_unknown_outcome(), "{len}: {error}");
    }
    let without_code = message(NLMSG_ERROR, 0, 1, b"");
    assert!(matches!(Answers::new(&batch, 1).read(&without_code), Err(Error::Malformed { .. })));
    let overrun = message(NLMSG_OVERRUN, 0, 1, b"");
    assert!(matches!(Answers::new(&batch, 1).read(&overrun), Err(Error::Overrun { .. })));
}

#[test]
fn any_bytes_end() {
    let batch = requests(2);
    let mut bytes = vec![0; 96];
    for round in 0..20_000_u32 {
        getrandom::fill(&mut bytes).unwrap();
        // Plausible lengths and kinds, so that more than the first check is reached.
        bytes[..4].copy_from_slice(&(round % 100).to_ne_bytes());
        bytes[4..6].copy_from_slice(&u16::try_from(round % 5).unwrap().to_ne_bytes());
        bytes[8..12].copy_from_slice(&(round % 2).to_ne_bytes());
        let _ = Answers::new(&batch, 0).read(&bytes);
        let _ = Table::new(&batch[0], 0).read(&bytes);
        let _ = crate::LinkState::parse(&bytes);
        let _ = crate::message::read_address(&bytes);
        let _ = crate::message::read_route(&bytes);
        let _ = crate::message::read_rule(&bytes);
        let _ = crate::message::read_neighbour(&bytes);
        let _ = crate::events::read_nsid(&bytes);
    }
}

#[test]
fn a_table_that_changed_is_useless() {
    let request = link::get_all();
    let body = message(RTM_NEWLINK, 0, 1, b"one");
    let done = message(NLMSG_DONE, 0, 1, &code(0));

    let mut table = Table::new(&request, 1);
    assert_eq!(table.read(&body).unwrap(), Progress::More);
    assert_eq!(table.read(&[message(RTM_NEWLINK, 0, 9, b"late"), done.clone()].concat()).unwrap(), Progress::Complete);
    assert_eq!(table.bodies, [b"one"]);

    for interrupted in
        [message(RTM_NEWLINK, NLM_F_DUMP_INTR, 1, b"two"), message(NLMSG_DONE, NLM_F_DUMP_INTR, 1, &code(0))]
    {
        let mut table = Table::new(&request, 1);
        assert_eq!(table.read(&[body.clone(), interrupted, done.clone()].concat()).unwrap(), Progress::Useless);
    }
    let mut table = Table::new(&request, 1);
    let refused = table.read(&message(NLMSG_DONE, 0, 1, &code(Errno::EPERM as i32))).unwrap_err();
    assert!(matches!(refused, Error::Refused(refusal) if refusal.errno == Errno::EPERM));
}

#[test]
fn silence_is_a_timeout_and_late_answers_are_skipped() {
    let netns = Netns::create().unwrap();
    let mut transport = netns.run(Transport::open).unwrap().unwrap();
    let start = Instant::now();
    let error = transport.receive("wait", start + Duration::from_millis(30)).unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }) && error.is_unknown_outcome(), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(30));

    // Answers that nobody collected.
    transport.send(&requests(1)).unwrap();
    transport.send(&[link::get(link::Which::Index(crate::IfIndex::new(99).unwrap()), None)]).unwrap();
    let lo = transport.ask(link::get(link::Which::Index(crate::IfIndex::new(1).unwrap()), None)).unwrap().unwrap();
    assert_eq!(link::read(&lo).unwrap().name, "lo");
}

#[test]
fn a_full_receive_buffer_is_an_overrun() {
    let netns = Netns::create().unwrap();
    let mut transport = netns.run(Transport::open).unwrap().unwrap();
    nix::sys::socket::setsockopt(&sys::descriptor(&transport.socket), nix::sys::socket::sockopt::RcvBuf, &1).unwrap();
    let batch: Vec<_> = (0..64).map(|_| link::get(link::Which::Index(crate::IfIndex::new(1).unwrap()), None)).collect();
    let error = transport.exchange(&batch).unwrap_err();
    assert!(matches!(error, Error::Overrun { .. }), "{error}");
}

#[test]
fn messages_from_other_processes_are_ignored() {
    let netns = Netns::create().unwrap();
    let mut transport = netns.run(Transport::open).unwrap().unwrap();
    let impostor = netns
        .run(|| {
            let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE).unwrap();
            socket.bind_auto().unwrap();
            socket
        })
        .unwrap();
    let mut victim = netlink_sys::SocketAddr::new(0, 0);
    transport.socket.get_address(&mut victim).unwrap();
    let forged = message(NLMSG_ERROR, 0, transport.sequence + 1, &code(Errno::EPERM as i32));
    impostor.send_to(&forged, &victim, 0).unwrap();
    let lo = transport.ask(link::get(link::Which::Index(crate::IfIndex::new(1).unwrap()), None)).unwrap();
    assert!(lo.is_some());
}
