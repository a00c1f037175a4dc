//! Frames that VPP sends back as they were.

use std::time::Duration;

use memif::{Address, Client, Connection, Limits, Listener, Rings, Server, Unsealed};
use nsm_memif_peers::traffic::{SOON, echoed, echoed_by, packet, warm};
use nsm_vpp::Buffers;
use vpp_api_client::messages::{MemifCreateV2, MemifDump, RxMode, SwInterfaceRxPlacementDump};

use super::{Rig, master, slave};

const RX_MODES: [RxMode; 3] = [RxMode::Polling, RxMode::Interrupt, RxMode::Adaptive];

fn many() -> Vec<Vec<u8>> {
    (0..5000).map(|number| packet(number, 60 + number % 1400)).collect()
}

/// Up to what VPP takes for an Ethernet frame.
fn long() -> Vec<Vec<u8>> {
    (0..500).map(|number| packet(number, 400 + number * 17)).collect()
}

#[test]
fn what_a_client_sends_comes_back_as_it_was() {
    for mode in RX_MODES {
        let rig = Rig::start();
        rig.rx_mode(mode);
        let index = rig.echo("memif.sock", master());
        let mut connection = Client::new(rig.address("memif.sock")).id(7).connect(SOON).unwrap();
        assert!(connection.peer.program.to_string().contains("VPP"), "{}", connection.peer.program);
        rig.await_link(index, true);
        let placed = rig.dump(&SwInterfaceRxPlacementDump { sw_if_index: index });
        assert_eq!(placed.iter().map(|of| of.mode).collect::<Vec<_>>(), [mode]);
        warm(&mut connection).unwrap();
        echoed(&mut connection, &many()).unwrap();
        echoed(&mut connection, &long()).unwrap();
        let [sent, received] = [connection.tx[0].counters(), connection.rx[0].counters()].map(|of| of.read());
        println!("VPP {mode:?}: we signalled {} times, {} packets came", sent.signals, received.packets);
        // One that sleeps has to be woken.
        assert_eq!(sent.signals > 0, mode != RxMode::Polling);
    }
}

#[test]
fn chains_are_understood_both_ways() {
    let rig = Rig::start();
    let index = rig.echo("memif.sock", master());
    let rings = Rings::default().buffer_size(512).unwrap();
    let mut connection = Client::new(rig.address("memif.sock")).id(7).rings(rings).connect(SOON).unwrap();
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    echoed(&mut connection, &long()).unwrap();
}

#[test]
fn each_queue_is_served() {
    let rig = Rig::start();
    let index = rig.echo("memif.sock", master());
    let rings = Rings::default().queues(2, 2).unwrap().slots(256).unwrap();
    let mut connection = Client::new(rig.address("memif.sock")).id(7).rings(rings).connect(SOON).unwrap();
    assert_eq!((connection.tx.len(), connection.rx.len()), (2, 2));
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    // VPP's thread sends by one queue, whichever it received from.
    for tx in [0, 1] {
        echoed_by(&mut connection, tx, 0, &many()[..1000]).unwrap();
    }
}

fn served(rig: &Rig, of_vpp: MemifCreateV2, limits: Limits) -> (Listener, Connection) {
    let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
    let port = listener.add(Server::new(7).limits(limits)).unwrap();
    let index = rig.echo("memif.sock", of_vpp);
    let connection = port.accept(SOON).unwrap();
    let connection = connection.unwrap_or_else(|| panic!("VPP does not connect: {:?}", listener.take_refused()));
    rig.await_link(index, true);
    (listener, connection)
}

/// VPP's memory is sealed, whether it copies or not: nobody has to be trusted.
#[test]
fn a_server_of_ours_serves_vpp_with_and_without_copies() {
    for (no_zero_copy, mode) in
        [(false, RxMode::Polling), (false, RxMode::Interrupt), (true, RxMode::Polling), (true, RxMode::Interrupt)]
    {
        let rig = Rig::start();
        rig.rx_mode(mode);
        let of_vpp = MemifCreateV2 { no_zero_copy, ..slave() };
        let (_listener, mut connection) = served(&rig, of_vpp, Limits::default().unsealed(Unsealed::Refused));
        assert_eq!(rig.dump(&MemifDump)[0].zero_copy, !no_zero_copy);
        warm(&mut connection).unwrap();
        echoed(&mut connection, &many()).unwrap();
        echoed(&mut connection, &long()).unwrap();
        let sent = connection.tx[0].counters().read();
        assert_eq!(sent.signals > 0, mode != RxMode::Polling, "{sent:?}");
    }
}

#[test]
fn vpp_has_as_many_queues_as_it_asks_for() {
    let rig = Rig::start();
    let of_vpp = MemifCreateV2 { rx_queues: 2, tx_queues: 3, ring_size: 64, buffer_size: 1024, ..slave() };
    let (_listener, mut connection) = served(&rig, of_vpp, Limits::default());
    assert_eq!((connection.tx.len(), connection.rx.len(), connection.tx[0].slots()), (2, 3, 64));
    warm(&mut connection).unwrap();
    let few: Vec<_> = (0..50).map(|number| packet(number, 60 + number * 100)).collect();
    for tx in [0, 1] {
        echoed_by(&mut connection, tx, 0, &few).unwrap();
    }
}

/// Our end sleeps, and VPP wakes it.
#[test]
fn who_waits_is_woken() {
    for mode in [RxMode::Polling, RxMode::Interrupt] {
        let rig = Rig::start();
        rig.rx_mode(mode);
        let (_listener, mut connection) = served(&rig, slave(), Limits::default());
        warm(&mut connection).unwrap();
        let longest = connection.rx[0].longest_sleep();
        for number in 0..200 {
            let began = std::time::Instant::now();
            connection.tx[0].send(&packet(number, 100)).unwrap().unwrap();
            assert!(connection.rx[0].wait(SOON).unwrap());
            assert_eq!(connection.rx[0].burst(1).unwrap().len(), 1);
            assert!(began.elapsed() < SOON / 4 + longest);
        }
    }
}

/// Names of VPP's network namespace, with a listener of either.
#[test]
fn abstract_names_are_the_same_to_both() {
    let rig = Rig::start();
    let name = format!("memif-vpp/{}", std::process::id());
    let netns = || rig.vpp.netns().try_clone().unwrap();
    let create = |role: MemifCreateV2, name: &str| {
        let socket_id = rig.socket(&format!("abstract:{name}"));
        let created = rig.call(&MemifCreateV2 { id: 7, socket_id, ..role }).sw_if_index;
        let flags = vpp_api_client::messages::IfStatusFlags::ADMIN_UP;
        rig.call(&vpp_api_client::messages::SwInterfaceSetFlags { sw_if_index: created, flags });
        created
    };
    let index = create(master(), &name);
    let address = Address::abstract_name(&name).unwrap();
    assert!(Client::new(address.clone()).id(7).connect(Duration::from_secs(1)).is_err(), "not in this namespace");
    let _connection = Client::new(address).netns(netns()).id(7).connect(SOON).unwrap();
    rig.await_link(index, true);

    let name = format!("{name}/ours");
    let listener = Listener::bind_in(&Address::abstract_name(&name).unwrap(), &netns()).unwrap();
    let port = listener.add(Server::new(7)).unwrap();
    let index = create(slave(), &name);
    let _connection = port.accept(SOON).unwrap().expect("VPP connects");
    rig.await_link(index, true);
}

/// VPP's buffers on hugepages, which it gives to its servers as they are.
#[test]
#[ignore = "needs 64 free hugepages of 2 MiB: sysctl vm.nr_hugepages=64"]
fn a_client_on_hugepages_has_to_be_trusted() {
    let rig = Rig::start_with(Buffers::Hugepages(8192));
    let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
    let port = listener.add(Server::new(7)).unwrap();
    let index = rig.echo("memif.sock", slave());
    assert!(port.accept(Duration::from_secs(4)).unwrap().is_none());
    let refused = listener.take_refused().pop().expect("VPP tried").why.to_string();
    assert!(refused.contains("on hugetlbfs: expected no hugepages, or a server that trusts them"), "{refused}");
    drop(port);
    let port = listener.add(Server::new(7).limits(Limits::default().unsealed(Unsealed::Trusted))).unwrap();
    let mut connection = port.accept(SOON).unwrap().expect("VPP tries again");
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    echoed(&mut connection, &many()).unwrap();
    echoed(&mut connection, &long()).unwrap();
}
