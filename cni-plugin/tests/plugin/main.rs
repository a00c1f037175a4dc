//! The real binary against an agent of the test's own: what the plugin does by itself.

mod agent;
mod pods;
mod versions;

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use agent::{Agent, Script};
use serde_json::{Value, json};
use tonic::Code;

/// The test's own namespace is good enough to be passed: nothing is done in it.
const NETNS: &str = "/proc/self/ns/net";

struct Outcome {
    exit: i32,
    stdout: String,
    json: Value,
    stderr: String,
    took: Duration,
}

struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("cni.sock")
    }

    fn notes(&self) -> Vec<Value> {
        let Ok(folder) = std::fs::read_dir(self.folder.path().join("cni.sock.owed")) else { return Vec::new() };
        folder.map(|entry| serde_json::from_slice(&std::fs::read(entry.unwrap().path()).unwrap()).unwrap()).collect()
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
    fn conf(&self, version: &str, more: Value) -> Value {
        let mut conf = json!({
            "cniVersion": version, "name": "net", "type": "nsm-cni", "networkService": "s",
            "cniSocket": self.socket(), "timeoutSeconds": 1
        });
        conf.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        conf
    }
}

fn run(command: &str, variables: &[(&str, &str)], stdin: &str) -> Outcome {
    let start = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_nsm-cni"))
        .env_clear()
        .envs((!command.is_empty()).then_some(("CNI_COMMAND", command)))
        .envs([("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "net1"), ("CNI_PATH", "/opt/cni/bin"), ("CNI_NETNS", NETNS)])
        .env("CNI_NETNS_OVERRIDE", "1")
        .envs(variables.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // VERSION does not read it.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    let output = child.wait_with_output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    Outcome {
        exit: output.status.code().unwrap(),
        json: serde_json::from_str(&stdout).unwrap_or_default(),
        stdout,
        stderr: String::from_utf8(output.stderr).unwrap(),
        took: start.elapsed(),
    }
}

fn call(command: &str, conf: &Value) -> Outcome {
    run(command, &[], &conf.to_string())
}

#[test]
fn version_and_about_need_nothing() {
    let version = run("VERSION", &[], "{");
    assert_eq!((version.exit, version.json["supportedVersions"].as_array().unwrap().len()), (0, 7));
    let about = run("", &[], "");
    assert_eq!((about.exit, about.stdout.as_str()), (0, ""));
    assert!(about.stderr.contains("CNI plugin nsm-cni"));
    assert_eq!(run("FOO", &[], r#"{"name":"n"}"#).json["msg"], "unknown CNI_COMMAND: FOO");
}

#[test]
fn add_passes_the_namespace_and_answers_in_every_version() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let added = call("ADD", &place.conf(version, json!({"labels": {"app": "x"}})));
        assert_eq!((added.exit, &added.json["cniVersion"]), (0, &json!(version)), "{}", added.stdout);
        let ip = if version < "0.3.0" { &added.json["ip4"]["ip"] } else { &added.json["ips"][0]["address"] };
        assert_eq!(ip, "10.0.0.1/32", "{version}");
    }
    let args = [("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=ns")];
    assert_eq!(run("ADD", &args, &place.conf("1.0.0", json!({})).to_string()).exit, 0);
    let seen = agent.seen.lock().unwrap();
    assert_eq!(seen.adds[0].labels["app"], "x");
    assert_eq!(seen.adds[7].pod.as_ref().unwrap().namespace, "ns");
}

#[test]
fn chained_after_another_plugin_nothing_is_lost() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    let before = json!({
        "cniVersion": "1.0.0", "kept": true, "interfaces": [{"name": "eth0", "sandbox": "/x"}],
        "ips": [{"address": "10.9.0.2/24", "interface": 0}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1"}]
    });
    let added = call("ADD", &place.conf("1.0.0", json!({"prevResult": before}))).json;
    assert_eq!((&added["kept"], &added["ips"][1]["interface"]), (&json!(true), &json!(1)));
    assert_eq!(added["interfaces"][0]["name"], "eth0");
    let checked = call("CHECK", &place.conf("1.0.0", json!({"prevResult": added})));
    assert_eq!((checked.exit, checked.stdout.as_str()), (0, ""), "{}", checked.stderr);
    let expected = agent.seen.lock().unwrap().checks[0].expected.clone().unwrap();
    assert_eq!((expected.interfaces.len(), expected.ips.len(), expected.routes.len()), (1, 1, 0));
    assert_eq!(call("CHECK", &place.conf("1.0.0", json!({}))).json["code"], 7, "without prevResult");
}

#[test]
fn what_cannot_be_answered_is_taken_back() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script { no_address: true, ..Script::default() });
    let added = call("ADD", &place.conf("0.2.0", json!({})));
    assert_eq!(added.exit, 1, "{}", added.stdout);
    assert!(added.json["msg"].as_str().unwrap().contains("no valid IP addresses"));
    assert_eq!(agent.seen.lock().unwrap().dels.len(), 1);
}

#[test]
fn an_agent_that_is_away_owes_no_time() {
    let place = Place::new();
    let added = call("ADD", &place.conf("1.0.0", json!({})));
    assert_eq!((added.exit, &added.json["code"]), (1, &json!(11)), "{}", added.stdout);
    assert!(added.took < Duration::from_secs(1));
    let waited = call("ADD", &place.conf("1.0.0", json!({"agentWaitSeconds": 1})));
    assert!(waited.took >= Duration::from_secs(1), "{:?}", waited.took);
    for _ in 0..2 {
        let deleted = run("DEL", &[("CNI_NETNS", "")], &place.conf("1.0.0", json!({"unknown": 1})).to_string());
        assert_eq!((deleted.exit, deleted.stdout.as_str()), (0, ""));
        assert!(deleted.took < Duration::from_secs(1), "{:?}", deleted.took);
        assert!(deleted.stderr.contains("unknown"), "{}", deleted.stderr);
    }
    let notes = place.notes();
    assert_eq!(notes, [json!({"format": 1, "containerId": "c1", "ifname": "net1", "network": "net", "netns": ""})]);
    assert_eq!(call("STATUS", &place.conf("1.1.0", json!({}))).json["code"], 50);
}

/// The runtime was killed while it waited for the plugin.
#[test]
fn nobody_has_to_read_its_warnings() {
    let place = Place::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = Command::new(env!("CARGO_BIN_EXE_nsm-cni"))
        .env_clear()
        .envs([("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "net1"), ("CNI_PATH", "/opt/cni/bin")])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(writer)
        .spawn()
        .unwrap();
    let conf = place.conf("1.0.0", json!({"unknown": 1})).to_string();
    child.stdin.take().unwrap().write_all(conf.as_bytes()).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.notes().len(), 1);
}

#[test]
fn a_del_that_cannot_be_noted_says_so() {
    let place = Place::new();
    std::fs::write(place.folder.path().join("cni.sock.owed"), "in the way").unwrap();
    let deleted = call("DEL", &place.conf("1.0.0", json!({})));
    assert_eq!((deleted.exit, &deleted.json["code"]), (1, &json!(11)), "{}", deleted.stdout);
}

#[test]
fn a_hanging_agent_is_left_in_time() {
    let place = Place::new();
    let _agent = Agent::start(&place.socket(), Script { hang: true, ..Script::default() });
    let added = call("ADD", &place.conf("1.0.0", json!({})));
    assert_eq!(added.json["code"], 11, "{}", added.stdout);
    assert!((1000..2000).contains(&added.took.as_millis()), "{:?}", added.took);
    let deleted = call("DEL", &place.conf("1.0.0", json!({})));
    assert_eq!(deleted.exit, 0, "{}", deleted.stdout);
    assert!(deleted.took < Duration::from_secs(1), "{:?}", deleted.took);
    assert_eq!(place.notes().len(), 1);
}

#[test]
fn a_del_that_was_answered_leaves_no_note() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    assert_eq!(run("DEL", &[("CNI_NETNS", "/gone")], &place.conf("1.0.0", json!({})).to_string()).exit, 0);
    assert_eq!((place.notes().len(), agent.seen.lock().unwrap().dels.len()), (0, 1));
}

#[test]
fn every_refusal_has_its_code() {
    for (status, code) in [
        (Code::Unavailable, 11),
        (Code::NotFound, 11),
        (Code::InvalidArgument, 7),
        (Code::FailedPrecondition, 100),
        (Code::PermissionDenied, 101),
        (Code::AlreadyExists, 102),
        (Code::Internal, 103),
    ] {
        let place = Place::new();
        let _agent = Agent::start(&place.socket(), Script { refuse: Some(status), ..Script::default() });
        assert_eq!(call("ADD", &place.conf("1.0.0", json!({}))).json["code"], code, "{status:?}");
    }
}

#[test]
fn findings_fail_check_and_status() {
    let place = Place::new();
    let _agent = Agent::start(&place.socket(), Script { finding: Some("net1 is down".into()), ..Script::default() });
    let result = json!({"interfaces": [{"name": "net1", "sandbox": NETNS}]});
    let checked = call("CHECK", &place.conf("1.0.0", json!({"prevResult": result})));
    assert_eq!((&checked.json["code"], &checked.json["msg"]), (&json!(104), &json!("net1 is down")));
    assert_eq!(call("STATUS", &place.conf("1.1.0", json!({}))).json["code"], 50);
}

/// Networks that every pod gets are asked of an agent that plans those of each pod, and is older than that question: ADD is served.
#[test]
fn an_older_agent_leaves_the_node_ready() {
    let place = Place::new();
    let conf = json!({
        "cniVersion": "1.1.0", "name": "n", "type": "nsm-cni", "clusterNetwork": "an-object", "cniSocket": place.socket(),
        "confDir": place.socket().with_extension("none"), "timeoutSeconds": 1, "agentWaitSeconds": 0,
    });
    assert_eq!(call("STATUS", &conf).json["code"], 50, "nobody is there");
    for (plans_pods, code) in [(true, Value::Null), (false, json!(50))] {
        let _agent = Agent::start(&place.socket(), Script { plans_pods, ..Script::default() });
        assert_eq!(call("STATUS", &conf).json["code"], code, "plans_pods: {plans_pods}");
    }
}

#[test]
fn gc_tells_absent_from_empty() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    assert_eq!(call("GC", &place.conf("1.1.0", json!({}))).exit, 0);
    let one = json!([{"containerID": "c", "ifname": "i"}]);
    for list in [json!([]), one] {
        assert_eq!(call("GC", &place.conf("1.1.0", json!({"cni.dev/valid-attachments": list}))).exit, 0);
    }
    let valid: Vec<_> =
        agent.seen.lock().unwrap().gcs.iter().map(|gc| gc.valid.as_ref().map(|v| v.keys.len())).collect();
    assert_eq!(valid, [None, Some(0), Some(1)]);
}

#[test]
fn namespaces_that_are_none_are_refused() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    let conf = place.conf("1.0.0", json!({})).to_string();
    for netns in ["/nowhere", "/proc/self/ns/mnt", "/dev/null", "/"] {
        let added = run("ADD", &[("CNI_NETNS", netns)], &conf);
        assert_eq!(added.json["code"], 4, "{netns}: {}", added.stdout);
        assert!(added.json["msg"].as_str().unwrap().contains("CNI_NETNS"));
    }
    let own = run("ADD", &[("CNI_NETNS_OVERRIDE", "")], &conf);
    assert_eq!(own.json["code"], 8, "{}", own.stdout);
    assert!(agent.seen.lock().unwrap().adds.is_empty());
}
