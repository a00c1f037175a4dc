//! Calls, dumps, cursors, events; by type and by name.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vpp_api_client::client::EventError;
use vpp_api_client::definition::{Definitions, Head};
use vpp_api_client::fake::{Deed, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    GetApiJson, GetApiJsonReply, IfStatusFlags, ShowVersion, ShowVersionReply, SwInterfaceDump, SwInterfaceEvent,
    SwInterfaceSetFlags, SwInterfaceTxPlacementDetails, SwInterfaceTxPlacementGet, SwInterfaceTxPlacementGetReply,
    WantInterfaceEvents, WantInterfaceEventsReply,
};
use vpp_api_client::wire::EncodeProblem;
use vpp_api_client::{Error, InterfaceIndex, Retval};

use super::{interface, pair, usual};

fn set_flags(index: u32) -> SwInterfaceSetFlags {
    SwInterfaceSetFlags { sw_if_index: InterfaceIndex(index), flags: IfStatusFlags::ADMIN_UP }
}

#[tokio::test]
async fn a_call_is_answered() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        ShowVersion::NAME => {
            let version = ShowVersionReply { version: "26.06".into(), ..ShowVersionReply::default() };
            vec![Deed::answer(asked, &version)]
        }
        _ => Vec::new(),
    })
    .await;
    assert_eq!(vpp.call(&ShowVersion).await.unwrap().version, "26.06");
    assert_eq!(vpp.ping().await.unwrap().vpe_pid, 7);
    assert!(vpp.unusable().is_empty());
}

#[tokio::test]
async fn a_refusal_is_an_error_that_says_what_to_do() {
    let (_dir, _fake, vpp) = pair(Nature::default(), usual).await;
    let error = vpp.call(&set_flags(5000)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "sw_interface_set_flags: VPP answers INVALID_SW_IF_INDEX (-2): the interface is gone or of another kind: dump the interfaces \
         and use a current index"
    );
    assert_eq!(vpp.answer(&set_flags(5000)).await.unwrap().retval, Retval::InvalidSwIfIndex);
    vpp.call(&set_flags(5)).await.unwrap();
}

#[tokio::test]
async fn a_dump_ends_with_the_ping_behind_it() {
    let (_dir, _fake, vpp) = pair(Nature::default(), usual).await;
    let all = vpp.dump(&SwInterfaceDump::default()).await.unwrap();
    assert_eq!(all.len(), 1000);
    assert_eq!(all[999].interface_name, "memif0/999");
    let mut details = vpp.details(&SwInterfaceDump::default()).unwrap();
    let mut count = 0;
    while let Some(next) = details.next().await {
        assert_eq!(next.unwrap().sw_if_index.0, count);
        count += 1;
    }
    assert_eq!(count, 1000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_run_side_by_side_and_each_gets_its_own_answer() {
    let (_dir, _fake, vpp) = pair(Nature::default(), usual).await;
    let calls: Vec<_> = (0..2000)
        .map(|index| {
            let vpp = vpp.clone();
            tokio::spawn(async move { (index, vpp.answer(&set_flags(index)).await.unwrap().retval) })
        })
        .collect();
    for call in calls {
        let (index, retval) = call.await.unwrap();
        assert_eq!(retval.is_ok(), index < 1000, "{index}");
    }
}

#[tokio::test]
async fn a_cursor_is_followed_to_the_end() {
    let part = |asked: &vpp_api_client::fake::Asked| match asked.name.as_str() {
        SwInterfaceTxPlacementGet::NAME => {
            let request: SwInterfaceTxPlacementGet = asked.fields().unwrap();
            let from = if request.cursor == u32::MAX { 0 } else { request.cursor };
            let details = (from..from + 10).map(|queue_id| {
                let threads = vec![queue_id; 3];
                Deed::answer(asked, &SwInterfaceTxPlacementDetails { queue_id, threads, ..Default::default() })
            });
            let retval = if from < 20 { Retval::Eagain } else { Retval::Ok };
            let end = SwInterfaceTxPlacementGetReply { retval, cursor: from + 10 };
            details.chain([Deed::answer(asked, &end)]).collect()
        }
        _ => Vec::new(),
    };
    let (_dir, _fake, vpp) = pair(Nature::default(), part).await;
    let all = vpp.collect(&SwInterfaceTxPlacementGet::default()).await.unwrap();
    assert_eq!(all.iter().map(|of| of.queue_id).collect::<Vec<_>>(), (0..30).collect::<Vec<_>>());
    assert_eq!(all[29].threads, [29, 29, 29]);
    let by_name = vpp.call_by_name(&Definitions::ours(), SwInterfaceTxPlacementGet::NAME, &json!({})).await.unwrap();
    assert_eq!(by_name.details.len(), 30);
    assert_eq!(by_name.details[29]["threads"], json!([29, 29, 29]));
}

fn event(index: u32) -> SwInterfaceEvent {
    SwInterfaceEvent { sw_if_index: InterfaceIndex(index), ..SwInterfaceEvent::default() }
}

#[tokio::test]
async fn events_come_between_the_details_of_a_dump() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        SwInterfaceDump::NAME => (0..10)
            .flat_map(|index| [Deed::answer(asked, &event(index)), Deed::answer(asked, &interface(index))])
            .collect(),
        _ => usual(asked),
    })
    .await;
    let mut events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    let mut by_name = vpp.events_by_name(&Arc::new(Definitions::ours()), SwInterfaceEvent::NAME).unwrap();
    assert_eq!(vpp.dump(&SwInterfaceDump::default()).await.unwrap().len(), 10);
    for index in 0..10 {
        assert_eq!(events.next().await.unwrap(), event(index));
        assert_eq!(by_name.next().await.unwrap()["sw_if_index"], json!(index));
    }
    assert_eq!(vpp.strays(), 0);
}

/// An event begins with a client index, which may look like the context of a call that waits.
#[tokio::test]
async fn an_event_is_never_taken_for_an_answer() {
    let (_dir, _fake, vpp) = pair(Nature { first_id: 300, ..Nature::default() }, |asked| match asked.name.as_str() {
        ShowVersion::NAME => {
            let id = 300 + u16::try_from(position(SwInterfaceEvent::NAME)).unwrap();
            let mut message = id.to_be_bytes().to_vec();
            message.extend_from_slice(&asked.context.to_be_bytes());
            message.extend_from_slice(&[0; 13]);
            vec![Deed::Message(message), Deed::answer(asked, &ShowVersionReply::default())]
        }
        WantInterfaceEvents::NAME => vec![Deed::answer(asked, &WantInterfaceEventsReply::default())],
        _ => Vec::new(),
    })
    .await;
    let mut events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    vpp.call(&ShowVersion).await.unwrap();
    events.next().await.unwrap();
}

#[tokio::test]
async fn who_subscribes_asks_for_events() {
    let (_dir, _fake, vpp) = pair(Nature::default(), usual).await;
    let off = WantInterfaceEvents::default();
    let error = vpp.subscribe(&off).await.unwrap_err();
    let expected = "want_interface_events was not sent: it asks for no more events: set `enable_disable: 1`";
    assert!(error.to_string().starts_with(expected), "{error}");
    assert!(matches!(&error, Error::NotSent { reason, .. } if *reason.problem() == EncodeProblem::Disables));
    vpp.call(&off).await.unwrap();
}

#[tokio::test]
async fn who_waits_for_ever_gets_the_answer() {
    let (_dir, path) = super::place();
    let _fake = vpp_api_client::fake::Fake::start(&path, Nature::default(), usual).unwrap();
    let vpp = vpp_api_client::Client::connect(&path, super::options().timeout(Duration::MAX)).await.unwrap();
    vpp.call(&set_flags(5)).await.unwrap();
    assert_eq!(vpp.dump(&SwInterfaceDump::default()).await.unwrap().len(), 1000);
    let mut details = vpp.details(&SwInterfaceDump::default()).unwrap();
    details.next().await.unwrap().unwrap();
    vpp.call_by_name(&Definitions::ours(), SwInterfaceDump::NAME, &json!({})).await.unwrap();
}

fn position(name: &str) -> usize {
    Nature::default().messages.keys().position(|known| known == name).unwrap()
}

#[tokio::test]
async fn a_slow_reader_of_events_is_told_what_it_missed() {
    let (dir, path) = super::place();
    let _fake = vpp_api_client::fake::Fake::start(&path, Nature::default(), |asked| match asked.name.as_str() {
        ShowVersion::NAME => {
            let events = (0..100).map(|index| Deed::answer(asked, &event(index)));
            events.chain([Deed::answer(asked, &ShowVersionReply::default())]).collect()
        }
        _ => usual(asked),
    })
    .unwrap();
    let options = super::options().limits(|limits| limits.events = 10);
    let vpp = vpp_api_client::Client::connect(&path, options).await.unwrap();
    let mut events = vpp.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    vpp.call(&ShowVersion).await.unwrap();
    assert!(matches!(events.next().await, Err(EventError::Missed(90))));
    assert_eq!(events.next().await.unwrap(), event(90));
    drop(dir);
}

#[tokio::test]
async fn any_message_can_be_called_by_its_name() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        GetApiJson::NAME => {
            let json = json!([Definitions::ours().to_json("all")]).to_string();
            vec![Deed::answer(asked, &GetApiJsonReply { retval: Retval::Ok, json })]
        }
        _ => usual(asked),
    })
    .await;
    let told = vpp.definitions().await.unwrap();
    let all = vpp.call_by_name(&told, "sw_interface_dump", &json!({})).await.unwrap();
    assert_eq!((all.details.len(), all.details[3]["interface_name"].as_str()), (1000, Some("memif0/3")));
    let up = json!({ "sw_if_index": 3, "flags": ["IF_STATUS_API_FLAG_ADMIN_UP"] });
    let done = vpp.call_by_name(&told, "sw_interface_set_flags", &up).await.unwrap();
    assert_eq!(done.reply, Some(json!({ "retval": 0 })));
    let refused = vpp.call_by_name(&told, "sw_interface_set_flags", &json!({ "sw_if_index": 5000 })).await;
    assert!(matches!(refused, Err(Error::Refused { retval: Retval::InvalidSwIfIndex, .. })));
    let unknown = vpp.call_by_name(&told, "sw_interface_flags_set", &json!({})).await.unwrap_err();
    assert!(unknown.to_string().contains("there are "), "{unknown}");
    let event = vpp.call_by_name(&told, "sw_interface_event", &json!({})).await.unwrap_err();
    assert!(event.to_string().contains("is no request"), "{event}");
}

#[tokio::test]
async fn what_is_no_longer_waited_for_takes_no_place() {
    let (_dir, _fake, vpp) = pair(Nature::default(), |asked| match asked.name.as_str() {
        // Held back: only a ping lets it be found late.
        ShowVersion::NAME => vec![Deed::Stream(Vec::new())],
        _ => Vec::new(),
    })
    .await;
    let call = tokio::time::timeout(Duration::from_millis(20), vpp.call(&ShowVersion)).await;
    assert!(call.is_err());
    let short = vpp.within(Duration::from_millis(20)).call(&ShowVersion).await.unwrap_err();
    assert_eq!(short.to_string(), "show_version: no answer within 20ms; VPP may still do it");
    vpp.ping().await.unwrap();
}

/// A few of VPP's answers have the client's index before the context.
#[tokio::test]
async fn an_answer_with_a_client_index_in_front_is_found() {
    let told = json!({
        "messages": [
            ["is_it", ["u16", "_vl_msg_id"], ["u32", "client_index"], ["u32", "context"], { "crc": "0x00000001" }],
            ["is_it_reply", ["u16", "_vl_msg_id"], ["u32", "client_index"], ["u32", "context"], ["i32", "retval"],
             ["bool", "yes"], { "crc": "0x00000002" }],
            ["tell", ["u16", "_vl_msg_id"], { "crc": "0x00000003" }],
        ],
        "services": { "is_it": { "reply": "is_it_reply" }, "tell": { "reply": "is_it_reply" } },
    });
    let told = Definitions::from_json(&told.to_string()).unwrap();
    let mut nature = Nature::default();
    nature.messages.extend([("is_it".into(), 1), ("is_it_reply".into(), 2), ("tell".into(), 3)]);
    let (_dir, _fake, vpp) = pair(nature, |asked| match asked.name.as_str() {
        "is_it" => {
            let (name, head) = ("is_it_reply".into(), Head::ClientContext);
            vec![Deed::Send { name, head, context: asked.context, body: vec![0, 0, 0, 0, 1] }]
        }
        _ => Vec::new(),
    })
    .await;
    let answer = vpp.call_by_name(&told, "is_it", &json!({})).await.unwrap();
    assert_eq!(answer.reply, Some(json!({ "retval": 0, "yes": true })));
    let headless = vpp.call_by_name(&told, "tell", &json!({})).await.unwrap_err();
    assert!(headless.to_string().contains("has no context"), "{headless}");
}
