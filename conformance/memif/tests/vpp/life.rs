//! Either end goes, and comes back.

use std::time::Duration;

use memif::{Backoff, Client, Listener, Reconnect, Server};
use nsm_memif_peers::traffic::{SOON, connected, echoed, packet, warm};
use vpp_api_client::messages::{IfStatusFlags, MemifDelete, SwInterfaceSetFlags};

use super::{Rig, master, slave};

#[test]
fn a_client_of_ours_comes_and_goes() {
    let rig = Rig::start();
    let index = rig.echo("memif.sock", master());
    let client = Client::new(rig.address("memif.sock")).id(7);
    for round in 0..5 {
        let mut connection = connected(&client).unwrap();
        rig.await_link(index, true);
        warm(&mut connection).unwrap();
        echoed(&mut connection, &[packet(round, 300), packet(round + 1, 90)]).unwrap();
        drop(connection);
        rig.await_link(index, false);
    }
}

#[test]
fn a_client_of_ours_outlives_vpp() {
    let mut rig = Rig::start();
    let index = rig.echo("memif.sock", master());
    let client = Client::new(rig.address("memif.sock")).id(7);
    let mut client = Reconnect::new(client, Backoff::new(Duration::from_millis(10), Duration::from_millis(200)));
    let mut connection = client.connect(SOON).expect("VPP listens");
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    rig.restart();
    let down = connection.link.wait_down(SOON).expect("VPP was killed");
    println!("{down}");
    let index = rig.echo("memif.sock", master());
    let mut connection = client.connect(SOON).expect("the next VPP listens");
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    echoed(&mut connection, &[packet(1, 300), packet(2, 90)]).unwrap();
    // An interface that is removed is a link that is down.
    rig.call(&MemifDelete { sw_if_index: index });
    println!("{}", connection.link.wait_down(SOON).expect("the interface was removed"));
}

#[test]
fn a_server_of_ours_outlives_vpp() {
    let mut rig = Rig::start();
    let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
    let port = listener.add(Server::new(7)).unwrap();
    for round in 0..3 {
        let index = rig.echo("memif.sock", slave());
        let mut connection = port.accept(SOON).unwrap().expect("VPP connects");
        rig.await_link(index, true);
        warm(&mut connection).unwrap();
        echoed(&mut connection, &[packet(round, 300), packet(round + 1, 90)]).unwrap();
        rig.restart();
        assert!(connection.link.wait_down(SOON).is_some());
        assert!(connection.rx[0].wait(SOON).is_err());
    }
}

/// VPP tries again every three seconds.
#[test]
fn vpp_finds_the_next_server_of_ours() {
    let rig = Rig::start();
    let index = rig.echo("memif.sock", slave());
    for round in 0..2 {
        let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
        let port = listener.add(Server::new(7)).unwrap();
        let mut connection = port.accept(SOON).unwrap().expect("VPP tries again");
        rig.await_link(index, true);
        warm(&mut connection).unwrap();
        echoed(&mut connection, &[packet(round, 300)]).unwrap();
        drop((connection, port, listener));
        rig.await_link(index, false);
    }
}

/// VPP 26.06 ends when it is hung up on while it has something to say, so our listener lets it speak first.
#[test]
fn vpp_survives_servers_of_ours_that_close_in_the_middle() {
    let rig = Rig::start();
    let index = rig.memif("memif.sock", slave());
    let mut met = 0;
    for round in 0..100_u32 {
        let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
        let port = listener.add(Server::new(7)).unwrap();
        // VPP tries at once.
        for flags in [IfStatusFlags::empty(), IfStatusFlags::ADMIN_UP] {
            rig.call(&SwInterfaceSetFlags { sw_if_index: index, flags });
        }
        let connection = port.accept(Duration::from_micros(u64::from(round) * 10)).unwrap();
        met += u32::from(connection.is_some());
        drop(listener);
    }
    println!("{met} of 100 handshakes came to an end");
    let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
    let port = listener.add(Server::new(7)).unwrap();
    assert!(port.accept(SOON).unwrap().is_some(), "{}", rig.vpp.said());
}

#[test]
fn vpp_survives_clients_of_ours_that_give_up() {
    let rig = Rig::start();
    let index = rig.echo("memif.sock", master());
    let client = Client::new(rig.address("memif.sock")).id(7);
    for round in 0..100 {
        drop(client.connect(Duration::from_micros(round * 10)));
    }
    let mut connection = connected(&client).unwrap_or_else(|error| panic!("{error}: {}", rig.vpp.said()));
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
}

/// VPP keeps the connection of an interface that is set down, and drops what comes.
#[test]
fn an_interface_that_is_down_has_a_link() {
    let rig = Rig::start();
    let index = rig.echo("memif.sock", master());
    let mut connection = Client::new(rig.address("memif.sock")).id(7).connect(SOON).unwrap();
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    rig.call(&SwInterfaceSetFlags { sw_if_index: index, flags: IfStatusFlags::empty() });
    rig.await_link(index, false);
    connection.tx[0].send(&packet(1, 100)).unwrap().unwrap();
    assert!(!connection.rx[0].wait(Duration::from_millis(300)).unwrap());
    assert!(connection.link.check().is_ok());
    rig.call(&SwInterfaceSetFlags { sw_if_index: index, flags: IfStatusFlags::ADMIN_UP });
    rig.await_link(index, true);
    warm(&mut connection).unwrap();
    echoed(&mut connection, &[packet(2, 300)]).unwrap();
}
