//! Vectors of NPWG sections 3.2 to 3.4 and of what is refused.

use super::*;

fn definition(config: &Value) -> Result<List, String> {
    List::of_definition("ns/net", "net", &config.to_string()).map_err(|error| error.to_string())
}

#[test]
fn one_plugin_becomes_a_list_with_a_name_3_4_2() {
    let one = definition(&json!({"cniVersion": "0.3.1", "type": "bridge", "ipam": {"type": "host-local"}})).unwrap();
    assert_eq!(
        one.to_json(),
        json!({"cniVersion": "0.3.1", "name": "net", "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}]})
    );
    assert_eq!(one.version(), Version::V0_3_1);
    let empty =
        definition(&json!({"name": "", "plugins": [{"type": "a"}, {"type": "b", "ipam": {"type": ""}}]})).unwrap();
    assert_eq!((empty.name(), empty.version(), empty.plugins().len()), ("net", Version::V0_1_0, 2));
    let named = definition(&json!({"name": "own", "disableCheck": true, "plugins": [{"type": "a"}]})).unwrap();
    assert_eq!((named.name(), named.key("disableCheck")), ("own", Some(&json!(true))));
}

#[test]
fn the_newest_known_version_counts() {
    let of = |keys: Value| {
        let mut keys = keys;
        keys["plugins"] = json!([{"type": "a"}]);
        definition(&keys).map(|list| list.version())
    };
    assert_eq!(of(json!({"cniVersions": ["0.4.0", "1.0.0", "9.0.0"]})), Ok(Version::V1_0_0));
    assert_eq!(of(json!({"cniVersion": "1.1.0", "cniVersions": ["1.0.0"]})), Ok(Version::V1_1_0));
    for wrong in [json!({"cniVersion": "9.0.0"}), json!({"cniVersion": 1}), json!({"cniVersions": ["x"]})] {
        assert!(of(wrong).unwrap_err().contains("expected a version from 0.1.0 to 1.1.0"));
    }
}

#[test]
fn what_is_no_network_is_refused_by_name() {
    for (wrong, word) in [
        (json!({"plugins": []}), "plugins []: expected at least one plugin"),
        (json!({"plugins": {}}), "a list of objects"),
        (json!({"plugins": [1]}), "objects with type"),
        (json!({}), "type null: expected the name of a plugin"),
        (json!({"type": "../../bin/sh"}), "expected the name of a plugin"),
        (json!({"type": ".."}), "expected the name of a plugin"),
        (json!({"type": "a", "name": "a/b"}), "name \"a/b\""),
        (json!({"type": "a", "name": 1}), "name 1"),
        (json!([]), "expected an object"),
    ] {
        let why = definition(&wrong).expect_err(&wrong.to_string());
        assert!(why.starts_with("network \"ns/net\": ") && why.contains(word), "{wrong}: {why}");
    }
    assert!(List::of_definition("n", "n", "{").unwrap_err().to_string().contains("no JSON"));
    let long = |length: usize| format!("{{\"type\":\"a\",\"x\":\"{}\"}}", "x".repeat(length));
    let why = List::of_definition("n", "n", &long(LONGEST_DEFINED)).unwrap_err().to_string();
    assert!(why.contains("expected at most 65536"), "{why}");
    assert!(List::of_host("n", "n", &long(LONGEST_DEFINED)).is_ok());
    assert!(List::of_host("n", "n", &long(LONGEST)).unwrap_err().to_string().contains("expected at most"));
}

#[test]
fn no_network_calls_a_meta_plugin() {
    for wrong in [
        json!({"type": "multus"}),
        json!({"plugins": [{"type": "bridge"}, {"type": "multus-shim"}]}),
        json!({"type": "nsm-cni", "clusterNetwork": "x"}),
        json!({"type": "nsm-cni", "networkService": "s", "delegates": []}),
        json!({"type": "flannel", "delegate": {"type": "multus"}}),
        json!({"type": "bridge", "ipam": {"type": "nsm-cni"}}),
    ] {
        for why in [
            definition(&wrong).unwrap_err(),
            List::of_host("ns/net", "net", &wrong.to_string()).unwrap_err().to_string(),
        ] {
            assert!(why.contains("meta-plugin"), "{wrong}: {why}");
        }
    }
    assert!(definition(&json!({"type": "nsm-cni"})).unwrap_err().contains("without networkService"));
    assert!(definition(&json!({"type": "nsm-cni", "networkService": "s", "timeoutSeconds": 3})).is_ok());
}

#[test]
fn no_definition_reaches_into_the_host() {
    for key in REACHING {
        let plugin = json!({"type": "nsm-cni", "networkService": "s", key: "/x"});
        for wrong in [
            plugin.clone(),
            json!({"plugins": [{"type": "a"}, plugin]}),
            json!({"plugins": [{"type": "a"}], key: "/x"}),
        ] {
            let why = definition(&wrong).expect_err(&wrong.to_string());
            assert!(why.contains(key) || why.contains("meta-plugin"), "{wrong}: {why}");
        }
    }
    // The node's own may.
    assert!(List::of_host("n", "n", r#"{"type": "sriov", "logFile": "/var/log/sriov"}"#).is_ok());
    // No definition may further down, where plugins have more of them.
    let whereabouts = |inner: Value| json!({"type": "macvlan", "ipam": {"type": "whereabouts", "range": "10.0.0.0/24", "more": inner}});
    assert!(definition(&whereabouts(json!({"log": "debug", "kubernetes": {"namespace": "a"}}))).is_ok());
    for (inner, key) in [
        (json!({"kubernetes": {"kubeconfig": "/x"}}), "kubeconfig"),
        (json!({"log_file": "/x"}), "log_file"),
        (json!([[{"configuration_path": "/x"}]]), "configuration_path"),
        (json!({"socket-file": "/x"}), "socket-file"),
        (json!({"daemonsocketpath": "/x"}), "daemonsocketpath"),
    ] {
        let config = whereabouts(inner);
        assert!(definition(&config).unwrap_err().contains(&format!("key {key:?} of ")), "{config}");
        assert!(List::of_host("n", "n", &config.to_string()).is_ok());
    }
}

/// Spellings that encoding/json takes for one field.
fn spellings(key: &str) -> Vec<String> {
    let mut all = vec![key.to_uppercase(), key.to_lowercase(), key[..1].to_uppercase() + &key[1..]];
    all.extend([('s', '\u{17f}'), ('k', '\u{212a}')].map(|(letter, other)| key.replace(letter, &other.to_string())));
    all
}

#[test]
fn no_spelling_reaches_into_the_host() {
    for key in REACHING.into_iter().flat_map(spellings) {
        let plugin = json!({"type": "sriov", &*key: "/x"});
        for wrong in [
            json!({"plugins": [{"type": "a"}], &*key: "/x"}),
            json!({"plugins": [{"type": "a"}, plugin]}),
            json!({"type": "a", "IPAM": {"type": "b", &*key: "/x"}}),
            json!({"type": "flannel", "delegate": plugin}),
            json!({"type": "flannel", "Delegate": {"ipam": [plugin]}}),
            json!({"type": "a", "other": {"first": [{&*key: "/x"}]}}),
        ] {
            let why = definition(&wrong).expect_err(&wrong.to_string());
            assert!(why.contains(&format!("key {key:?} of ")), "{wrong}: {why}");
        }
        assert!(List::of_host("n", "n", &plugin.to_string()).is_ok());
    }
}

#[test]
fn no_spelling_calls_a_meta_plugin() {
    for key in spellings("type").into_iter().chain(["type".to_owned()]) {
        let called = json!({&*key: "multus"});
        for wrong in [
            called.clone(),
            json!({"type": "bridge", "ipam": called}),
            json!({"type": "bridge", "Ipam": called}),
            json!({"type": "flannel", "DELEGATE": {"type": "a", "ipam": called}}),
            json!({"type": "a", "others": [{"first": called}]}),
            json!({"type": "a", "ipam": {"type": "b", "Type": "multus"}}),
        ] {
            for read in [List::of_definition, List::of_host] {
                let why = read("ns/net", "net", &wrong.to_string()).expect_err(&wrong.to_string()).to_string();
                assert!(why.contains("meta-plugin") || why.contains("keys \"Type\" and \"type\""), "{wrong}: {why}");
            }
        }
    }
    for key in ["delegates", "clusterNetwork"].into_iter().flat_map(spellings) {
        let ours = json!({"type": "nsm-cni", "networkService": "s", &*key: []});
        assert!(List::of_host("n", "n", &ours.to_string()).unwrap_err().to_string().contains("meta-plugin"), "{ours}");
    }
}

#[test]
fn two_spellings_of_a_key_are_refused() {
    for wrong in [
        json!({"plugins": [{"type": "a"}], "Plugins": []}),
        json!({"plugins": [{"type": "a", "Type": "b"}]}),
        json!({"type": "a", "mtu": 1, "MTU": 2}),
        json!({"type": "a", "ipam": {}, "IPAM": {}}),
        json!({"type": "a", "ipam": {"type": "b", "Type": "c"}}),
        json!({"type": "a", "delegate": {"ipam": {"subnet": "", "\u{17f}ubnet": ""}}}),
    ] {
        let why = definition(&wrong).expect_err(&wrong.to_string());
        assert!(why.contains("expected one of them"), "{wrong}: {why}");
    }
    // What is no plugin's configuration is a plugin's own affair.
    assert!(definition(&json!({"type": "tuning", "sysctl": {"net.a": "1", "net.A": "2"}})).is_ok());
}

#[test]
fn keys_that_are_read_here_are_so_in_any_spelling() {
    let list =
        definition(&json!({"CNIVersion": "0.3.1", "Name": "own", "Plugins": [{"Type": "a", "MTU": 1}]})).unwrap();
    assert_eq!(list.to_json(), json!({"cniVersion": "0.3.1", "name": "own", "plugins": [{"type": "a", "MTU": 1}]}));
}

#[test]
fn switches_may_be_texts() {
    let of = |value: Value| definition(&json!({"plugins": [{"type": "a"}], "disableCheck": value, "DisableGC": value}));
    for value in [json!(true), json!("true"), json!("True")] {
        let list = of(value).unwrap();
        assert_eq!((list.key("disableCheck"), list.key("disableGC")), (Some(&json!(true)), Some(&json!(true))));
    }
    for value in [json!(false), json!("FALSE"), json!(null)] {
        assert_eq!(of(value).unwrap().key("disableCheck"), None);
    }
    for wrong in [json!("yes"), json!(1), json!("")] {
        let why = of(wrong).unwrap_err();
        assert!(why.contains("disableCheck") && why.contains("expected true or false"), "{why}");
    }
}

#[test]
fn what_only_runtimes_say_is_left_out_of_the_list() {
    let list =
        definition(&json!({"plugins": [{"type": "a"}], "prevResult": {}, "runtimeConfig": {}, "other": 1})).unwrap();
    assert_eq!(list.to_json(), json!({"name": "net", "plugins": [{"type": "a"}], "other": 1}));

    for key in RUNTIMES.into_iter().flat_map(|key| [vec![key.to_owned()], spellings(key)].concat()) {
        for forged in [json!({"type": "a", &*key: {}}), json!({"plugins": [{"type": "a", &*key: {}}], &*key: {}})] {
            assert_eq!(definition(&forged).unwrap().to_json(), json!({"name": "net", "plugins": [{"type": "a"}]}));
        }
    }
}

#[test]
fn what_the_agent_chains_is_left_out_of_the_hosts_lists() {
    let list = |plugins: Value| json!({"cniVersion": "1.0.0", "name": "first", "plugins": plugins}).to_string();
    let ours = json!({"type": "nsm-cni", "cniSocket": "/run/nsm/cni.sock"});
    let chained = List::of_host("n", "n", &list(json!([{"type": "ptp"}, ours, {"type": "tuning"}]))).unwrap();
    let types: Vec<&Value> = chained.plugins().iter().map(|plugin| &plugin["type"]).collect();
    assert_eq!(types, ["ptp", "tuning"]);
    // Alone it makes no network, with a service it makes one.
    assert!(List::of_host("n", "n", &list(json!([ours]))).is_err());
    let service = json!({"type": "nsm-cni", "networkService": "s"});
    assert_eq!(List::of_host("n", "n", &list(json!([{"type": "ptp"}, service]))).unwrap().plugins().len(), 2);
    assert!(List::of_definition("n", "n", &list(json!([{"type": "ptp"}, ours]))).is_err());
    assert_eq!(
        List::reaching(r#"{"type": "a", "log_file": 1, "ipam": [{"kubernetes": {"KubeConfig": "/x"}}]}"#),
        ["ipam.kubernetes.KubeConfig", "log_file"]
    );
}
