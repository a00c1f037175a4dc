//! The futures: `cargo test -p memif --all-features --test asynchronous`.
#![cfg(feature = "tokio")]

use std::{sync::Arc, time::Duration};

use memif::{
    Address, Backoff, Client, Connection, Down, Listener, NotTaken, Reconnect, Rings, Server,
    asynchronous::{AsyncLink, AsyncPort, AsyncReconnect, AsyncRx, AsyncTx, connect},
};
use tempfile::TempDir;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(20);

async fn pair(rings: Rings) -> (TempDir, Connection, Connection) {
    let dir = tempfile::tempdir().unwrap();
    let address = Address::path(dir.path().join("memif.sock")).unwrap();
    let listener = Listener::bind(&address).unwrap();
    let port = AsyncPort::new(listener.add(Server::new(0)).unwrap()).unwrap();
    let client = Arc::new(Client::new(address).rings(rings));
    let (near, far) = tokio::join!(connect(client, SOON), timeout(SOON, port.accept()));
    (dir, near.unwrap(), far.unwrap().unwrap())
}

fn first<T>(queues: Vec<T>) -> T {
    queues.into_iter().next().unwrap()
}

#[tokio::test]
async fn packets_pass_between_tasks_of_one_thread() {
    const COUNT: u32 = 20_000;
    let (_dir, near, far) = pair(Rings::default().slots(64).unwrap()).await;
    for (tx, rx) in [(first(near.tx), first(far.rx)), (first(far.tx), first(near.rx))] {
        let (mut tx, mut rx) = (AsyncTx::new(tx), AsyncRx::new(rx).unwrap());
        let sending = async {
            let mut sent = 0;
            while sent < COUNT {
                let mut burst = tx.burst().await.unwrap();
                while sent < COUNT && burst.push(&sent.to_ne_bytes()).is_ok() {
                    sent += 1;
                }
                burst.send().unwrap();
                tokio::task::yield_now().await;
            }
        };
        let receiving = async {
            let mut next = 0;
            while next < COUNT {
                for packet in rx.burst(32).await.unwrap().iter() {
                    assert_eq!(packet.to_vec(), next.to_ne_bytes());
                    next += 1;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, async { tokio::join!(sending, receiving) }).await.unwrap();
    }
}

#[tokio::test]
async fn a_wait_that_is_dropped_loses_nothing() {
    let (_dir, mut near, far) = pair(Rings::default()).await;
    let mut rx = AsyncRx::new(first(far.rx)).unwrap();
    assert!(timeout(Duration::from_millis(20), rx.readable()).await.is_err());
    near.tx[0].send(b"late").unwrap().unwrap();
    let burst = timeout(SOON, rx.burst(8)).await.unwrap().unwrap();
    assert_eq!(burst.iter().map(|packet| packet.to_vec()).collect::<Vec<_>>(), [b"late"]);
}

#[tokio::test]
async fn who_has_too_little_room_waits_and_hears_of_the_end() {
    let (_dir, near, far) = pair(Rings::default().slots(4).unwrap().buffer_size(64).unwrap()).await;
    let mut tx = AsyncTx::new(first(near.tx));
    tx.queue().send(&[1; 3 * 64]).unwrap().unwrap();
    let mut bursts = 0;
    let pushing = async {
        loop {
            // One buffer is free, for a packet of two.
            match tx.burst().await {
                Ok(mut burst) => assert_eq!(burst.push(&[2; 100]), Err(NotTaken::Full)),
                Err(down) => return down,
            }
            bursts += 1;
            if bursts == 5 {
                far.link.close("enough");
            }
        }
    };
    let down = timeout(SOON, pushing).await.expect("it waits in between, or nobody else would get a turn");
    assert!(matches!(down, Down::Disconnected { .. }), "{down}");
    assert_eq!(bursts, 5);
}

#[tokio::test]
async fn who_waits_hears_of_the_end() {
    let (_dir, near, far) = pair(Rings::default()).await;
    let link = AsyncLink::new(&near.link).unwrap();
    let mut rx = AsyncRx::new(first(near.rx)).unwrap();
    let ended = async {
        tokio::task::yield_now().await;
        far.link.close("maintenance");
    };
    let (ended, waited, ()) = tokio::join!(timeout(SOON, link.down()), timeout(SOON, rx.readable()), ended);
    for down in [ended.unwrap(), waited.unwrap().unwrap_err()] {
        assert!(matches!(&down, Down::Disconnected { reason, .. } if reason.to_string() == "maintenance"), "{down}");
    }
}

#[tokio::test]
async fn a_client_comes_back_and_the_runtime_goes_on_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let address = Address::path(dir.path().join("memif.sock")).unwrap();
    let backoff = Backoff::new(Duration::from_millis(1), Duration::from_millis(20));
    let mut again = AsyncReconnect::new(Reconnect::new(Client::new(address.clone()), backoff));
    while again.failure().is_none() {
        assert!(timeout(Duration::from_millis(20), again.connect()).await.is_err());
    }
    assert!(again.failure().unwrap().to_string().contains("does the server run"));
    for _ in 0..3 {
        let listener = Listener::bind(&address).unwrap();
        let port = AsyncPort::new(listener.add(Server::new(0)).unwrap()).unwrap();
        let (near, far) = tokio::join!(timeout(SOON, again.connect()), timeout(SOON, port.accept()));
        let (near, mut far) = (near.unwrap(), far.unwrap().unwrap());
        assert!(again.failure().is_none());
        far.tx[0].send(b"again").unwrap().unwrap();
        let mut rx = AsyncRx::new(first(near.rx)).unwrap();
        assert_eq!(timeout(SOON, rx.burst(8)).await.unwrap().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn an_attempt_that_nobody_waits_for_is_taken_by_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let address = Address::path(dir.path().join("memif.sock")).unwrap();
    let mut again = AsyncReconnect::new(Reconnect::new(Client::new(address.clone()), Backoff::default()));
    // It listens, and has no interface yet: the attempt hangs.
    let listener = Listener::bind(&address).unwrap();
    assert!(timeout(Duration::from_millis(50), again.connect()).await.is_err());
    let port = AsyncPort::new(listener.add(Server::new(0)).unwrap()).unwrap();
    let far = timeout(SOON, port.accept()).await.unwrap().unwrap();
    let near = timeout(SOON, again.connect()).await.unwrap();
    assert_eq!((near.link.check(), far.link.check()), (Ok(()), Ok(())));
}
