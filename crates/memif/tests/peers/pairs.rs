//! What a user sees of two ends that both keep the rules.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use memif::{
    Address, Backoff, Client, Connection, Down, Limits, Listener, Mode, NotTaken, Port, Reconnect, Rings, Role,
    RxQueue, Server, TxQueue,
};
use tempfile::TempDir;

use crate::raw::SOON;

pub(crate) fn place() -> (TempDir, Address) {
    let dir = tempfile::tempdir().unwrap();
    let address = Address::path(dir.path().join("memif.sock")).unwrap();
    (dir, address)
}

pub(crate) fn pair(client: &Client, server: Server, listener: &Listener) -> (Connection, Connection, Port) {
    let port = listener.add(server).unwrap();
    let near = client.connect(SOON).unwrap();
    let far = port.accept(SOON).unwrap().expect("a client");
    (near, far, port)
}

/// All that is received until there are that many packets.
fn receive(queue: &mut RxQueue, count: usize) -> Vec<Vec<u8>> {
    let mut packets = Vec::new();
    while packets.len() < count {
        assert!(queue.wait(SOON).unwrap(), "{} of {count} packets", packets.len());
        packets.extend(queue.burst(64).unwrap().iter().map(|packet| packet.to_vec()));
    }
    packets
}

fn packet(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from((number * 31 + at * 7) % 251).unwrap()).collect()
}

#[test]
fn packets_of_every_length_pass_both_ways_whole_and_in_order() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let rings = Rings::default().slots(64).unwrap().buffer_size(256).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address).rings(rings), Server::new(0), &listener);
    assert_eq!((client.role, server.role), (Role::Client, Role::Server));
    // Twice around the indices' 16 bits would take long; what is sent goes around the ring many times.
    for (sender, receiver) in [(&mut client.tx, &mut server.rx), (&mut server.tx, &mut client.rx)] {
        let lengths = (1..600).chain([1500, 9000, 64 * 256]);
        for (number, length) in lengths.enumerate() {
            let sent = packet(number, length);
            sender[0].send(&sent).unwrap().unwrap();
            assert_eq!(receive(&mut receiver[0], 1), [sent], "length {length}");
        }
        let (sent, received) = (sender[0].counters().read(), receiver[0].counters().read());
        assert_eq!((sent.packets, sent.bytes), (received.packets, received.bytes));
        assert_eq!((received.packets, received.invalid), (602, 0));
    }
}

#[test]
fn a_million_packets_cross_two_threads_each_way() {
    const COUNT: u64 = 1_000_000;
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let (client, server, _port) = pair(&Client::new(address), Server::new(0), &listener);
    let send = |mut queue: TxQueue| {
        thread::spawn(move || {
            let mut sent = 0_u64;
            while sent < COUNT {
                let mut burst = queue.burst().unwrap();
                while sent < COUNT && burst.free() > 0 {
                    burst.push(&sent.to_ne_bytes()).unwrap();
                    sent += 1;
                }
                if burst.send().unwrap() == 0 {
                    thread::yield_now();
                }
            }
            queue
        })
    };
    let take = |mut queue: RxQueue| {
        thread::spawn(move || {
            let mut next = 0_u64;
            while next < COUNT {
                assert!(queue.wait(SOON).unwrap(), "{next} of {COUNT}");
                for packet in queue.burst(256).unwrap().iter() {
                    let mut number = [0; 8];
                    packet.copy_to(&mut number);
                    assert_eq!((packet.len(), u64::from_ne_bytes(number)), (8, next));
                    next += 1;
                }
            }
            queue
        })
    };
    let threads = [client, server].map(|end| {
        let Connection { rx, tx, .. } = end;
        (send(tx.into_iter().next().unwrap()), take(rx.into_iter().next().unwrap()))
    });
    let ended = threads.map(|(send, take)| (send.join().unwrap(), take.join().unwrap()));
    assert!(ended.iter().all(|(_, rx)| rx.counters().read().packets == COUNT));
}

#[test]
fn a_full_ring_takes_no_part_of_a_packet() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let rings = Rings::default().slots(4).unwrap().buffer_size(64).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address).rings(rings), Server::new(0), &listener);
    for (tx, rx) in [(&mut client.tx[0], &mut server.rx[0]), (&mut server.tx[0], &mut client.rx[0])] {
        let mut burst = tx.burst().unwrap();
        assert_eq!(burst.free(), 4);
        assert_eq!(burst.push(&[1; 257]), Err(NotTaken::Length { length: 257, most: 256 }));
        assert_eq!(burst.push(&[]), Err(NotTaken::Length { length: 0, most: 65536 }));
        burst.push(&[1; 129]).unwrap();
        assert_eq!(burst.push(&[2; 65]), Err(NotTaken::Full));
        burst.push(&[3; 64]).unwrap();
        assert_eq!((burst.free(), burst.len()), (0, 2));
        assert_eq!(burst.send().unwrap(), 2);
        assert_eq!(tx.send(&[4]).unwrap(), Err(NotTaken::Full));
        assert_eq!(tx.counters().read().full, 2);
        assert_eq!(receive(rx, 2), [vec![1; 129], vec![3; 64]]);
        // Buffers have all of their room again, also those that were used in part.
        for _ in 0..3 {
            tx.send(&[5; 256]).unwrap().unwrap();
            assert_eq!(receive(rx, 1), [vec![5; 256]]);
        }
    }
}

#[test]
fn what_is_not_sent_is_not_seen() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address), Server::new(0), &listener);
    for (tx, rx) in [(&mut client.tx[0], &mut server.rx[0]), (&mut server.tx[0], &mut client.rx[0])] {
        let mut burst = tx.burst().unwrap();
        burst.push(&[1; 3000]).unwrap();
        drop(burst);
        assert!(rx.burst(8).unwrap().is_empty());
        let mut burst = tx.burst().unwrap();
        let mut frame = burst.reserve(3000).unwrap();
        assert_eq!(frame.write(2040, &[7; 16]), 16);
        assert_eq!(frame.write(2999, &[9; 16]), 1);
        burst.send().unwrap();
        let received = receive(rx, 1).remove(0);
        assert_eq!((&received[2040..2056], received[2999], received.len()), ([7; 16].as_slice(), 9, 3000));
    }
}

#[test]
fn slots_go_back_when_the_burst_is_dropped() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let rings = Rings::default().slots(4).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address).rings(rings), Server::new(0), &listener);
    for (tx, rx) in [(&mut client.tx[0], &mut server.rx[0]), (&mut server.tx[0], &mut client.rx[0])] {
        for number in 0..4 {
            tx.send(&[number]).unwrap().unwrap();
        }
        let burst = rx.burst(3).unwrap();
        assert_eq!(burst.iter().map(|packet| packet.to_vec()).collect::<Vec<_>>(), [[0], [1], [2]]);
        assert_eq!(tx.burst().unwrap().free(), 0);
        drop(burst);
        assert_eq!(tx.burst().unwrap().free(), 3);
        assert_eq!(rx.burst(9).unwrap().len(), 1);
        assert_eq!(tx.burst().unwrap().free(), 4);
    }
}

#[test]
fn who_polls_is_not_signalled_and_who_waits_is() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address), Server::new(0), &listener);
    for (tx, rx) in [(&mut client.tx[0], &mut server.rx[0]), (&mut server.tx[0], &mut client.rx[0])] {
        tx.send(&[1]).unwrap().unwrap();
        assert_eq!(rx.burst(1).unwrap().len(), 1);
        assert_eq!(tx.counters().read().signals, 0);
        let before = Instant::now();
        assert!(!rx.wait(Duration::from_millis(20)).unwrap());
        assert!(before.elapsed() >= Duration::from_millis(20));
        tx.send(&[2]).unwrap().unwrap();
        assert_eq!(tx.counters().read().signals, 1);
        assert!(rx.wait(SOON).unwrap());
        tx.send(&[3]).unwrap().unwrap();
        assert_eq!(tx.counters().read().signals, 1, "once awake, no more signals");
        assert_eq!(receive(rx, 2), [[2], [3]]);
    }
}

#[test]
fn a_packet_is_forwarded_from_memory_to_memory() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address.clone()), Server::new(0), &listener);
    let sent: Vec<Vec<u8>> = [60, 2048, 2049, 9000].map(|length| packet(length, length)).into();
    for packet in &sent {
        client.tx[0].send(packet).unwrap().unwrap();
    }
    assert!(server.rx[0].wait(SOON).unwrap());
    let burst = server.rx[0].burst(64).unwrap();
    let mut echo = server.tx[0].burst().unwrap();
    for packet in burst.iter() {
        echo.forward(&packet).unwrap();
    }
    echo.send().unwrap();
    drop(burst);
    assert_eq!(receive(&mut client.rx[0], 4), sent);
}

#[test]
fn each_queue_is_a_ring_of_its_own() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let rings = Rings::default().queues(3, 20).unwrap();
    let (mut client, mut server, _port) = pair(&Client::new(address).rings(rings), Server::new(0), &listener);
    assert_eq!((client.tx.len(), client.rx.len()), (3, 8), "a server allows 8");
    assert_eq!((server.rx.len(), server.tx.len()), (3, 8));
    for (number, (tx, rx)) in client.tx.iter_mut().zip(&mut server.rx).enumerate() {
        tx.send(&packet(number, 100)).unwrap().unwrap();
        assert_eq!(receive(rx, 1), [packet(number, 100)]);
    }
    for (number, (tx, rx)) in server.tx.iter_mut().zip(&mut client.rx).enumerate().rev() {
        tx.send(&packet(number, 100)).unwrap().unwrap();
        assert_eq!(receive(rx, 1), [packet(number, 100)]);
    }
}

static NAMES: AtomicU32 = AtomicU32::new(0);

#[test]
fn both_ends_know_each_other() {
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    let address: Address = format!("@memif-test/{}/{number}", std::process::id()).parse().unwrap();
    let listener = Listener::bind(&address).unwrap();
    let client = Client::new(address).interface("near0").id(9).mode(Mode::Ip);
    let server = Server::new(9).mode(Mode::Ip).interface("far0").limits(Limits::default());
    let (client, server, _port) = pair(&client, server, &listener);
    assert_eq!((client.peer.interface.to_string(), server.peer.interface.to_string()), ("far0".into(), "near0".into()));
    assert_eq!((client.mode, client.id, server.mode, server.id), (Mode::Ip, 9, Mode::Ip, 9));
    let credentials = server.peer.credentials.unwrap();
    assert_eq!(credentials.process, Some(std::process::id()));
    assert_eq!(client.peer.credentials, Some(credentials));
}

#[test]
fn the_end_of_either_is_seen_by_the_other_wherever_it_is() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let client = Client::new(address);
    let (near, far, port) = pair(&client, Server::new(0), &listener);
    let Connection { mut rx, mut tx, link, .. } = far;
    let waiting = thread::spawn(move || rx[0].wait(SOON));
    drop(near);
    assert!(matches!(waiting.join().unwrap(), Err(Down::Disconnected { .. })));
    assert!(link.wait_down(SOON).is_some());
    assert!(tx[0].burst().is_err());

    // A queue alone keeps the connection up, and one that only polls notices as well.
    let near = client.connect(SOON).unwrap();
    let mut far = port.accept(SOON).unwrap().unwrap();
    let Connection { rx: mut kept, link, tx, .. } = near;
    drop(tx);
    assert_eq!(link.check(), Ok(()));
    link.close("enough");
    assert!(kept[0].burst(1).is_err());
    let seen = (0..10_000).find_map(|_| far.rx[0].burst(1).err());
    assert_eq!(seen.unwrap().to_string(), "the peer disconnected: enough (code 0)");
}

#[test]
fn who_waits_for_ever_gets_what_comes() {
    let (_dir, address) = place();
    let listener = Listener::bind(&address).unwrap();
    let port = listener.add(Server::new(0)).unwrap();
    let mut reconnect = Reconnect::new(Client::new(address), Backoff::new(Duration::from_millis(1), Duration::MAX));
    for _ in 0..2 {
        let mut near = reconnect.connect(Duration::MAX).unwrap();
        let mut far = port.accept(Duration::MAX).unwrap().unwrap();
        near.tx[0].send(&[1]).unwrap().unwrap();
        assert!(far.rx[0].wait(Duration::MAX).unwrap());
        drop(near);
        assert!(far.link.wait_down(Duration::MAX).is_some());
    }
    let near = reconnect.client().connect(Duration::MAX).unwrap();
    assert!(near.link.check().is_ok());
}

#[test]
fn a_silent_server_takes_no_more_of_the_time_than_there_is() {
    let (_dir, address) = place();
    // It listens, and has no interface yet.
    let _listener = Listener::bind(&address).unwrap();
    let mut reconnect = Reconnect::new(Client::new(address), Backoff::default());
    assert!(reconnect.connect(Duration::from_millis(10)).is_none());
    assert!(reconnect.failure().unwrap().to_string().ends_with("no HELLO within 500ms"));
}

#[test]
fn a_client_comes_back_with_new_memory() {
    let (_dir, address) = place();
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let mut reconnect = Reconnect::new(Client::new(address.clone()), backoff);
    assert!(reconnect.connect(Duration::from_millis(50)).is_none());
    assert!(reconnect.failure().unwrap().to_string().contains("does the server run"));
    for round in 0..5 {
        let listener = Listener::bind(&address).unwrap();
        let port = listener.add(Server::new(0)).unwrap();
        for _ in 0..3 {
            let mut near = reconnect.connect(SOON).expect("connected again");
            assert!(reconnect.failure().is_none());
            let mut far = port.accept(SOON).unwrap().unwrap();
            for (tx, rx) in [(&mut near.tx[0], &mut far.rx[0]), (&mut far.tx[0], &mut near.rx[0])] {
                tx.send(&packet(round, 77)).unwrap().unwrap();
                assert_eq!(receive(rx, 1), [packet(round, 77)]);
            }
            // Sometimes one end goes first, sometimes the other.
            if round % 2 == 0 { drop(far) } else { drop(near) }
        }
    }
}
