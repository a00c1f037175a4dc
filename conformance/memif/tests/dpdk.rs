//! DPDK's memif driver and ours, in both roles each.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use memif::{Address, Client, ConnectError, Limits, Listener, Refusal, Rings, Secret, Server, Unsealed};
use nsm_memif_peers::{
    Testpmd, device,
    traffic::{SOON, connected, echoed, packet, warm},
};
use tempfile::TempDir;

/// Each test has a processor that polls: one after another.
static ALONE: Mutex<()> = Mutex::new(());

fn place() -> (MutexGuard<'static, ()>, TempDir, Address) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let address = Address::path(dir.path().join("memif.sock")).unwrap();
    (alone, dir, address)
}

fn server(address: &Address, more: &str) -> Testpmd {
    Testpmd::start(&device("server", address.as_path().unwrap(), more), "io", &[]).unwrap()
}

fn client(address: &Address, forward: &str, more: &str) -> Testpmd {
    Testpmd::start(&device("client", address.as_path().unwrap(), more), forward, &["--single-file-segments"]).unwrap()
}

#[test]
fn what_a_client_sends_comes_back_as_it_was() {
    let (_alone, _dir, address) = place();
    let mut dpdk = server(&address, ",id=7,secret=abc");
    let mut connection = Client::new(address).id(7).secret(Secret::new("abc").unwrap()).connect(SOON).unwrap();
    assert!(connection.peer.program.to_string().contains("DPDK"), "{}", connection.peer.program);
    dpdk.forward().unwrap();
    warm(&mut connection).unwrap();
    echoed(&mut connection, &(0..5000).map(|number| packet(number, 60 + number % 1400)).collect::<Vec<_>>()).unwrap();
    dpdk.stop().unwrap();
}

#[test]
fn chains_are_understood_both_ways() {
    let (_alone, _dir, address) = place();
    let mut dpdk = server(&address, "");
    let rings = Rings::default().buffer_size(512).unwrap();
    let mut connection = Client::new(address).rings(rings).connect(SOON).unwrap();
    dpdk.forward().unwrap();
    warm(&mut connection).unwrap();
    echoed(&mut connection, &(0..500).map(|number| packet(number, 400 + number * 3)).collect::<Vec<_>>()).unwrap();
    dpdk.stop().unwrap();
}

#[test]
fn a_server_refuses_us_by_name() {
    let (_alone, _dir, address) = place();
    let _dpdk = server(&address, ",id=7,secret=abc");
    let good = || Client::new(address.clone()).id(7).secret(Secret::new("abc").unwrap());
    let refused = |client: Client| match client.connect(SOON).unwrap_err() {
        ConnectError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(refused(good().id(8)), "ID not found");
    assert_eq!(refused(good().secret(Secret::new("abd").unwrap())), "Incorrect secret");
    let _connection = good().connect(SOON).unwrap();
    assert_eq!(refused(good()), "Already connected");
}

#[test]
fn a_client_of_ours_comes_and_goes() {
    let (_alone, _dir, address) = place();
    let mut dpdk = server(&address, "");
    let client = Client::new(address);
    for round in 0..5 {
        let mut connection = connected(&client).unwrap();
        dpdk.forward().unwrap();
        warm(&mut connection).unwrap();
        echoed(&mut connection, &[packet(round, 300), packet(round + 1, 90)]).unwrap();
        dpdk.stop().unwrap();
    }
}

/// A client that sends until it is stopped; what came, and what it says that it sent.
fn received(address: &Address, limits: Limits, more: &str) -> (u64, u64) {
    let listener = Listener::bind(address).unwrap();
    let port = listener.add(Server::new(0).limits(limits)).unwrap();
    let mut dpdk = client(address, "flowgen", more);
    let mut connection = port.accept(SOON).unwrap().expect("DPDK connects");
    dpdk.forward().unwrap();
    let (rx, began) = (&mut connection.rx[0], Instant::now());
    let mut count = 0;
    let take = |rx: &mut memif::RxQueue, count: &mut u64| {
        for packet in rx.burst(256).unwrap().iter() {
            // UDP over IPv4 that flowgen makes.
            let bytes = packet.to_vec();
            assert_eq!((&bytes[12..15], bytes[23]), ([8, 0, 0x45].as_slice(), 17), "{bytes:?}");
            *count += 1;
        }
    };
    while count < 20_000 {
        assert!(began.elapsed() < SOON, "{count} packets");
        take(rx, &mut count);
    }
    let stopping = std::thread::spawn(move || {
        let sent = dpdk.stop().unwrap().sent;
        (dpdk, sent)
    });
    while !stopping.is_finished() {
        take(rx, &mut count);
    }
    let (_dpdk, sent) = stopping.join().unwrap();
    while rx.wait(Duration::from_millis(200)).unwrap() {
        take(rx, &mut count);
    }
    assert_eq!(rx.counters().read().invalid, 0);
    (count, sent)
}

#[test]
fn all_that_a_client_of_theirs_sends_arrives() {
    let (_alone, _dir, address) = place();
    let (count, sent) = received(&address, Limits::default(), "");
    assert_eq!(count, sent);
}

#[test]
fn zero_copy_clients_are_served_with_and_without_trust() {
    for unsealed in [Unsealed::Guarded, Unsealed::Trusted] {
        let (_alone, _dir, address) = place();
        let (count, sent) = received(&address, Limits::default().unsealed(unsealed), ",zero-copy=yes");
        assert_eq!(count, sent, "{unsealed:?}");
    }
}

#[test]
fn we_refuse_a_client_of_theirs_by_name() {
    let refused = |server: Server, more: &str| {
        let (_alone, _dir, address) = place();
        let listener = Listener::bind(&address).unwrap();
        let _port = listener.add(server).unwrap();
        let _dpdk = client(&address, "io", more);
        let began = Instant::now();
        loop {
            if let Some(refused) = listener.take_refused().into_iter().next() {
                return refused.why;
            }
            assert!(began.elapsed() < SOON, "nobody was refused");
            std::thread::yield_now();
        }
    };
    let secret = Secret::new("abc").unwrap();
    assert_eq!(refused(Server::new(1), ""), Refusal::UnknownId(0));
    assert_eq!(refused(Server::new(0).secret(secret), ""), Refusal::SecretRequired(0));
    assert_eq!(refused(Server::new(0).secret(secret), ",secret=abd"), Refusal::IncorrectSecret(0));
    let sealed = Limits::default().unsealed(Unsealed::Refused);
    let unsealed = refused(Server::new(0).limits(sealed), ",zero-copy=yes");
    assert!(unsealed.to_string().ends_with("expected the seal F_SEAL_SHRINK"), "{unsealed}");
}

#[test]
fn we_send_into_their_memory() {
    for (more, unsealed) in
        [("", Unsealed::Refused), (",zero-copy=yes", Unsealed::Guarded), (",zero-copy=yes", Unsealed::Trusted)]
    {
        let (_alone, _dir, address) = place();
        let listener = Listener::bind(&address).unwrap();
        let port = listener.add(Server::new(0).limits(Limits::default().unsealed(unsealed))).unwrap();
        let mut dpdk = client(&address, "io", more);
        let mut connection = port.accept(SOON).unwrap().expect("DPDK connects");
        dpdk.forward().unwrap();
        warm(&mut connection).unwrap();
        echoed(&mut connection, &(0..1000).map(|number| packet(number, 60 + number)).collect::<Vec<_>>()).unwrap();
        dpdk.stop().unwrap();
    }
}

#[test]
fn abstract_names_are_the_same_to_both() {
    let (_alone, _dir, _) = place();
    let name = format!("memif-peers/{}", std::process::id());
    let _dpdk = Testpmd::start(&format!("role=server,socket={name},socket-abstract=yes"), "io", &[]).unwrap();
    let connection = Client::new(Address::abstract_name(&name).unwrap()).connect(SOON).unwrap();
    assert!(connection.link.check().is_ok());
}

/// Needs what DPDK needs as well: root.
#[test]
fn a_name_belongs_to_the_namespace_that_it_was_bound_in() {
    let elsewhere = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        std::os::fd::OwnedFd::from(std::fs::File::open("/proc/thread-self/ns/net").unwrap())
    });
    let netns = elsewhere.join().unwrap();
    let address = Address::abstract_name(format!("memif-netns/{}", std::process::id())).unwrap();
    let listener = Listener::bind_in(&address, &netns).unwrap();
    let port = listener.add(Server::new(0)).unwrap();
    let here = Client::new(address.clone()).connect(SOON).unwrap_err();
    assert!(matches!(here, ConnectError::Connect { .. }), "{here}");
    let there = Client::new(address).netns(netns).connect(SOON).unwrap();
    let _accepted = port.accept(SOON).unwrap().expect("it has connected");
    assert!(there.link.check().is_ok());
}
