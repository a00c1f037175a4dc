//! The program `vpp-api`, against a fake VPP.

use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use vpp_api_client::definition::Definitions;
use vpp_api_client::fake::stats::{Segment, hand_out};
use vpp_api_client::fake::{Asked, Deed, Fake, Nature};
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    GetApiJson, GetApiJsonReply, MemifCreateV2, MemifCreateV2Reply, ShowVersion, ShowVersionReply, SwInterfaceDetails,
    SwInterfaceDump, SwInterfaceEvent, SwInterfaceSetFlags, SwInterfaceSetFlagsReply, WantInterfaceEvents,
    WantInterfaceEventsReply,
};
use vpp_api_client::{InterfaceIndex, Retval};

fn vpp(asked: &Asked) -> Vec<Deed> {
    match asked.name.as_str() {
        GetApiJson::NAME => {
            let json = json!([Definitions::ours().to_json("all")]).to_string();
            vec![Deed::answer(asked, &GetApiJsonReply { retval: Retval::Ok, json })]
        }
        ShowVersion::NAME => {
            vec![Deed::answer(asked, &ShowVersionReply { version: "26.06".into(), ..ShowVersionReply::default() })]
        }
        SwInterfaceDump::NAME => (0..3)
            .map(|index| {
                let interface_name = format!("memif0/{index}");
                let sw_if_index = InterfaceIndex(index);
                Deed::answer(
                    asked,
                    &SwInterfaceDetails { sw_if_index, interface_name, ..SwInterfaceDetails::default() },
                )
            })
            .collect(),
        SwInterfaceSetFlags::NAME => {
            vec![Deed::answer(asked, &SwInterfaceSetFlagsReply { retval: Retval::InvalidSwIfIndex })]
        }
        WantInterfaceEvents::NAME => {
            let request: WantInterfaceEvents = asked.fields().unwrap();
            let ok = request.enable_disable == 1 && request.pid != 0;
            let retval = if ok { Retval::Ok } else { Retval::InvalidRegistration };
            let event = SwInterfaceEvent { deleted: true, ..SwInterfaceEvent::default() };
            vec![Deed::answer(asked, &WantInterfaceEventsReply { retval }), Deed::answer(asked, &event)]
        }
        _ => Vec::new(),
    }
}

async fn run(socket: &Path, words: &[&str]) -> Output {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vpp-api"));
    command.arg("--socket").arg(socket).args(words);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn messages_are_called_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let fake = Fake::start(&path, Nature::default(), vpp).unwrap();
    for definitions in ["vpp", "own"] {
        let version = lines(&run(&path, &["--definitions", definitions, "call", "show_version"]).await);
        assert_eq!((version.len(), &version[0]["version"]), (1, &json!("26.06")));
    }
    assert_eq!(fake.goodbyes(), 2);
    let interfaces = lines(&run(&path, &["dump", "sw_interface_dump"]).await);
    assert_eq!((interfaces.len(), &interfaces[2]["interface_name"]), (3, &json!("memif0/2")));
    let events = lines(&run(&path, &["--count", "1", "events", "want_interface_events"]).await);
    assert_eq!(events[0]["sw_interface_event"]["deleted"], json!(true));
    let list = run(&path, &["list", "memif_delete"]).await;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("memif_delete_f9e6675e { sw_if_index interface_index }"), "{list}");
}

#[tokio::test]
async fn vpp_is_asked_for_definitions_only_where_it_has_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let told = Arc::new(AtomicUsize::new(0));
    let heard = Arc::clone(&told);
    let mut nature = Nature::default();
    nature.messages.insert("sw_interface_set_flags_reply".into(), 1);
    let _fake = Fake::start(&path, nature, move |asked| {
        heard.fetch_add(usize::from(asked.name == GetApiJson::NAME), Ordering::SeqCst);
        vpp(asked)
    })
    .unwrap();
    lines(&run(&path, &["dump", "sw_interface_dump"]).await);
    lines(&run(&path, &["--count", "1", "events", "want_interface_events"]).await);
    assert_eq!(told.load(Ordering::SeqCst), 0);
    run(&path, &["call", "sw_interface_set_flags"]).await;
    assert_eq!(told.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_not_there_is_noted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let _fake = Fake::start(&path, Nature::default(), vpp).unwrap();
    let list = run(&path, &["list", "nosuch"]).await;
    let note = String::from_utf8_lossy(&list.stderr).into_owned();
    assert!(list.status.success() && note.contains("no message with nosuch in its name"), "{note}");
    let version = run(&path, &["--version"]).await;
    assert_eq!(version.stdout, format!("vpp-api {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[tokio::test]
async fn a_secret_comes_by_standard_input() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let _fake = Fake::start(&path, Nature::default(), |asked| match asked.name.as_str() {
        MemifCreateV2::NAME => {
            assert_eq!(asked.fields::<MemifCreateV2>().unwrap().secret, "hidden");
            vec![Deed::answer(asked, &MemifCreateV2Reply { sw_if_index: InterfaceIndex(5), ..Default::default() })]
        }
        _ => vpp(asked),
    })
    .unwrap();
    let file = dir.path().join("fields.json");
    std::fs::write(&file, r#"{"id": 7, "secret": "hidden"}"#).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vpp-api"));
    command.arg("--socket").arg(&path).args(["call", "memif_create_v2", "-"]);
    command.stdin(std::fs::File::open(&file).unwrap());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(lines(&output), [json!({ "retval": 0, "sw_if_index": 5 })]);
}

#[tokio::test]
async fn failures_say_why_and_are_told_by_the_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let failed = |output: Output, code| {
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0));
        String::from_utf8(output.stderr).unwrap()
    };
    let nobody = failed(run(&path, &["call", "show_version"]).await, 1);
    assert!(nobody.contains("is VPP started"), "{nobody}");
    let _fake = Fake::start(&path, Nature::default(), vpp).unwrap();
    let refused = failed(run(&path, &["call", "sw_interface_set_flags", r#"{"sw_if_index": 9}"#]).await, 1);
    assert!(refused.contains("INVALID_SW_IF_INDEX (-2): the interface is gone"), "{refused}");
    let field = failed(run(&path, &["call", "sw_interface_set_flags", r#"{"sw_if_index": -1}"#]).await, 1);
    let expected = "sw_interface_set_flags was not sent: sw_if_index: expected a number from 0 to 4294967295, found -1";
    assert!(field.contains(expected), "{field}");
    let other = failed(run(&path, &["dump", "show_version"]).await, 1);
    assert!(other.contains("vpp-api call show_version"), "{other}");
    let events = failed(run(&path, &["events", "show_version"]).await, 1);
    assert!(events.contains("want_interface_events"), "{events}");
    failed(run(&path, &["call"]).await, 2);
}

#[tokio::test]
async fn counters_are_shown_once_or_as_they_grow() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.sock");
    let serve = || {
        let mut segment = Segment::default();
        segment.names("/if/names", &["local0", "memif0/7"]);
        segment.combined("/if/rx", &[&[0, 0, 3, 300]]);
        segment.scalar("/sys/boottime", 5);
        let _ = std::fs::remove_file(&path);
        let file = segment.file().unwrap();
        hand_out(&path, vec![file.try_clone().unwrap()]).unwrap();
        file
    };
    let socket = path.to_str().unwrap();
    serve();
    let interfaces = lines(&run(&path, &["stats", "--stats-socket", socket]).await);
    assert_eq!(interfaces[1]["memif0/7"]["rx_bytes"], json!(300));
    serve();
    let boot = lines(&run(&path, &["stats", "/sys", "--stats-socket", socket]).await);
    assert_eq!(boot, [json!({ "/sys/boottime": 5 })]);
    serve();
    let nothing = run(&path, &["stats", "/nosuch", "--stats-socket", socket]).await;
    let note = String::from_utf8_lossy(&nothing.stderr).into_owned();
    assert!(nothing.status.success() && note.contains("begins with /nosuch"), "{note}");
    serve();
    let watched = lines(&run(&path, &["stats", "--watch", "--count", "1", "--stats-socket", socket]).await);
    assert_eq!(watched, [json!({})]);
    let nobody = run(&path, &["stats", "--stats-socket", "/nowhere"]).await;
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("statseg"));
}
