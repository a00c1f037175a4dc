//! A VPP that is another one, breaks off, talks nonsense, or says nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;
use vpp_api_client::client::EventError;
use vpp_api_client::definition::Definitions;
use vpp_api_client::fake::{Deed, Fake, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    CliInband, ControlPing, GetApiJson, GetApiJsonReply, IfStatusFlags, MemifCreateV2, ShowVersion, ShowVersionReply,
    SwInterfaceDump, SwInterfaceSetFlags, SwInterfaceTxPlacementDetails, SwInterfaceTxPlacementGet,
    SwInterfaceTxPlacementGetReply, WantInterfaceEvents,
};
use vpp_api_client::{Client, Error, InterfaceIndex, Loss, Options, Retval, Sent};

use super::{options, pair, place, usual};

#[tokio::test]
async fn frames_may_be_cut_anywhere() {
    for pieces in [1, 2, 7, 15, 16, 17, 100, 4096] {
        let (_dir, _fake, vpp) = pair(Nature { pieces, ..Nature::default() }, |asked| match asked.name.as_str() {
            SwInterfaceDump::NAME => (0..20).map(|index| Deed::answer(asked, &super::interface(index))).collect(),
            _ => Vec::new(),
        })
        .await;
        assert_eq!(vpp.dump(&SwInterfaceDump::default()).await.unwrap().len(), 20, "{pieces}");
    }
}

#[tokio::test]
async fn ids_are_those_of_the_running_vpp() {
    for first_id in [17, 1000, 60_000] {
        let (_dir, _fake, vpp) = pair(Nature { first_id, ..Nature::default() }, usual).await;
        vpp.call(&SwInterfaceSetFlags::default()).await.unwrap();
    }
}

fn nature_with(change: impl FnOnce(&mut BTreeMap<String, u32>)) -> Nature {
    let mut nature = Nature::default();
    change(&mut nature.messages);
    nature
}

#[tokio::test]
async fn a_message_of_another_version_is_refused_by_name_and_the_others_work() {
    let nature = nature_with(|messages| {
        messages.insert("memif_create_v2".into(), 0x1234_5678);
        messages.remove("show_version");
    });
    let (_dir, _fake, vpp) = pair(nature, usual).await;
    let other = vpp.call(&MemifCreateV2::default()).await.unwrap_err();
    assert_eq!(
        other.to_string(),
        "memif_create_v2: its CRC is 8c7de5f7 here and 12345678 in this VPP: use definitions of VPP's version"
    );
    let absent = vpp.call(&ShowVersion).await.unwrap_err();
    assert!(absent.to_string().starts_with("show_version_51077d14: this VPP has no such message"), "{absent}");
    let by_name = vpp.call_by_name(&Definitions::ours(), "memif_create_v2", &json!({})).await;
    assert!(matches!(by_name, Err(Error::OtherVersion { theirs: 0x1234_5678, .. })));
    assert_eq!(vpp.unusable().len(), 2);
    vpp.call(&SwInterfaceSetFlags::default()).await.unwrap();
}

#[tokio::test]
async fn silence_ends_with_the_deadline() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        // A dump of which only the ping is lost.
        ControlPing::NAME => vec![Deed::Stream(Vec::new())],
        _ => usual(asked),
    })
    .await;
    let vpp = vpp.within(Duration::from_millis(30));
    assert!(matches!(vpp.call(&ShowVersion).await, Err(Error::Timeout { .. })));
    assert!(matches!(vpp.dump(&SwInterfaceDump::default()).await, Err(Error::Timeout { .. })));
    assert!(matches!(vpp.ping().await, Err(Error::Timeout { .. })));
    // What came for those goes nowhere, and the next call is answered.
    vpp.within(Duration::from_secs(10)).call(&SwInterfaceSetFlags::default()).await.unwrap();
}

#[tokio::test]
async fn an_answer_of_another_kind_fails_that_call_alone() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        SwInterfaceSetFlags::NAME | ShowVersion::NAME => vec![Deed::answer(asked, &ShowVersionReply::default())],
        _ => Vec::new(),
    })
    .await;
    let error = vpp.call(&SwInterfaceSetFlags::default()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "sw_interface_set_flags: expected sw_interface_set_flags_reply, VPP sent show_version_reply"
    );
    vpp.call(&ShowVersion).await.unwrap();
}

#[tokio::test]
async fn answers_to_nobody_are_dropped() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        ShowVersion::NAME => {
            let mut stranger = asked.clone();
            stranger.context = asked.context.wrapping_add(77);
            vec![
                Deed::answer(&stranger, &ShowVersionReply::default()),
                Deed::Message(vec![0xff, 0xff, 1, 2, 3]),
                Deed::Message(Vec::new()),
                Deed::answer(asked, &ShowVersionReply::default()),
            ]
        }
        _ => Vec::new(),
    })
    .await;
    vpp.call(&ShowVersion).await.unwrap();
    assert_eq!(vpp.strays(), 3);
}

#[tokio::test]
async fn a_death_ends_every_call_and_every_stream_of_events() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        ShowVersion::NAME => vec![Deed::Stream(Vec::new())],
        SwInterfaceDump::NAME => vec![Deed::answer(asked, &super::interface(1)), Deed::Close],
        _ => usual(asked),
    })
    .await;
    let mut events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    let everything = SwInterfaceDump::default();
    let (waiting, dump) = tokio::join!(vpp.call(&ShowVersion), vpp.dump(&everything));
    for error in [waiting.unwrap_err(), dump.unwrap_err()] {
        assert!(matches!(error, Error::Lost { sent: Sent::Perhaps, .. }), "{error}");
    }
    assert!(matches!(events.next().await, Err(EventError::Lost(_))));
    assert!(matches!(vpp.closed().await, Loss::Closed | Loss::Io(_)));
    assert!(matches!(vpp.ping().await, Err(Error::Lost { sent: Sent::No, .. })));
    assert!(matches!(
        vpp.events::<vpp_api_client::messages::SwInterfaceEvent>().unwrap().next().await,
        Err(EventError::Lost(_))
    ));
}

#[tokio::test]
async fn a_message_too_long_to_keep_ends_the_connection() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        ShowVersion::NAME => {
            let mut header = vec![0; 16];
            header[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
            vec![Deed::Stream(header)]
        }
        _ => Vec::new(),
    })
    .await;
    let error = vpp.call(&ShowVersion).await.unwrap_err();
    assert!(error.to_string().contains("announces a message of 4294967295 bytes"), "{error}");
}

#[tokio::test]
async fn a_dump_that_nobody_reads_takes_no_more_memory_than_allowed() {
    let (_dir, path) = place();
    let _fake = Fake::start(&path, Nature::default(), usual).unwrap();
    let vpp = Client::connect(&path, options().limits(|limits| limits.details = 10_000)).await.unwrap();
    let mut details = vpp.details(&SwInterfaceDump::default()).unwrap();
    // All of it has come when the ping behind it is answered.
    vpp.ping().await.unwrap();
    let mut last = Ok(());
    while let Some(next) = details.next().await {
        if let Err(error) = next {
            last = Err(error);
            break;
        }
    }
    assert!(matches!(last, Err(Error::TooMuch { most: 10_000, .. })), "{last:?}");
    vpp.call(&SwInterfaceSetFlags::default()).await.unwrap();
}

#[tokio::test]
async fn a_call_gathers_no_more_memory_than_allowed() {
    let (_dir, path) = place();
    let endless = |asked: &vpp_api_client::fake::Asked| match asked.name.as_str() {
        // Another part, and another.
        SwInterfaceTxPlacementGet::NAME => {
            let details = SwInterfaceTxPlacementDetails { threads: vec![1; 100], ..Default::default() };
            let end = SwInterfaceTxPlacementGetReply { retval: Retval::Eagain, cursor: 1 };
            vec![Deed::answer(asked, &details), Deed::answer(asked, &end)]
        }
        // A few bytes of text, hundreds of JSON.
        GetApiJson::NAME => {
            let json = format!("[{}0]", r#"{"":0},"#.repeat(200));
            vec![Deed::answer(asked, &GetApiJsonReply { retval: Retval::Ok, json })]
        }
        _ => usual(asked),
    };
    let _fake = Fake::start(&path, Nature::default(), endless).unwrap();
    let vpp = Client::connect(&path, options().limits(|limits| limits.gathered = 100_000)).await.unwrap();
    let (ours, parts) = (Definitions::ours(), SwInterfaceTxPlacementGet::default());
    for error in [
        vpp.dump(&SwInterfaceDump::default()).await.map(drop).unwrap_err(),
        vpp.collect(&parts).await.map(drop).unwrap_err(),
        vpp.call_by_name(&ours, SwInterfaceDump::NAME, &json!({})).await.map(drop).unwrap_err(),
        vpp.call_by_name(&ours, SwInterfaceTxPlacementGet::NAME, &json!({})).await.map(drop).unwrap_err(),
    ] {
        assert!(matches!(error, Error::TooLarge { most: 100_000, .. }), "{error}");
        assert!(error.to_string().contains("raise Limits::gathered"), "{error}");
    }
    let text = vpp.definitions().await.unwrap_err();
    assert!(matches!(text, Error::TooLarge { .. }), "{text}");
    // What fits is whole, and what is taken one by one has no limit.
    assert_eq!(vpp.part(&parts).await.unwrap().0.len(), 1);
    let mut details = vpp.details(&SwInterfaceDump::default()).unwrap();
    let mut count = 0;
    while let Some(next) = details.next().await {
        next.unwrap();
        count += 1;
    }
    assert_eq!(count, 1000);
}

#[tokio::test]
async fn a_vpp_that_reads_no_more_fills_no_memory() {
    let (_dir, path) = place();
    let _fake = Fake::start(&path, Nature::default(), |_| vec![Deed::Hang]).unwrap();
    let vpp = Client::connect(&path, options().limits(|limits| limits.outgoing = 1 << 20)).await.unwrap();
    let vpp = vpp.within(Duration::from_millis(20));
    let long = CliInband { cmd: "x".repeat(100 << 10) };
    let mut sent = 0;
    let stuck = loop {
        match vpp.call(&long).await.unwrap_err() {
            Error::Timeout { .. } => sent += 1,
            other => break other,
        }
        assert!(sent < 100, "{sent} requests of 100 KiB wait");
    };
    assert!(stuck.to_string().contains("wait for VPP to read them"), "{stuck}");
}

#[tokio::test]
async fn the_statistics_socket_is_told_from_the_apis() {
    let (_dir, path) = place();
    // It has boundaries between what is sent, which the API's socket has not.
    vpp_api_client::fake::stats::hand_out(&path, Vec::new()).unwrap();
    let other = Client::connect(&path, options()).await.unwrap_err();
    assert!(other.to_string().ends_with("no VPP API: is it the statistics socket or the CLI's?"), "{other}");
}

#[tokio::test]
async fn a_name_that_vpp_has_no_room_for_is_refused() {
    let (_dir, path) = place();
    let long = Client::connect(&path, Options::new("a".repeat(64))).await.unwrap_err();
    assert_eq!(long.to_string(), "sockclnt_create was not sent: name: 64 bytes where 63 fit: shorten it");
}

#[tokio::test]
async fn who_listens_there_must_be_a_vpp() {
    let (_dir, path) = place();
    let nobody = Client::connect(&path, options()).await.unwrap_err();
    assert!(nobody.to_string().ends_with("no such socket: is VPP started, with `socksvr` in its configuration?"));
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let silent = Client::connect(&path, options().timeout(Duration::from_millis(30))).await.unwrap_err();
    let expected = "no answer to the handshake within 30ms: is VPP busy, or is it the CLI's socket?";
    assert!(silent.to_string().ends_with(expected), "{silent}");
    let talker = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (_, _) = listener.accept().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 16 + 70]).unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n and more than sixteen bytes").unwrap();
    });
    let other = Client::connect(&path, options()).await.unwrap_err();
    assert!(other.to_string().ends_with("no VPP API: is it the statistics socket or the CLI's?"), "{other}");
    talker.join().unwrap();
    let left = Client::connect(&path, options()).await.unwrap_err();
    assert!(left.to_string().contains("nobody listens"), "{left}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Whatever VPP answers, the call ends with it or with an error, and memory and the connection's owner are well.
    #[test]
    fn fuzzed_answers_end_the_call(noise in proptest::collection::vec(any::<u8>(), 0..600), raw in any::<bool>(), keep in 0..64_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let (_dir, _fake, vpp) = pair(Nature::default(), move |asked| match asked.name.as_str() {
                SwInterfaceSetFlags::NAME => {
                    let Deed::Send { body, .. } = Deed::answer(asked, &ShowVersionReply::default()) else { unreachable!() };
                    let mut message = vec![noise.first().copied().unwrap_or(0), noise.last().copied().unwrap_or(0)];
                    message.extend_from_slice(&asked.context.to_be_bytes());
                    message.extend_from_slice(&body[..keep.min(body.len())]);
                    message.extend_from_slice(&noise);
                    let noise = if raw { Deed::Stream(noise.clone()) } else { Deed::Message(message) };
                    vec![noise, Deed::Close]
                }
                _ => Vec::new(),
            })
            .await;
            let request = SwInterfaceSetFlags { sw_if_index: InterfaceIndex(1), flags: IfStatusFlags::ADMIN_UP };
            let ended = tokio::time::timeout(Duration::from_secs(9), vpp.call(&request)).await;
            assert!(ended.is_ok());
        });
    }
}
