//! Peers that write what they must not, when they must not.

use std::{
    fs::File,
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use memif::{
    Address, Client, ConnectError, Limits, Listener, Name, NotTaken, Port, Server, Unsealed,
    control::{Direction, Hello, MESSAGE_SIZE, Message, VERSION},
};
use rustix::{
    fs::ftruncate,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, socket_with},
};
use tempfile::TempDir;

use crate::{
    pairs::place,
    raw::{HEAD, RING, RawClient, SIZE, SLOTS, SOON, TAIL, add_ring, hear, init, reason, say, unsealed},
};

/// Where the raw client's buffers begin.
pub(crate) const BUFFERS: u32 = 4096;

pub(crate) fn serving(limits: Limits) -> (TempDir, Address, Listener, Port) {
    let (dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let port = listener.add(Server::new(0).limits(limits)).unwrap();
    (dir, address, listener, port)
}

#[test]
fn descriptors_that_lie_are_dropped_and_counted() {
    let (_dir, address, _listener, port) = serving(Limits::default().packet(1024).unwrap());
    let client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    let size = u32::try_from(SIZE).unwrap();
    let bad = [
        (0, 1, 60, 0),
        (0, u16::MAX, 60, 0),
        (0, 0, 0, BUFFERS),
        (0, 0, 1025, BUFFERS),
        (0, 0, u32::MAX, u32::MAX),
        (0, 0, 2, size - 1),
        (0, 0, 60, size),
    ];
    client.put(u64::from(BUFFERS), b"good");
    for (turn, descriptor) in (0_u16..).zip(bad) {
        let slot = turn * 2;
        client.descriptor(0, slot, descriptor);
        client.descriptor(0, slot + 1, (0, 0, 4, BUFFERS));
        client.set_index(HEAD, slot + 2);
        let burst = far.rx[0].burst(16).unwrap();
        assert_eq!(burst.iter().map(|packet| packet.to_vec()).collect::<Vec<_>>(), [b"good"], "{descriptor:?}");
        drop(burst);
        assert_eq!(client.index(TAIL), slot + 2, "its slots go back as well");
    }
    assert_eq!(far.rx[0].counters().read().invalid, bad.len() as u64);
}

#[test]
fn chains_end() {
    let (_dir, address, _listener, port) = serving(Limits::default().packet(1024).unwrap());
    let client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    let rx = &mut far.rx[0];
    // Cut off by head: nothing yet, and nobody spins on it.
    client.descriptor(0, 0, (1, 0, 3, BUFFERS));
    client.set_index(HEAD, 1);
    assert!(rx.burst(8).unwrap().is_empty());
    assert!(!rx.wait(Duration::from_millis(20)).unwrap());
    client.descriptor(0, 1, (0, 0, 2, BUFFERS));
    client.set_index(HEAD, 2);
    assert!(rx.wait(SOON).unwrap());
    assert_eq!(rx.burst(8).unwrap().iter().map(|packet| packet.len()).collect::<Vec<_>>(), [5]);
    // Longer than allowed in sum: dropped up to its end.
    for slot in 2..5 {
        client.descriptor(0, slot, (u16::from(slot < 4), 0, 400, BUFFERS));
    }
    client.descriptor(0, 5, (0, 0, 1, BUFFERS));
    client.set_index(HEAD, 6);
    assert_eq!(rx.burst(8).unwrap().iter().map(|packet| packet.len()).collect::<Vec<_>>(), [1]);
    assert_eq!(rx.counters().read().invalid, 1);
    // A whole ring without an end.
    for slot in 6..6 + SLOTS {
        client.descriptor(0, slot, (1, 0, 1, BUFFERS));
    }
    client.set_index(HEAD, 6 + SLOTS);
    assert!(rx.burst(8).unwrap().is_empty());
    assert_eq!((client.index(TAIL), rx.counters().read().invalid), (6 + SLOTS, 2));
}

#[test]
fn what_changes_after_the_check_changes_nothing_that_was_checked() {
    let (_dir, address, _listener, port) = serving(Limits::default());
    let client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    client.put(u64::from(BUFFERS), b"before");
    client.descriptor(0, 0, (0, 0, 6, BUFFERS));
    client.set_index(HEAD, 1);
    let burst = far.rx[0].burst(1).unwrap();
    let packet = burst.iter().next().unwrap();
    client.descriptor(0, 0, (1, 77, u32::MAX, u32::MAX));
    client.set_index(HEAD, 50_000);
    client.put(u64::from(BUFFERS), b"behind");
    assert_eq!((packet.len(), packet.to_vec()), (6, b"behind".to_vec()));
}

#[test]
fn an_index_beyond_the_ring_ends_the_link() {
    for (at, value) in [(HEAD, SLOTS + 1), (HEAD, u16::MAX), (RING + HEAD, SLOTS + 1), (RING + HEAD, 40_000)] {
        let (_dir, address, _listener, port) = serving(Limits::default());
        let client = RawClient::dial(&address);
        client.up(0, None);
        let mut far = port.accept(SOON).unwrap().unwrap();
        client.set_index(at, value);
        let down = if at == HEAD { far.rx[0].burst(1).err() } else { far.tx[0].burst().err() };
        let expected = format!("the peer's index claims {value} slots: expected at most {SLOTS}");
        assert_eq!(down.unwrap().to_string(), format!("the peer was disconnected: {expected}"));
        assert_eq!(reason(&client.hear()), expected);
    }
}

#[test]
fn buffers_outside_of_the_memory_are_not_written_to() {
    for buffer in
        [(0, 1, 60, 0), (0, 0, 0, BUFFERS), (0, 0, 100, u32::try_from(SIZE).unwrap() - 99), (0, 0, u32::MAX, 8)]
    {
        let (_dir, address, _listener, port) = serving(Limits::default());
        let client = RawClient::dial(&address);
        client.up(0, None);
        let mut far = port.accept(SOON).unwrap().unwrap();
        assert_eq!(far.tx[0].send(&[1]).unwrap(), Err(NotTaken::Full), "nothing is sent before buffers are offered");
        client.descriptor(RING, 0, (0, 0, 100, BUFFERS));
        client.descriptor(RING, 1, buffer);
        client.set_index(RING + HEAD, 2);
        let mut burst = far.tx[0].burst().unwrap();
        burst.push(&[9; 60]).unwrap();
        assert_eq!(burst.push(&[9; 60]), Err(NotTaken::BadBuffer), "{buffer:?}");
        drop(burst);
        assert!(far.tx[0].burst().is_err());
        assert_eq!(reason(&client.hear()), "the peer offered a buffer outside of its memory");
    }
}

#[test]
fn memory_that_shrinks_ends_no_process() {
    let (_dir, address, _listener, port) = serving(Limits::default());
    let client = RawClient::dial(&address);
    let more: File = unsealed();
    client.up(0, Some(&more));
    let mut far = port.accept(SOON).unwrap().unwrap();
    assert!(ftruncate(&client.memory, 4096).is_err(), "the server has sealed what holds rings");
    std::os::unix::fs::FileExt::write_all_at(&more, b"guarded", 40_000).unwrap();
    client.descriptor(0, 0, (0, 1, 7, 40_000));
    client.set_index(HEAD, 1);
    let burst = far.rx[0].burst(1).unwrap();
    assert_eq!(burst.iter().next().unwrap().to_vec(), b"guarded");
    drop(burst);
    client.descriptor(RING, 0, (0, 1, 2048, 50_000));
    client.set_index(RING + HEAD, 1);
    far.tx[0].send(b"back").unwrap().unwrap();
    let mut back = [0; 4];
    std::os::unix::fs::FileExt::read_exact_at(&more, &mut back, 50_000).unwrap();
    assert_eq!((&back, client.length(RING, 0)), (b"back", (0, 4)));
    // Gone under the packets that were announced.
    ftruncate(&more, 0).unwrap();
    client.descriptor(0, 1, (0, 1, 7, 40_000));
    client.descriptor(0, 2, (0, 0, 7, BUFFERS));
    client.set_index(HEAD, 3);
    assert_eq!(far.rx[0].burst(8).unwrap().len(), 1);
    assert_eq!(far.rx[0].counters().read().invalid, 1);
}

#[test]
fn memory_that_could_shrink_can_be_refused_and_holds_no_rings() {
    let (_dir, address, _listener, _port) = serving(Limits::default().unsealed(Unsealed::Refused));
    let client = RawClient::dial(&address);
    assert_eq!(client.announce(0, Some(&unsealed())), Message::Ack);
    assert_eq!(reason(&client.connect()), "region 1: expected the seal F_SEAL_SHRINK");
    let (_dir, address, _listener, _port) = serving(Limits::default());
    let client = RawClient { memory: unsealed(), ..RawClient::dial(&address) };
    client.put(0, &0x03e3_1f20_u32.to_ne_bytes());
    assert_eq!(client.announce(0, None), Message::Ack);
    let expected = "S2M ring 0 at 0 of region 0: expected a region with the seal F_SEAL_SHRINK, not on hugetlbfs";
    assert_eq!(reason(&client.connect()), expected);
}

#[test]
fn a_server_refuses_memory_that_is_not_what_was_said() {
    let (_dir, address, listener, _port) = serving(Limits::default());
    let connect = |change: &dyn Fn(&mut RawClient)| {
        let mut client = RawClient::dial(&address);
        change(&mut client);
        assert_eq!(client.announce(0, None), Message::Ack);
        reason(&client.connect())
    };
    let cookie = connect(&|client| client.put(RING, &1_u32.to_ne_bytes()));
    assert_eq!(cookie, "M2S ring 0 has cookie 0x00000001: expected 0x03e31f20");
    let short = connect(&|client| ftruncate(&client.memory, 4096).unwrap());
    assert_eq!(short, "region 0: 65536 bytes announced: expected at most the file's 4096");
    let file = connect(&|client| client.memory = tempfile::tempfile().unwrap());
    assert_eq!(file, "region 0: expected a memory file (memfd)");
    let event = connect(&|client| client.events[1] = unsealed().into());
    assert_eq!(event, "M2S ring 0: expected an eventfd");
    assert_eq!(listener.take_refused().len(), 4);
}

#[test]
fn words_out_of_place_are_answered_with_the_reason() {
    let (_dir, address, _listener, _port) = serving(Limits::default());
    let client = RawClient::dial(&address);
    client.hear();
    assert_eq!(reason(&client.ask(&Message::Ack, None)), "ACK is out of order: expected INIT");
    assert_eq!(hear(&client.socket), None);
    let client = RawClient::dial(&address);
    client.hear();
    say(&client.socket, &[3; MESSAGE_SIZE - 1], &[]);
    assert_eq!(reason(&client.hear()), "message of 127 bytes: expected 128");
    let client = RawClient::dial(&address);
    client.hear();
    say(&client.socket, &Message::Init(init(0)).encode(), &[client.memory.as_fd(); 3]);
    assert_eq!(reason(&client.hear()), "3 files with one message: expected at most one");
    let client = RawClient::dial(&address);
    client.hear();
    client.ask(&Message::Init(init(0)), None);
    client.ask(&Message::AddRegion { index: 0, size: SIZE }, Some(client.memory.as_fd()));
    let odd = client.ask(&add_ring(Direction::ToServer, SIZE), Some(client.events[0].as_fd()));
    assert_eq!(reason(&odd), "S2M ring 0 at 65536 of region 0: expected all of it to lie in the region");
}

#[test]
fn who_says_nothing_takes_no_place_for_long() {
    let (_dir, address, listener, port) = serving(Limits::default());
    // A machine that needs longer than the places last for this is tried again.
    let (silent, crowded) = loop {
        let began = Instant::now();
        let silent: Vec<RawClient> = (0..memif::MOST_OF_ONE).map(|_| RawClient::dial(&address)).collect();
        for client in &silent {
            assert!(matches!(client.hear(), Message::Hello(_)));
        }
        let crowded = Client::new(address.clone()).connect(SOON);
        if began.elapsed() < memif::HANDSHAKE {
            break (silent, crowded.unwrap_err());
        }
        drop(silent);
        listener.take_refused();
        drop(port.try_accept());
    };
    assert!(crowded.to_string().contains("too many connections of one process"), "{crowded}");
    for client in &silent {
        assert_eq!(reason(&client.hear()), "no message in time");
    }
    let _near = Client::new(address).connect(SOON).unwrap();
    assert!(port.accept(SOON).unwrap().is_some());
    assert_eq!(listener.take_refused().len(), 1 + memif::MOST_OF_ONE);
}

/// A server of the wire alone: says these messages, one for each that it hears.
fn saying(messages: Vec<Vec<u8>>) -> (TempDir, Address, thread::JoinHandle<Vec<Message>>) {
    let (dir, address) = place();
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    bind(&socket, &SocketAddrUnix::new(address.as_path().unwrap()).unwrap()).unwrap();
    listen(&socket, 4).unwrap();
    let server = thread::spawn(move || {
        let control = accept(&socket).unwrap();
        let mut heard = Vec::new();
        for message in messages {
            say(&control, &message, &[]);
            match hear(&control) {
                Some(message) => heard.push(message),
                None => break,
            }
        }
        heard
    });
    (dir, address, server)
}

fn hello() -> Hello {
    Hello {
        name: Name::cut("raw"),
        min_version: VERSION,
        max_version: VERSION,
        max_region: 0,
        max_m2s_ring: 0,
        max_s2m_ring: 0,
        max_log2_ring_size: 4,
    }
}

#[test]
fn a_server_that_breaks_the_protocol_is_told_so() {
    let good = Message::Hello(hello()).encode().to_vec();
    let old = Message::Hello(Hello { min_version: 0x0100, max_version: 0x0100, ..hello() }).encode().to_vec();
    let connected = Message::Connected { interface: Name::cut("x") }.encode().to_vec();
    let cases = [
        (vec![old], "server speaks memif 0x0100 to 0x0100: expected 0x0200"),
        (vec![connected.clone()], "CONNECTED is out of order: expected HELLO"),
        (vec![good.clone(), connected], "CONNECTED is out of order: expected ACK"),
        (vec![vec![0; 5]], "message of 5 bytes: expected 128"),
        (vec![good, vec![9; MESSAGE_SIZE]], "message type 2313: expected 1 to 8"),
    ];
    for (messages, expected) in cases {
        let (_dir, address, server) = saying(messages);
        let error = Client::new(address).connect(SOON).unwrap_err();
        assert!(matches!(error, ConnectError::Protocol { .. }), "{error}");
        assert!(error.to_string().ends_with(expected), "{error}");
        assert_eq!(reason(server.join().unwrap().last().unwrap()), expected);
    }
    let (_dir, address, _server) = saying(vec![]);
    let closed = Client::new(address).connect(SOON).unwrap_err();
    assert!(closed.to_string().ends_with("closed by the server where HELLO was expected"), "{closed}");
}
