//! The same bytes as vpp_papi, the Python client that VPP's authors publish: for every message and random values. Suite `vpp-papi`,
//! which has it installed.

#[path = "../random/mod.rs"]
mod random;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use random::Random;
use serde_json::{Map, Value as Json, json};
use vpp_api_client::definition::{Base, Definitions, Field, Head, Message, Shape, Type};
use vpp_api_client::fake::{Deed, Fake, Nature};
use vpp_api_client::fuzzing::read_and_written;
use vpp_api_client::message::Message as _;
use vpp_api_client::messages::{
    SwInterfaceDetails, SwInterfaceDump, SwInterfaceTxPlacementDetails, SwInterfaceTxPlacementGet,
    SwInterfaceTxPlacementGetReply,
};

/// What it takes as people write it.
const AS_TEXT: [&str; 6] = ["mac_address", "ip4_address", "ip6_address", "address", "prefix", "address_with_prefix"];

/// Rounds over all messages.
const ROUNDS: u64 = 200;

/// Where `cargo xtask test vpp-papi` has installed vpp_papi.
fn library() -> PathBuf {
    let tools = std::env::var_os("NSM_LAB_TOOLS").expect("NSM_LAB_TOOLS: cargo xtask test vpp-papi sets it");
    Path::new(&tools).join("../vpp-papi")
}

/// Definitions in VPP's form, where a script can read them.
fn definitions_file(definitions: &Json) -> tempfile::NamedTempFile {
    let file = tempfile::Builder::new().suffix(".api.json").tempfile().unwrap();
    fs::write(file.path(), definitions.to_string()).unwrap();
    file
}

fn python(script: &str) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/papi").join(script)).env("PYTHONPATH", library());
    command
}

struct Papi {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _definitions: tempfile::NamedTempFile,
}

impl Papi {
    fn start(definitions: &Definitions) -> Self {
        let file = definitions_file(&definitions.to_json("all"));
        let mut command = python("pack.py");
        command.arg(file.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
        let (to, from) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, to, from, _definitions: file }
    }

    fn pack(&mut self, name: &str, fields: &Json) -> String {
        writeln!(self.to, "{}", json!([name, fields])).unwrap();
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "{name}: vpp_papi gave up at {fields}");
        line.trim_end().to_owned()
    }
}

impl Drop for Papi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Fields as vpp_papi takes them: with the head, and bytes as bytes.
fn for_papi(definitions: &Definitions, message: &Message, fields: &Json) -> Json {
    let Json::Object(mut all) = block(definitions, &message.fields, fields) else { unreachable!("an object") };
    all.insert("_vl_msg_id".into(), json!(0x0102));
    if matches!(message.head, Head::Client | Head::ClientContext) {
        all.insert("client_index".into(), json!(0x0304_0506));
    }
    if matches!(message.head, Head::Context | Head::ClientContext) {
        all.insert("context".into(), json!(0x0708_090a));
    }
    Json::Object(all)
}

fn head(message: &Message) -> Vec<u8> {
    match message.head {
        Head::Bare => vec![1, 2],
        Head::Client => vec![1, 2, 3, 4, 5, 6],
        Head::Context => vec![1, 2, 7, 8, 9, 10],
        Head::ClientContext => (1..=10).collect(),
    }
}

fn block(definitions: &Definitions, fields: &[Field], values: &Json) -> Json {
    let one = |field: &Field| {
        let value = values.get(&field.name)?;
        Some((field.name.clone(), shaped(definitions, &field.base, &field.shape, value)))
    };
    Json::Object(fields.iter().filter_map(one).collect::<Map<_, _>>())
}

fn shaped(definitions: &Definitions, base: &Base, shape: &Shape, value: &Json) -> Json {
    match (base, shape, value) {
        (Base::U8, Shape::Fixed(_) | Shape::Counted(_) | Shape::Open, digits) => json!({ "hex": digits }),
        (Base::Named(name), Shape::One, value) => match &definitions.types[name] {
            _ if AS_TEXT.contains(&name.as_str()) => value.clone(),
            Type::Struct(fields) | Type::Union(fields) => block(definitions, fields, value),
            // It wants numbers.
            Type::Enum(of) => json!(of.values.iter().find(|known| value == &known.name).unwrap().number),
            Type::Alias(base, shape) => shaped(definitions, base, shape, value),
            Type::Flags(_) => value.clone(),
            other => unreachable!("{other:?}"),
        },
        (_, _, Json::Array(list)) => list.iter().map(|item| shaped(definitions, base, &Shape::One, item)).collect(),
        (_, _, value) => value.clone(),
    }
}

#[test]
fn every_message_has_the_bytes_of_vpp_papi() {
    let ours = Definitions::ours();
    let mut papi = Papi::start(&ours);
    for seed in 1..=ROUNDS {
        let mut random = Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for message in ours.messages.values() {
            let fields = random.fields(&ours, &message.fields);
            let body = ours.encode(message, &fields).unwrap();
            assert_eq!(read_and_written(&message.name, &body), Some(Ok(body.clone())), "{} {fields}", message.name);
            let bytes =
                head(message).iter().chain(&body).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
            let theirs = papi.pack(&message.name, &for_papi(&ours, message, &fields));
            assert_eq!(bytes, theirs, "{} {fields}", message.name);
        }
    }
}

/// The messages that this crate has in code, as their ids are the same everywhere.
fn handshake() -> [Json; 4] {
    let (id, client, context) =
        (json!(["u16", "_vl_msg_id"]), json!(["u32", "client_index"]), json!(["u32", "context"]));
    let (index, response) = (json!(["u32", "index"]), json!(["i32", "response"]));
    let table = json!(["vl_api_message_table_entry_t", "message_table", 0, "count"]);
    [
        json!(["sockclnt_create", id, context, ["string", "name", 64], { "crc": "0x455fb9c4" }]),
        json!(["sockclnt_create_reply", id, client, context, response, index, ["u16", "count"], table, { "crc": "0x35166268" }]),
        json!(["sockclnt_delete", id, client, context, index, { "crc": "0x8ac76db6" }]),
        json!(["sockclnt_delete_reply", id, context, response, { "crc": "0x8f38b1ee" }]),
    ]
}

/// The fake VPP speaks the transport that vpp_papi speaks, so that the client's tests say something about a real one.
#[tokio::test]
async fn vpp_papi_talks_to_the_fake_vpp() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("api.sock");
    let _fake = Fake::start(&path, Nature { pieces: 50, ..Nature::default() }, |asked| match asked.name.as_str() {
        SwInterfaceDump::NAME => ["local0", "memif0/7"]
            .map(|name| Deed::answer(asked, &SwInterfaceDetails { interface_name: name.into(), ..Default::default() }))
            .into(),
        SwInterfaceTxPlacementGet::NAME => {
            let details = SwInterfaceTxPlacementDetails { queue_id: 3, threads: vec![1, 2], ..Default::default() };
            let end = SwInterfaceTxPlacementGetReply { cursor: u32::MAX, ..Default::default() };
            vec![Deed::answer(asked, &details), Deed::answer(asked, &end)]
        }
        _ => Vec::new(),
    })
    .unwrap();
    let mut all = Definitions::ours().to_json("all");
    all["types"].as_array_mut().unwrap().push(json!(["message_table_entry", ["u16", "index"], ["string", "name", 64]]));
    all["messages"].as_array_mut().unwrap().extend(handshake());
    all["services"]["sockclnt_delete"] = json!({ "reply": "sockclnt_delete_reply" });
    let file = definitions_file(&all);
    let mut command = python("talk.py");
    command.arg(file.path()).arg(&path);
    let done = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    let told: Json = serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(told, json!({ "pid": 7, "names": ["local0", "memif0/7"], "queues": [3], "cursor": u32::MAX }));
}
