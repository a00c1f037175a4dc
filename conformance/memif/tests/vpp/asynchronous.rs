//! The futures, in both roles, on one thread.

use std::sync::Arc;

use memif::{
    Client, Connection, Down, Listener, Server,
    asynchronous::{AsyncLink, AsyncPort, AsyncRx, AsyncTx, connect},
};
use nsm_memif_peers::traffic::{SOON, packet};
use tokio::time::timeout;
use vpp_api_client::messages::RxMode;

use super::{Rig, master, slave};

/// Sends these and takes them back, with a task for each.
async fn echoed(connection: Connection, packets: &[Vec<u8>]) -> (AsyncTx, AsyncRx) {
    let Connection { rx, tx, .. } = connection;
    let mut tx = AsyncTx::new(tx.into_iter().next().unwrap());
    let mut rx = AsyncRx::new(rx.into_iter().next().unwrap()).unwrap();
    // By so many the sender may be ahead: VPP drops what the ring back has no room for.
    let ahead = tokio::sync::Semaphore::new(200);
    let sending = async {
        for packet in packets {
            ahead.acquire().await.unwrap().forget();
            let mut burst = tx.burst().await.unwrap();
            burst.push(packet).unwrap();
            burst.send().unwrap();
        }
    };
    let receiving = async {
        let mut received = 0;
        while received < packets.len() {
            for packet in rx.burst(64).await.unwrap().iter() {
                assert_eq!(packet.to_vec(), packets[received], "packet {received}");
                received += 1;
                ahead.add_permits(1);
            }
        }
    };
    timeout(SOON, async { tokio::join!(sending, receiving) }).await.unwrap();
    (tx, rx)
}

#[test]
fn both_roles_do_with_tokio_what_they_do_without() {
    let packets: Vec<_> = (0..3000).map(|number| packet(number, 60 + number)).collect();
    for mode in [RxMode::Polling, RxMode::Interrupt] {
        let mut rig = Rig::start();
        rig.rx_mode(mode);
        let index = rig.echo("master.sock", master());
        let client = Arc::new(Client::new(rig.address("master.sock")).id(7));
        let connection = rig.runtime.block_on(connect(client, SOON)).unwrap();
        rig.await_link(index, true);
        drop(rig.runtime.block_on(echoed(connection, &packets)));

        let listener = Listener::bind(&rig.address("slave.sock")).unwrap();
        let port = listener.add(Server::new(7)).unwrap();
        let index = rig.echo("slave.sock", slave());
        let accepted = async { timeout(SOON, AsyncPort::new(port).unwrap().accept()).await };
        let connection = rig.runtime.block_on(accepted).unwrap().unwrap();
        rig.await_link(index, true);
        let link = connection.link.clone();
        let (_tx, mut rx) = rig.runtime.block_on(echoed(connection, &packets));
        rig.vpp.kill();
        let down = async { timeout(SOON, AsyncLink::new(&link).unwrap().down()).await };
        assert_eq!(rig.runtime.block_on(down).unwrap(), Down::Closed);
        assert!(rig.runtime.block_on(async { timeout(SOON, rx.burst(1)).await }).unwrap().is_err());
    }
}
