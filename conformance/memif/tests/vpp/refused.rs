//! Who does not belong together, by name.

use std::time::Instant;

use memif::{Client, ConnectError, Limits, Listener, Mode, Refusal, Refused, Secret, Server};
use nsm_memif_peers::traffic::SOON;
use vpp_api_client::messages::{MemifCreateV2, MemifMode};

use super::{Rig, master, slave};

fn await_refusal(listener: &Listener) -> Refused {
    let began = Instant::now();
    loop {
        if let Some(refused) = listener.take_refused().into_iter().next() {
            return refused;
        }
        assert!(began.elapsed() < SOON, "VPP was not refused");
        std::thread::yield_now();
    }
}

#[test]
fn vpp_refuses_us_by_name() {
    let rig = Rig::start();
    let index = rig.memif("memif.sock", MemifCreateV2 { secret: "abc".into(), ..master() });
    let good = || Client::new(rig.address("memif.sock")).id(7).secret(Secret::new("abc").unwrap());
    let refused = |client: Client| match client.connect(SOON).unwrap_err() {
        ConnectError::Refused { reason, .. } => reason,
        other => panic!("{other}"),
    };
    assert_eq!(refused(good().id(8)), "unmatched interface id");
    assert_eq!(refused(good().mode(Mode::Ip)), "mode mismatch");
    assert_eq!(refused(good().secret(Secret::new("abd").unwrap())), "incorrect secret");
    assert_eq!(refused(Client::new(rig.address("memif.sock")).id(7)), "secret required");
    let _connection = good().connect(SOON).unwrap();
    rig.await_link(index, true);
    assert_eq!(refused(good()), "already connected");
}

/// It shows why, in its own words and in ours.
#[test]
fn we_refuse_vpp_by_name() {
    let secret = Secret::new("abc").unwrap();
    let cases = [
        (Server::new(8), slave(), Refusal::UnknownId(7)),
        (Server::new(7).secret(secret), slave(), Refusal::SecretRequired(7)),
        (Server::new(7).secret(secret), MemifCreateV2 { secret: "abd".into(), ..slave() }, Refusal::IncorrectSecret(7)),
        (
            Server::new(7),
            MemifCreateV2 { mode: MemifMode::Ip, ..slave() },
            Refusal::Mode { got: Mode::Ip, expected: Mode::Ethernet },
        ),
    ];
    let rig = Rig::start();
    for (number, (server, of_vpp, expected)) in cases.into_iter().enumerate() {
        let name = format!("memif{number}.sock");
        let listener = Listener::bind(&rig.address(&name)).unwrap();
        let _port = listener.add(server).unwrap();
        rig.memif(&name, of_vpp);
        assert_eq!(await_refusal(&listener).why, expected);
        let shown = vpp_api_client::messages::CliInband { cmd: "show memif".into() };
        let shown = rig.call(&shown).reply;
        assert!(shown.contains(&expected.to_string()), "{expected}: {shown}");
    }
}

/// It lays out as many slots as it may have, and announces as many as it was told to have.
#[test]
fn vpp_does_not_make_its_rings_smaller() {
    let rig = Rig::start();
    let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
    let _port = listener.add(Server::new(7).limits(Limits::default().slots(64).unwrap())).unwrap();
    rig.memif("memif.sock", slave());
    let refused = await_refusal(&listener);
    assert!(matches!(refused.why, Refusal::RingSize { log2: 10, most: 6, .. }), "{}", refused.why);
    assert_eq!(refused.id, Some(7));
    rig.memif("small.sock", MemifCreateV2 { ring_size: 64, ..slave() });
    let listener = Listener::bind(&rig.address("small.sock")).unwrap();
    let port = listener.add(Server::new(7).limits(Limits::default().slots(64).unwrap())).unwrap();
    assert_eq!(port.accept(SOON).unwrap().expect("VPP connects").rx[0].slots(), 64);
}

#[test]
fn the_right_secret_is_enough() {
    let rig = Rig::start();
    let listener = Listener::bind(&rig.address("memif.sock")).unwrap();
    let port = listener.add(Server::new(7).secret(Secret::new("abc").unwrap())).unwrap();
    let index = rig.memif("memif.sock", MemifCreateV2 { secret: "abc".into(), ..slave() });
    let connection = port.accept(SOON).unwrap().expect("VPP connects");
    rig.await_link(index, true);
    assert!(connection.link.check().is_ok());
}
