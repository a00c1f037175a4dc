//! Packets without Ethernet, which VPP alone of all peers has.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use memif::{Client, Connection, Listener, Mode, Server};
use memif_programs::{probe, respond::Host};
use nsm_memif_peers::traffic::SOON;
use vpp_api_client::{
    InterfaceIndex, Prefix,
    messages::{
        AddressUnion, FibPath, FibPathNh, IpRouteAddDelV2, IpRouteV2, MemifCreateV2, MemifMode, WantPingFinishedEvents,
    },
};

use super::{Rig, master, slave};

const VPPS: [&str; 2] = ["10.0.0.1", "fd00::1"];
const OURS: [&str; 2] = ["10.0.0.2", "fd00::2"];
const PINGS: u32 = 20;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Answers until the link is down, as `memif-ping` does.
fn respond(mut connection: Connection, mac: [u8; 6]) -> thread::JoinHandle<usize> {
    thread::spawn(move || {
        let host = Host { mac, addresses: OURS.map(ip).to_vec() };
        let mut answered = 0;
        while let Ok(there) = connection.rx[0].wait(Duration::from_millis(100)) {
            let (Ok(burst), Ok(mut answers), true) = (connection.rx[0].burst(256), connection.tx[0].burst(), there)
            else {
                continue;
            };
            for packet in burst.iter() {
                if let Some(answer) = host.answer(&packet.to_vec(), connection.mode) {
                    answered += usize::from(answer.put(&mut answers).is_ok());
                }
            }
            let _ = answers.send();
        }
        answered
    })
}

/// VPP pings us; most of it has to come back, as the first one may wait for a neighbour.
fn pinged(rig: &Rig, address: IpAddr) {
    let ping = WantPingFinishedEvents { address, repeat: PINGS, interval: 0.02 };
    let event = rig.runtime.block_on(async {
        let mut events = rig.api.subscribe(&ping).await.unwrap();
        tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap()
    });
    println!("{address}: {event:?}");
    assert!(event.request_count == PINGS && event.reply_count >= PINGS - 2, "{address}: {event:?}");
}

/// VPP pings both addresses of this end of its interface, and the link is closed.
fn all_pinged(rig: &Rig, index: InterfaceIndex, connection: Connection) {
    let link = connection.link.clone();
    rig.await_link(index, true);
    let responder = respond(connection, [2, 0, 0, 0, 0, 2]);
    for address in OURS {
        pinged(rig, ip(address));
    }
    link.close("done");
    assert!(responder.join().unwrap() >= 36);
}

fn addressed(rig: &Rig, sw_if_index: InterfaceIndex) {
    for (address, length) in VPPS.into_iter().zip([24, 64]) {
        rig.give(sw_if_index, Prefix::new(ip(address), length).unwrap());
    }
}

fn of_mode(mode: Mode, memif: MemifCreateV2) -> MemifCreateV2 {
    let mode = if mode == Mode::Ip { MemifMode::Ip } else { MemifMode::Ethernet };
    MemifCreateV2 { mode, ..memif }
}

#[test]
fn a_ping_to_a_client_of_ours_comes_back() {
    for mode in [Mode::Ip, Mode::Ethernet] {
        let rig = Rig::start();
        let index = rig.memif("memif.sock", of_mode(mode, master()));
        addressed(&rig, index);
        let connection = Client::new(rig.address("memif.sock")).id(7).mode(mode).connect(SOON).unwrap();
        all_pinged(&rig, index, connection);
    }
}

#[test]
fn a_ping_to_a_server_of_ours_comes_back() {
    for mode in [Mode::Ip, Mode::Ethernet] {
        let rig = Rig::start();
        let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
        let port = listener.add(Server::new(7).mode(mode)).unwrap();
        let index = rig.memif("memif.sock", of_mode(mode, slave()));
        addressed(&rig, index);
        let connection = port.accept(SOON).unwrap().expect("VPP connects");
        all_pinged(&rig, index, connection);
    }
}

/// From a client of ours through VPP's tables to a server of ours.
#[test]
fn packets_are_routed_between_two_of_ours() {
    const COUNT: u64 = 2000;
    let rig = Rig::start();
    let from = rig.memif("from.sock", of_mode(Mode::Ip, master()));
    let listener = Listener::bind(&rig.address("to.sock")).unwrap();
    let port = listener.add(Server::new(7).mode(Mode::Ip)).unwrap();
    let to = rig.memif("to.sock", of_mode(Mode::Ip, slave()));
    rig.give(from, Prefix::new(ip("10.1.0.1"), 24).unwrap());
    rig.give(to, Prefix::new(ip("10.2.0.1"), 24).unwrap());
    // Where the probes go.
    let nh = FibPathNh { address: AddressUnion::from_ip4(&[10, 2, 0, 2].into()).unwrap(), ..Default::default() };
    let path = FibPath { sw_if_index: to.0, weight: 1, nh, ..Default::default() };
    let prefix = Prefix::new(ip("192.0.2.0"), 24).unwrap();
    let route = IpRouteV2 { prefix, paths: vec![path], ..Default::default() };
    rig.call(&IpRouteAddDelV2 { route, ..Default::default() });

    let mut sender = Client::new(rig.address("from.sock")).id(7).mode(Mode::Ip).connect(SOON).unwrap();
    let mut receiver = port.accept(SOON).unwrap().expect("VPP connects");
    for index in [from, to] {
        rig.await_link(index, true);
    }
    let probes = probe::Template::new(Mode::Ip, 200);
    let (mut sent, mut come, began) = (0, 0, Instant::now());
    while come < COUNT {
        assert!(began.elapsed() < SOON, "{come} of {sent} arrived");
        if sent < COUNT && sent - come < 200 {
            let mut burst = sender.tx[0].burst().unwrap();
            sent += u64::from(probes.put(&mut burst, probe::Mark { stream: 1, number: sent, sent_ns: 0 }).is_ok());
            burst.send().unwrap();
        }
        for arrived in receiver.rx[0].burst(256).unwrap().iter() {
            let arrived = arrived.to_vec();
            // One hop less than 64, and the rest as it was.
            assert_eq!((arrived[8], arrived.len()), (63, 200));
            assert_eq!(probe::read(&arrived, Mode::Ip).unwrap().number, come);
            come += 1;
        }
    }
}
