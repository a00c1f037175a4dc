//! The end of a link, seen by who polls and by who waits, whatever is in the ring.

use std::time::Duration;

use memif::{Down, Limits, NotTaken, RxQueue};

use rustix::event::{PollFd, PollFlags, poll};

use crate::{
    hostile::{BUFFERS, serving},
    raw::{HEAD, RING, RawClient, SOON},
};

/// What a queue gives until its link is down. It is asked often, and never waits.
fn polled(rx: &mut RxQueue) -> (usize, Down) {
    let mut packets = 0;
    for _ in 0..10_000 {
        match rx.burst(8) {
            Ok(burst) => packets += burst.len(),
            Err(down) => return (packets, down),
        }
    }
    panic!("nothing is said of the end, and {packets} packets came");
}

#[test]
fn a_peer_that_died_in_the_middle_of_a_packet_is_gone() {
    let (_dir, address, _listener, port) = serving(Limits::default());
    let client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    client.descriptor(0, 0, (0, 0, 3, BUFFERS));
    client.descriptor(0, 1, (1, 0, 3, BUFFERS));
    client.set_index(HEAD, 2);
    drop(client);
    assert_eq!(polled(&mut far.rx[0]), (1, Down::Closed));
}

#[test]
fn who_goes_on_after_the_end_is_not_heard() {
    let (_dir, address, _listener, port) = serving(Limits::default());
    let client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    for slot in 0..8 {
        client.descriptor(0, slot, (0, 0, 3, BUFFERS));
    }
    client.set_index(HEAD, 2);
    far.link.close("enough");
    assert_eq!(far.rx[0].burst(1).unwrap().len(), 1, "what came before is delivered");
    client.set_index(HEAD, 6);
    assert_eq!(far.rx[0].burst(8).unwrap().len(), 1);
    for head in 6..40 {
        client.set_index(HEAD, head.min(10));
        assert_eq!(far.rx[0].burst(8).unwrap_err(), Down::Local("enough".into()));
    }
}

#[test]
fn a_peer_that_produces_for_ever_is_gone_when_its_socket_is() {
    let (_dir, address, _listener, port) = serving(Limits::default());
    let mut client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    for slot in 0..8 {
        client.descriptor(0, slot, (0, 0, 3, BUFFERS));
    }
    // The process lives, and its memory; the socket does not.
    client.socket = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    for head in 1..10_000 {
        client.set_index(HEAD, head);
        if let Err(down) = far.rx[0].burst(8) {
            assert_eq!(down, Down::Closed);
            return;
        }
    }
    panic!("nothing is said of the end");
}

#[test]
fn too_little_room_for_ever_is_noticed() {
    let (_dir, address, _listener, port) = serving(Limits::default());
    let client = RawClient::dial(&address);
    client.up(0, None);
    let mut far = port.accept(SOON).unwrap().unwrap();
    client.descriptor(RING, 0, (0, 0, 64, BUFFERS));
    client.set_index(RING + HEAD, 1);
    drop(client);
    let down = (0..10_000).find_map(|_| match far.tx[0].send(&[7; 100]) {
        Ok(taken) => {
            assert_eq!(taken, Err(NotTaken::Full));
            None
        }
        Err(down) => Some(down),
    });
    assert_eq!(down, Some(Down::Closed));
}

/// Whether a queue's event is readable now.
fn is_told(rx: &RxQueue) -> bool {
    let now = Duration::ZERO.try_into().unwrap();
    poll(&mut [PollFd::new(&rx.event(), PollFlags::IN)], Some(&now)).unwrap() == 1
}

#[test]
fn who_waits_has_what_came_before_the_end_and_then_hears_of_it() {
    for waits in [true, false] {
        let (_dir, address, _listener, port) = serving(Limits::default());
        let client = RawClient::dial(&address);
        client.up(0, None);
        let mut far = port.accept(SOON).unwrap().unwrap();
        let rx = &mut far.rx[0];
        assert!(!rx.arm().unwrap() && !is_told(rx));
        // Nobody rings the bell for it.
        client.descriptor(0, 0, (0, 0, 3, BUFFERS));
        client.set_index(HEAD, 1);
        drop(client);
        assert!(is_told(rx), "the end of a link is an event of its queues");
        assert!(if waits { rx.wait(SOON).unwrap() } else { rx.arm().unwrap() });
        assert_eq!(rx.burst(8).unwrap().len(), 1);
        let end = if waits { rx.wait(SOON) } else { rx.arm().and_then(|_| rx.arm()) };
        assert_eq!(end.unwrap_err(), Down::Closed);
    }
}
