use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{Command, code};

fn stdin(mut more: Value) -> Stdin {
    let object = more.as_object_mut().unwrap();
    object.entry("cniVersion").or_insert_with(|| "1.0.0".into());
    object.entry("name").or_insert_with(|| "n".into());
    object.entry("networkService").or_insert_with(|| "s".into());
    Stdin::parse(more.to_string().as_bytes(), &Command::Add).unwrap()
}

fn parse(more: Value) -> Result<Conf, Error> {
    Conf::parse(&stdin(more), &Args::default())
}

#[test]
fn defaults() {
    let conf =
        parse(json!({"ipam": {}, "dns": {}, "cni.dev/x": 1, "deviceID": "d", "args": null, "runtimeConfig": null}))
            .unwrap();
    assert_eq!((conf.timeout.as_secs(), conf.agent_wait.as_secs()), (15, 0));
    assert_eq!(conf.socket, PathBuf::from(DEFAULT_SOCKET));
}

#[test]
fn every_mistake_is_named_at_once() {
    let error =
        parse(json!({"networkServce": "x", "timeoutSeconds": 0, "mechanism": "memif", "mtu": "big"})).unwrap_err();
    assert_eq!(error.code, code::UNSUPPORTED_FIELD);
    for part in [
        "networkServce",
        "timeoutSeconds 0: expected a whole number from 1 to 120",
        "mechanism \"memif\"",
        "mtu \"big\"",
    ] {
        assert!(error.msg.contains(part), "{part}: {error}");
    }
}

#[test]
fn wrong_values_are_code_7_and_name_the_key() {
    for (conf, key) in [
        (json!({"networkService": ""}), "networkService"),
        (json!({"networkService": 1}), "networkService"),
        (json!({"labels": {"podName": "x"}}), "labels.podName"),
        (json!({"labels": {"a": 1}}), "labels.a"),
        (json!({"labels": []}), "labels"),
        (json!({"interface": "all"}), "interface"),
        (json!({"interface": "eth%d"}), "interface"),
        (json!({"cniSocket": "relative"}), "cniSocket"),
        (json!({"agentWaitSeconds": 61}), "agentWaitSeconds"),
        (json!({"timeoutSeconds": 1.5}), "timeoutSeconds"),
        (json!({"allowDefaultRoute": "yes"}), "allowDefaultRoute"),
        (json!({"runtimeConfig": {"mac": "zz"}}), "runtimeConfig.mac"),
        (json!({"runtimeConfig": {"mac": "01:00:5e:00:00:01"}}), "runtimeConfig.mac"),
        (json!({"runtimeConfig": {"ips": ["nonsense"]}}), "runtimeConfig.ips"),
        (
            json!({"capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": [{"hostPort": 1}]}}),
            "does not do portMappings",
        ),
        (json!({"args": {"cni": {"labels": [{"key": "a"}]}}}), "args.cni.labels"),
        (json!({"prevResult": {"ips": [{"address": "x"}]}}), "prevResult"),
    ] {
        let error = parse(conf.clone()).expect_err(&conf.to_string());
        assert_eq!(error.code, code::INVALID_CONFIG, "{error}");
        assert!(error.msg.contains(key), "{key}: {error}");
    }
}

#[test]
fn labels_and_addresses_have_an_order() {
    let args = Args::parse("IgnoreUnknown=1;X=1;LABELS=a:1,b:1,c:1;IP=10.0.0.1;K8S_POD_NAME=p").unwrap();
    let conf = stdin(json!({
        "labels": {"a": "3"},
        "args": {"cni": {"labels": [{"key": "a", "value": "2"}, {"key": "b", "value": "2"}], "ips": ["10.0.0.2"]}},
        "runtimeConfig": {"ips": ["10.0.0.3/24"], "mac": "02-AA-00-00-00-01", "portMappings": []},
        "capabilities": {"portMappings": true}
    }));
    let conf = Conf::parse(&conf, &args).unwrap();
    let Mode::Attach(conf) = conf.mode else { panic!("a service is named") };
    let labels: Vec<_> = conf.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    assert_eq!(labels, ["a=3", "b=2", "c=1"]);
    assert_eq!(conf.ips[0].to_string(), "10.0.0.3/24");
    assert_eq!(conf.mac.as_deref(), Some("02:aa:00:00:00:01"));
}

fn of_pod(more: Value) -> Result<Conf, Error> {
    let mut stdin = stdin(more);
    stdin.keys.remove("networkService");
    Conf::parse(&stdin, &Args::default())
}

#[test]
fn without_a_service_the_pod_says() {
    let annotations = |more: Value| match of_pod(more).unwrap().mode {
        Mode::Pod(pod) => pod.annotations,
        Mode::Attach(attach) => panic!("{attach:?}"),
    };
    assert_eq!(annotations(json!({})), None, "the runtime gives none");
    let given = |value: Value| {
        annotations(json!({
            "capabilities": {"io.kubernetes.cri.pod-annotations": true},
            "runtimeConfig": {"io.kubernetes.cri.pod-annotations": value}
        }))
    };
    assert_eq!(given(Value::Null), Some(Annotations::default()));
    assert_eq!(given(json!({"x": "y", "networkservicemesh.io": " "})), Some(Annotations::default()));
    let asks = given(json!({"networkservicemesh.io": "kernel://s", "ns.networkservicemesh.io": "t"})).unwrap();
    assert_eq!((asks.services.as_deref(), asks.services_2019.as_deref()), (Some("kernel://s"), Some("t")));
    for (conf, part) in [
        (json!({"labels": {}}), "labels: expected networkService with it"),
        (json!({"mechanism": "kernel"}), "mechanism: expected networkService"),
        (json!({"interface": "x", "mtu": 1400}), "mtu: expected networkService"),
        (json!({"allowDns": 1}), "allowDns 1: expected true or false"),
        (json!({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": []}}), "pod-annotations []: expected an object"),
    ] {
        let error = of_pod(conf).unwrap_err();
        assert!(error.code == code::INVALID_CONFIG && error.msg.contains(part), "{error}");
    }
    let with = parse(json!({"allowDns": true})).unwrap_err();
    assert!(with.msg.contains("allowDns: expected no networkService"), "{with}");
}

#[test]
fn cni_args_as_the_library_reads_them() {
    assert_eq!(Args::parse("FOO=bar").unwrap_err().msg, "ARGS: unknown args [\"FOO=bar\"]");
    assert_eq!(Args::parse("FOO").unwrap_err().msg, "ARGS: invalid pair \"FOO\"");
    assert!(Args::parse("IgnoreUnknown=maybe").is_err());
}

#[test]
fn del_goes_on_and_gc_tells_absent_from_empty() {
    let broken = stdin(json!({"networkService": 5, "x": 1, "cniSocket": "/a", "timeoutSeconds": "1"}));
    let lenient = Lenient::parse(&broken);
    assert_eq!((lenient.socket, lenient.warnings.len()), (PathBuf::from("/a"), 3));
    let valid = |value: Value| Lenient::valid_attachments(&stdin(json!({"cni.dev/valid-attachments": value})));
    assert_eq!(valid(Value::Null), Ok(None));
    assert_eq!(valid(json!([])), Ok(Some(vec![])));
    assert_eq!(valid(json!([{"containerID": "c", "ifname": "i"}])).unwrap().unwrap().len(), 1);
    assert_eq!(valid(json!(["c"])).unwrap_err().code, code::INVALID_CONFIG);
}

#[test]
fn broken_input_is_answered_as_by_the_library() {
    let check = |json: &str, command: Command| {
        let error = Stdin::parse(json.as_bytes(), &command).unwrap_err();
        (error.code, error.msg)
    };
    assert_eq!(check("{", Command::Add).0, 6);
    assert_eq!(check("{}", Command::Del), (7, "missing network name".into()));
    assert_eq!(check(r#"{"name":"a/b"}"#, Command::Add), (7, "invalid characters found in network name".into()));
    assert_eq!(check(r#"{"name":"a","cniVersion":"9.9.9"}"#, Command::Add), (1, "incompatible CNI versions".into()));
    let refused = |version: &str, command| check(&json!({"name": "a", "cniVersion": version}).to_string(), command);
    assert_eq!(refused("0.3.1", Command::Check), (1, "config version does not allow CHECK".into()));
    assert_eq!(refused("9.9.9", Command::Check), (1, "plugin version does not allow CHECK".into()));
    assert_eq!(refused("1.0.0", Command::Gc), (1, "config version does not allow GC".into()));
    assert_eq!(refused("1.0.0", Command::Status), (1, "config version does not allow STATUS".into()));
    assert_eq!(refused("1.0.0", Command::Unknown("FOO".into())), (4, "unknown CNI_COMMAND: FOO".into()));
    assert_eq!(refused("1.x", Command::Gc).0, 6);
}

#[test]
fn the_environment_is_checked_in_the_librarys_words() {
    use crate::Environment;
    let read = |pairs: &[(&str, &str)]| {
        let get =
            |name: &str| pairs.iter().find(|(key, _)| *key == name).map_or(String::new(), |(_, v)| (*v).to_owned());
        Environment::read(get).map_err(|error| (error.code, error.msg))
    };
    let all = "required env variables [CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME,CNI_PATH] missing";
    assert_eq!(read(&[("CNI_COMMAND", "ADD")]), Err((4, all.to_owned())));
    assert_eq!(read(&[]), Ok(None));
    let del = |id, name| {
        read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", id), ("CNI_IFNAME", name), ("CNI_PATH", "/")]).map(|_| ())
    };
    assert_eq!(del("c", "eth0"), Ok(()));
    assert_eq!(del("../x", "eth0").unwrap_err().1, "invalid characters in containerID");
    assert_eq!(del("c", "0123456789012345678").unwrap_err().1, "interface name is too long");
    assert!(del("c", "e/h").is_err());
}

proptest! {
    #[test]
    fn any_json_is_read_or_refused(json in crate::answer::tests::any_json()) {
        let _ = Stdin::parse(json.to_string().as_bytes(), &Command::Add);
        if json.is_object() {
            let mut json = json;
            json["name"] = "n".into();
            json["cniVersion"] = "1.0.0".into();
            let stdin = Stdin::parse(json.to_string().as_bytes(), &Command::Add).unwrap();
            let _ = Conf::parse(&stdin, &Args::default());
            let _ = Lenient::parse(&stdin);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), args in ".{0,64}") {
        let _ = Stdin::parse(&bytes, &Command::Check);
        let _ = Args::parse(&args);
    }
}
