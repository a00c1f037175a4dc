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
use vpp_api_client::fuzzing::read_and_written;

/// What it takes as people write it.
const AS_TEXT: [&str; 6] = ["mac_address", "ip4_address", "ip6_address", "address", "prefix", "address_with_prefix"];

/// Rounds over all messages.
const ROUNDS: u64 = 200;

/// Where `cargo xtask test vpp-papi` has installed vpp_papi.
fn library() -> PathBuf {
    let tools = std::env::var_os("NSM_LAB_TOOLS").expect("NSM_LAB_TOOLS: cargo xtask test vpp-papi sets it");
    Path::new(&tools).join("../vpp-papi")
}

struct Papi {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    _definitions: tempfile::NamedTempFile,
}

impl Papi {
    fn start(definitions: &Definitions) -> Self {
        let file = tempfile::Builder::new().suffix(".api.json").tempfile().unwrap();
        fs::write(file.path(), definitions.to_json("all").to_string()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/papi/pack.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(file.path()).env("PYTHONPATH", library());
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
