//! Connections that come back.

use std::time::Duration;

use vpp_api_client::fake::{Deed, Fake, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{ControlPing, ShowVersion, SwInterfaceSetFlags, WantInterfaceEvents};
use vpp_api_client::session::Process;
use vpp_api_client::{Error, Loss, Session};

use super::{options, place, usual};

const NEVER: Duration = Duration::from_hours(1);

#[tokio::test]
async fn a_session_comes_back_and_says_what_was_lost() {
    let (_dir, path) = place();
    let silent = |asked: &vpp_api_client::fake::Asked| match asked.name.as_str() {
        ShowVersion::NAME => vec![Deed::Stream(Vec::new())],
        _ => usual(asked),
    };
    let first = Fake::start(&path, Nature::default(), silent).unwrap();
    let mut session = Session::start(&path, options(), NEVER);
    let vpp = session.client().await.unwrap();
    let events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    let call = tokio::spawn({
        let vpp = vpp.clone();
        async move { vpp.call(&ShowVersion).await }
    });
    vpp.ping().await.unwrap();
    drop(first);
    assert!(matches!(call.await.unwrap(), Err(Error::Lost { .. })));

    let mut nature = Nature { first_id: 500, ..Nature::default() };
    nature.messages.remove("memif_create_v2");
    let _second = Fake::start(&path, nature, usual).unwrap();
    let report = session.reconnected().await.unwrap();
    assert!(matches!(report.loss, Loss::Closed | Loss::Io(_)), "{report:?}");
    assert_eq!(report.subscriptions, ["want_interface_events"]);
    assert_eq!(report.calls, 1);
    assert_eq!(report.messages, ["memif_create_v2_8c7de5f7"]);
    // Both fakes are this process.
    assert_eq!(report.process, Process::Same);
    let vpp = session.client().await.unwrap();
    vpp.call(&SwInterfaceSetFlags::default()).await.unwrap();
    drop(events);
}

#[tokio::test]
async fn a_vpp_that_hangs_is_found_by_a_ping() {
    let (_dir, path) = place();
    let mut pings = 0;
    let _fake = Fake::start(&path, Nature::default(), move |asked| match asked.name.as_str() {
        // A call that waits meanwhile, and is told why it does so in vain.
        ShowVersion::NAME => vec![Deed::Stream(Vec::new())],
        ControlPing::NAME => {
            pings += 1;
            // The first is that of the connection itself, the second finds it hanging, as does any later one.
            if pings >= 2 { vec![Deed::Stream(Vec::new())] } else { Vec::new() }
        }
        _ => Vec::new(),
    })
    .unwrap();
    let mut session = Session::start(&path, options().timeout(Duration::from_millis(50)), Duration::from_millis(20));
    let connected = async {
        loop {
            if let Ok(vpp) = session.client().await {
                return vpp;
            }
        }
    };
    let vpp = tokio::time::timeout(Duration::from_secs(30), connected).await.unwrap();
    let waiting = vpp.within(Duration::MAX).call(&ShowVersion).await.unwrap_err();
    assert!(waiting.to_string().contains("did not answer a ping within 50ms"), "{waiting}");
    let report = session.reconnected().await.unwrap();
    assert!(matches!(report.loss, Loss::Nonsense(_)), "{report:?}");
}

#[tokio::test]
async fn without_a_vpp_a_session_says_why() {
    let (_dir, path) = place();
    let session = Session::start(&path, options().timeout(Duration::from_millis(50)), NEVER);
    assert!(matches!(session.client().await, Err(Error::Connect { .. } | Error::Handshake { .. })));
    // Who waits longer gets the connection once there is a VPP.
    let patient = Session::start(&path, options(), NEVER);
    let _fake = Fake::start(&path, Nature::default(), usual).unwrap();
    patient.client().await.unwrap().ping().await.unwrap();
}
