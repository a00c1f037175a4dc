//! A VPP that hangs, dies, comes back.

use std::time::{Duration, Instant};

use vpp_api_client::messages::{IfStatusFlags, SwInterfaceDump, SwInterfaceSetFlags, WantInterfaceEvents};
use vpp_api_client::session::Process;
use vpp_api_client::{Client, Error, InterfaceIndex, Options, Session};

use super::{SOON, connect, loopback, start};

#[tokio::test]
async fn a_call_ends_in_time_whatever_vpp_does() {
    let (vpp, client) = start().await;
    vpp.hang().unwrap();
    let began = Instant::now();
    let late = client.within(Duration::from_millis(200)).ping().await.unwrap_err();
    assert!(matches!(late, Error::Timeout { .. }), "{late}");
    assert!(began.elapsed() < Duration::from_secs(5));
    let dump = client.within(Duration::from_millis(200)).dump(&SwInterfaceDump::default()).await.unwrap_err();
    assert!(matches!(dump, Error::Timeout { .. }), "{dump}");
    let nobody = Client::connect(vpp.api_socket(), Options::new("late").timeout(Duration::from_millis(200))).await;
    assert!(matches!(nobody, Err(Error::Handshake { .. })), "{nobody:?}");
    vpp.go_on().unwrap();
    // The answers that come now are nobody's, and the next ones are not mistaken for them.
    let flags = IfStatusFlags::ADMIN_UP;
    let refused = client.call(&SwInterfaceSetFlags { sw_if_index: InterfaceIndex(9999), flags }).await;
    assert!(matches!(refused, Err(Error::Refused { .. })), "{refused:?}");
    assert_eq!(client.dump(&SwInterfaceDump::default()).await.unwrap().len(), 1);
    assert!(client.strays() > 0);
}

#[tokio::test]
async fn its_other_sockets_are_told_from_the_apis() {
    let (vpp, _client) = start().await;
    let options = || Options::new("lost").timeout(Duration::from_secs(1));
    for other in [vpp.stats_socket(), vpp.file("cli.sock")] {
        let error = Client::connect(other, options()).await.unwrap_err().to_string();
        assert!(error.contains("the CLI's"), "{error}");
    }
}

#[tokio::test]
async fn a_vpp_that_was_killed_is_another_one_afterwards() {
    let (mut vpp, client) = start().await;
    let mut session = Session::start(vpp.api_socket(), Options::new("test"), Duration::from_secs(10));
    let of_session = session.client().await.unwrap();
    let mut events = of_session.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    loopback(&client).await;
    events.next().await.ok();
    vpp.hang().unwrap();
    let waiting = tokio::spawn(async move { of_session.ping().await });
    while client.within(Duration::from_millis(20)).ping().await.is_ok() {}
    vpp.kill();
    let lost = waiting.await.unwrap().unwrap_err();
    assert!(matches!(lost, Error::Lost { .. }), "{lost}");
    assert!(matches!(client.ping().await, Err(Error::Lost { .. })));
    vpp.start_again().unwrap();
    let report = tokio::time::timeout(Duration::from_mins(1), session.reconnected()).await.unwrap().unwrap();
    assert_eq!((report.process, report.calls), (Process::Another, 1));
    assert_eq!(
        (report.subscriptions.as_slice(), report.messages.as_slice()),
        (["want_interface_events".into()].as_slice(), [].as_slice())
    );
    let again = session.client().await.unwrap();
    assert_eq!(again.dump(&SwInterfaceDump::default()).await.unwrap().len(), 1);
    again.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
}

#[tokio::test]
async fn what_a_client_made_stays_when_it_goes() {
    let (vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    let want = WantInterfaceEvents { enable_disable: 1, pid: 1 };
    drop(client.subscribe(&want).await.unwrap());
    drop(client);
    let client = connect(&vpp).await;
    let all = client.dump(&SwInterfaceDump::default()).await.unwrap();
    assert!(all.iter().any(|of| of.sw_if_index == sw_if_index));
    client.subscribe(&want).await.unwrap();
}

/// What VPP 26.06 keeps of a connection that just ends, where it had much to say, it never frees; with sixteen of them it answers nobody.
#[tokio::test]
async fn clients_come_and_go() {
    let (vpp, first) = start().await;
    for _ in 0..40 {
        let client = connect(&vpp).await;
        client.definitions().await.unwrap();
        drop(client);
    }
    for _ in 0..40 {
        let client = connect(&vpp).await;
        client.definitions().await.unwrap();
        client.close().await.unwrap();
    }
    first.ping().await.unwrap();
    connect(&vpp).await.ping().await.unwrap();
}

#[tokio::test]
async fn a_session_finds_a_vpp_that_hangs() {
    let (vpp, _client) = start().await;
    let options = Options::new("test").timeout(Duration::from_millis(500));
    let mut session = Session::start(vpp.api_socket(), options, Duration::from_millis(100));
    session.client().await.unwrap();
    vpp.hang().unwrap();
    while session.client().await.is_ok() {
        tokio::task::yield_now().await;
    }
    vpp.go_on().unwrap();
    let report = tokio::time::timeout(SOON, session.reconnected()).await.unwrap().unwrap();
    assert_eq!(report.process, Process::Same);
}
