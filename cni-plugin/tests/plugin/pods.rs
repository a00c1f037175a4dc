//! Pods that may ask by annotation: the plugin behind another one of the list.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tonic::Code;

use crate::{
    NETNS, Outcome, Place,
    agent::{Agent, Script},
    run,
};

const ARGS: &str = "IgnoreUnknown=1;K8S_POD_NAME=p;K8S_POD_NAMESPACE=team;K8S_POD_UID=u";

/// The configuration of a list, after a first plugin; the runtime gives these annotations.
fn conf(place: &Place, annotations: &Value) -> Value {
    let mut conf = without_annotations(place);
    conf["runtimeConfig"] = json!({"io.kubernetes.cri.pod-annotations": annotations});
    conf
}

fn without_annotations(place: &Place) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "k8s", "type": "nsm-cni", "cniSocket": place.socket(), "timeoutSeconds": 1,
        "capabilities": {"io.kubernetes.cri.pod-annotations": true}, "prevResult": before()
    })
}

fn before() -> Value {
    json!({
        "cniVersion": "1.0.0", "kept": true,
        "interfaces": [{"name": "cni0"}, {"name": "eth0", "sandbox": NETNS}],
        "ips": [{"address": "10.9.0.2/24", "interface": 1}], "dns": {"nameservers": ["10.1.1.1"]}
    })
}

fn asks() -> Value {
    json!({"networkservicemesh.io": "kernel://s,kernel://t", "other": "x"})
}

/// An agent has been here, and has said which namespaces ask.
fn told_of_namespaces(place: &Place) -> PathBuf {
    let folder = place.folder.path().join("cni.sock.namespaces");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".complete"), "").unwrap();
    folder
}

fn call(command: &str, conf: &Value) -> Outcome {
    run(command, &[("CNI_IFNAME", "eth0"), ("CNI_ARGS", ARGS)], &conf.to_string())
}

fn files(place: &Place) -> Vec<String> {
    let mut all = Vec::new();
    for folder in ["cni.sock.pods", "cni.sock.owed"] {
        let entries = fs::read_dir(place.folder.path().join(folder)).into_iter().flatten();
        all.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
    }
    all
}

fn record(place: &Place) -> Value {
    let files = files(place);
    assert_eq!(files.len(), 1, "{files:?}");
    serde_json::from_slice(&fs::read(&files[0]).unwrap()).unwrap()
}

#[test]
fn a_pod_that_asks_nothing_needs_nobody() {
    for annotations in [Value::Null, json!({}), json!({"other": "x", "networkservicemesh.io": " "})] {
        let place = Place::new();
        told_of_namespaces(&place);
        let conf = conf(&place, &annotations);
        let added = call("ADD", &conf);
        assert_eq!((added.exit, &added.json, added.stderr.as_str()), (0, &before(), ""), "{}", added.stdout);
        let known = record(&place);
        assert_eq!(
            (&known["asked"], &known["containerId"], &known["podUid"]),
            (&json!(false), &json!("c1"), &json!("u"))
        );
        assert_eq!(known["taken"], json!(["eth0"]));
        assert_eq!((call("CHECK", &conf).exit, call("STATUS", &with(&conf, "1.1.0")).exit), (0, 0));
        assert_eq!(call("GC", &with(&conf, "1.1.0")).exit, 0);
        for _ in 0..2 {
            let deleted = call("DEL", &conf);
            assert_eq!((deleted.exit, deleted.stderr.as_str()), (0, ""), "{}", deleted.stdout);
        }
        assert_eq!(files(&place), Vec::<String>::new());
    }
}

fn with(conf: &Value, version: &str) -> Value {
    let mut conf = conf.clone();
    conf["cniVersion"] = version.into();
    conf.as_object_mut().unwrap().remove("prevResult");
    conf
}

#[test]
fn nor_folders_that_can_be_written() {
    let place = Place::new();
    for folder in ["cni.sock.pods", "cni.sock.owed", "cni.sock.namespaces"] {
        fs::write(place.folder.path().join(folder), "in the way").unwrap();
    }
    let conf = conf(&place, &json!({}));
    let added = call("ADD", &conf);
    assert_eq!((added.exit, &added.json), (0, &before()), "{}", added.stdout);
    assert!(added.stderr.contains("no record of the sandbox"), "{}", added.stderr);
    assert_eq!((call("CHECK", &conf).exit, call("DEL", &conf).exit), (0, 0));
    // Nor a runtime that gives annotations.
    let conf = without_annotations(&place);
    let added = call("ADD", &conf);
    assert_eq!((added.exit, &added.json), (0, &before()), "{}", added.stdout);
    assert!(added.stderr.contains("it is not known whether the pod asks"), "{}", added.stderr);
    assert_eq!(call("DEL", &conf).exit, 0);
}

#[test]
fn what_a_pod_asks_for_is_made_in_one_call() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    let mut conf = conf(&place, &asks());
    conf["allowRouteOverlap"] = true.into();
    let added = call("ADD", &conf);
    assert_eq!(added.exit, 0, "{}", added.stdout);
    let names: Vec<&Value> = added.json["interfaces"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
    assert_eq!(names, ["cni0", "eth0", "nsm-1", "nsm-2"]);
    assert_eq!((&added.json["ips"][2]["interface"], &added.json["kept"]), (&json!(3), &json!(true)));
    assert_eq!(added.json["dns"]["nameservers"], json!(["10.1.1.1"]), "an endpoint's DNS is not the pod's");
    conf["allowDns"] = true.into();
    assert_eq!(call("ADD", &conf).json["dns"]["nameservers"], json!(["10.1.1.1", "10.9.9.9"]));
    conf["prevResult"] = added.json;
    assert_eq!(call("CHECK", &conf).exit, 0);
    assert_eq!(call("DEL", &conf).exit, 0);
    assert_eq!(files(&place), Vec::<String>::new());
    let seen = agent.seen.lock().unwrap();
    let asked = &seen.pods[0];
    let own = asked.annotations.clone().unwrap();
    assert_eq!((own.services.as_str(), own.services_2019.as_str()), ("kernel://s,kernel://t", ""));
    assert_eq!(
        (asked.taken.as_slice(), asked.allow_route_overlap, asked.allow_default_route),
        (&["eth0".to_owned()][..], true, false)
    );
    assert_eq!(asked.pod.as_ref().unwrap().uid, "u");
    let expected = seen.pod_checks[0].expected.clone().unwrap();
    assert_eq!(expected.ips.iter().map(|ip| ip.interface).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((seen.adds.len(), seen.dels.len()), (0, 1));
}

#[test]
fn a_namespace_asks_for_its_pods() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    let folder = told_of_namespaces(&place);
    assert_eq!(call("ADD", &conf(&place, &json!({}))).json, before());
    fs::write(folder.join("team"), "{}").unwrap();
    assert_eq!(call("ADD", &conf(&place, &json!({}))).exit, 0);
    assert_eq!(agent.seen.lock().unwrap().pods.len(), 1);
}

#[test]
fn without_annotations_the_agent_is_asked() {
    let place = Place::new();
    let agent = Agent::start(&place.socket(), Script::default());
    assert_eq!(call("ADD", &without_annotations(&place)).exit, 0);
    assert_eq!(agent.seen.lock().unwrap().pods[0].annotations, None);
    assert_eq!(record(&place)["asked"], true);
}

#[test]
fn a_pod_that_asks_needs_the_agent_and_owes_its_end() {
    let place = Place::new();
    let conf = conf(&place, &asks());
    let added = call("ADD", &conf);
    assert_eq!((added.exit, &added.json["code"]), (1, &json!(11)), "{}", added.stdout);
    for _ in 0..2 {
        let deleted = call("DEL", &conf);
        assert_eq!(deleted.exit, 0, "{}", deleted.stdout);
        assert!(deleted.took < Duration::from_secs(1), "{:?}", deleted.took);
        assert_eq!(place.notes().len(), 1);
        assert_eq!(files(&place).len(), 1, "the note alone");
    }
    assert_eq!(place.notes()[0]["ifname"], "eth0");
}

#[test]
fn a_running_pod_that_got_something_owes_it() {
    let place = Place::new();
    let conf = conf(&place, &json!({}));
    assert_eq!(call("ADD", &conf).exit, 0);
    let record = &files(&place)[0];
    fs::hard_link(record, format!("{record}.attached")).unwrap();
    // Also when its namespace has gone by then.
    let deleted = run("DEL", &[("CNI_IFNAME", "eth0"), ("CNI_NETNS", "")], &conf.to_string());
    assert_eq!(deleted.exit, 0, "{}", deleted.stdout);
    assert_eq!((place.notes().len(), files(&place).len()), (1, 1));
    // The next pod with the same numbers begins anew.
    assert_eq!(call("ADD", &conf).exit, 0);
    assert_eq!(call("DEL", &conf).exit, 0);
    assert_eq!(files(&place).len(), 1);
}

#[test]
fn an_end_that_fails_is_remembered() {
    let place = Place::new();
    let conf = conf(&place, &asks());
    call("ADD", &conf);
    let agent = Agent::start(&place.socket(), Script { refuse: Some(Code::Internal), ..Script::default() });
    assert_eq!(call("DEL", &conf).json["code"], 103);
    assert_eq!(record(&place)["asked"], true);
    drop(agent);
    let _agent = Agent::start(&place.socket(), Script::default());
    assert_eq!(call("DEL", &conf).exit, 0);
    assert_eq!(files(&place), Vec::<String>::new());
}

#[test]
fn a_record_of_another_sandbox_is_not_believed() {
    let place = Place::new();
    let conf = conf(&place, &asks());
    call("ADD", &conf);
    let other = run("DEL", &[("CNI_IFNAME", "eth0"), ("CNI_CONTAINERID", "old")], &conf.to_string());
    assert_eq!(other.exit, 0, "{}", other.stdout);
    assert_eq!(files(&place).len(), 2, "its own note, and the record of the one that stands");
}

#[test]
fn a_refusal_is_the_adds() {
    let place = Place::new();
    let _agent = Agent::start(&place.socket(), Script { refuse: Some(Code::InvalidArgument), ..Script::default() });
    let added = call("ADD", &conf(&place, &asks()));
    assert_eq!((added.exit, &added.json["code"], &added.json["msg"]), (1, &json!(7), &json!("because")));
}

#[test]
fn a_folder_of_others_is_not_written() {
    let place = Place::new();
    let folder = place.folder.path().join("cni.sock.pods");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(call("ADD", &conf(&place, &json!({}))).stderr.contains("not a folder of this user's own"));
    assert_eq!(files(&place), Vec::<String>::new());
}
