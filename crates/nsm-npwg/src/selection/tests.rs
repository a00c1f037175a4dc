//! Vectors of NPWG section 4.1, by section number.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(text: &str) -> Result<Vec<Selection>, String> {
    Selection::parse(NETWORKS, text).map_err(|error| error.to_string())
}

/// The one mistake of an element in JSON must have these words.
fn refused(element: &Value, words: &[&str]) {
    let why = read(&json!([element]).to_string()).expect_err(&element.to_string());
    for word in words.iter().chain(&["annotation k8s.v1.cni.cncf.io/networks", "expected"]) {
        assert!(why.contains(word), "{element}: {why:?} without {word:?}");
    }
}

#[test]
fn short_form_4_1_1() {
    let of = |namespace: Option<&str>, name: &str, interface: Option<&str>| Selection {
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
        interface: interface.map(str::to_owned),
        ..Selection::default()
    };
    assert_eq!(
        read(" net-a , other/net-b@eth7,net-a,a.b"),
        Ok(vec![
            of(None, "net-a", None),
            of(Some("other"), "net-b", Some("eth7")),
            of(None, "net-a", None),
            of(None, "a.b", None)
        ])
    );
    for wrong in [
        "a,,b",
        "a,",
        "/a",
        "a/",
        "a/b/c",
        "a@b@c",
        "a@",
        "A",
        "a_b",
        "-a",
        "a b",
        "a@sixteen-bytes-xx",
        "a@e/h",
        "a@lo",
        "a.b/c",
    ] {
        let why = read(wrong).expect_err(wrong);
        assert!(why.contains("expected"), "{wrong}: {why}");
    }
    assert!(read("a@x,b@x").unwrap_err().contains("interface \"x\" is asked for twice"));
    assert!(read(&vec!["a"; MOST].join(",")).is_ok());
    assert!(read(&vec!["a"; MOST + 1].join(",")).unwrap_err().contains("expected at most 64"));
    assert!(read(&"a".repeat(LONGEST + 1)).unwrap_err().contains("expected at most 65536"));
}

#[test]
fn json_form_4_1_2() {
    let text = json!([{
        "name": "a", "namespace": "n", "interface": "if0", "ips": ["10.0.0.2/24", "fd00::2"], "mac": "02-00-00-00-00-0A",
        "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "UDP", "hostIP": "192.0.2.1"},
                         {"hostPort": 8080, "containerPort": 80}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 2000, "egressRate": 1},
        "cni-args": {"k": [1]}, "infiniband-guid": "24:8a:07:03:00:8d:ae:2e", "deviceID": "0000:03:02.1",
        "default-route": ["10.0.0.1", "fd00::1"], "example.com/own": 1,
    }, {"name": "b", "interfaceRequest": "if1", "ipam-claim-reference": "claim", "mac": null, "ips": null}]);
    let all = read(&text.to_string()).unwrap();
    assert_eq!(all.len(), 2);
    let first = &all[0];
    assert_eq!((first.namespace.as_deref(), &*first.name, first.interface.as_deref()), (Some("n"), "a", Some("if0")));
    assert_eq!(first.ips, ["10.0.0.2/24", "fd00::2"]);
    assert_eq!(first.mac.as_deref(), Some("02:00:00:00:00:0a"));
    assert_eq!(
        first.port_mappings,
        Some(json!([
            {"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "192.0.2.1"},
            {"hostPort": 8080, "containerPort": 80, "protocol": "tcp"},
        ]))
    );
    assert_eq!(first.default_route.as_deref().map(<[_]>::len), Some(2));
    assert_eq!(all[1].interface.as_deref(), Some("if1"));
    assert_eq!(all[1].ipam_claim.as_deref(), Some("claim"));
    for (wrong, word) in [
        ("{\"name\":\"a\"}", "a list of objects"),
        ("[1]", "an object with name"),
        ("[{]", "JSON"),
        ("\"a\"", "a list"),
    ] {
        let why = read(wrong).expect_err(wrong);
        assert!(why.contains(word), "{wrong}: {why}");
    }
    refused(&json!({}), &["name"]);
    refused(&json!({"name": "a", "Mac": "x"}), &["unknown key \"Mac\"", "portMappings"]);
    refused(&json!({"name": 1}), &["name 1"]);
}

#[test]
fn values_4_1_2_1() {
    for ips in [
        json!([]),
        json!(["10.0.0.1", "10.0.0.1/24"]),
        json!(["10.0.0.1/33"]),
        json!(["x"]),
        json!("10.0.0.1"),
        json!([1]),
    ] {
        refused(&json!({"name": "a", "ips": ips}), &["[0] (a): ips"]);
    }
    for mac in ["02:00:00:00:00", "01:00:5e:00:00:01", "02:00:00:00:00:0g", "24:8a:07:03:00:8d:ae:2e"] {
        refused(&json!({"name": "a", "mac": mac}), &["mac", mac, "6 bytes"]);
    }
    refused(&json!({"name": "a", "infiniband-guid": "24:8a:07:03:00:8d"}), &["infiniband-guid", "8 bytes"]);
    for mapping in [
        json!([]),
        json!([{"hostPort": 0, "containerPort": 80}]),
        json!([{"hostPort": 65536, "containerPort": 80}]),
        json!([{"hostPort": "80", "containerPort": 80}]),
        json!([{"containerPort": 80}]),
        json!([{"hostPort": 80, "containerPort": 80, "protocol": "icmp"}]),
        json!([{"hostPort": 80, "containerPort": 80, "hostIP": "x"}]),
        json!([{"hostPort": 80, "containerPort": 80, "other": 1}]),
        json!([{"hostPort": 80, "containerPort": 80}, {"hostPort": 80, "containerPort": 81, "protocol": "TCP"}]),
    ] {
        refused(&json!({"name": "a", "portMappings": mapping}), &["portMappings"]);
    }
    for bandwidth in [
        json!({}),
        json!({"ingressBurst": 1}),
        json!({"ingressRate": 0}),
        json!({"egressRate": -1}),
        json!({"egressRate": 1.5}),
        json!({"rate": 1}),
        json!(1),
    ] {
        refused(&json!({"name": "a", "bandwidth": bandwidth}), &["bandwidth"]);
    }
    refused(&json!({"name": "a", "cni-args": []}), &["cni-args"]);
    refused(&json!({"name": "a", "ips": ["10.0.0.1"], "ipam-claim-reference": "c"}), &["ipam-claim-reference"]);
    refused(&json!({"name": "a", "default-route": ["10.0.0.1/24"]}), &["default-route"]);
    refused(&json!({"name": "a", "default-route": ["10.0.0.1", "10.0.0.2"]}), &["one IPv4 gateway"]);
    let why = read(&json!([{"name": "A", "mac": "x"}, {"name": "b", "ips": []}]).to_string()).unwrap_err();
    for word in ["[0]: ", "mac \"x\"", "[1] (b): ips []"] {
        assert!(why.contains(word), "all mistakes are told at once: {why}");
    }
}

#[test]
fn default_routes_4_1_2_1_9() {
    let both = json!([{"name": "a", "default-route": ["10.0.0.1"]}, {"name": "b", "default-route": ["fd00::1"]}]);
    assert_eq!(read(&both.to_string()).unwrap().len(), 2, "each family has one");
    let twice = json!([{"name": "a", "default-route": ["fd00::2"]}, {"name": "b", "default-route": ["fd00::1"]}]);
    assert!(read(&twice.to_string()).unwrap_err().contains("one IPv6 gateway"));
    assert_eq!(read(r#"[{"name": "a", "default-route": []}]"#).unwrap()[0].default_route, Some(Vec::new()));
    let none_and_one = json!([{"name": "a", "default-route": []}, {"name": "b", "default-route": ["fd00::1"]}]);
    assert!(read(&none_and_one.to_string()).unwrap_err().contains("leaves none"));
}

#[test]
fn the_default_network_is_one() {
    let of = |text: &str| Annotations { networks: None, default_network: Some(text.to_owned()) }.default_one();
    assert_eq!(of("n/a").unwrap().unwrap().namespace.as_deref(), Some("n"));
    assert!(of("a,b").unwrap_err().to_string().contains("2 networks: expected one"));
    assert!(
        of("a@eth1").unwrap_err().to_string().starts_with("annotation v1.multus-cni.io/default-network: interface")
    );
    assert_eq!(Annotations::of(|_| Some("  ")).default_one(), Ok(None));
}

proptest! {
    #[test]
    fn whatever_is_written_is_read_or_refused(text in "\\PC{0,60}") {
        if let Ok(all) = Selection::parse(NETWORKS, &text) {
            prop_assert!(all.iter().all(|one| is_object(&one.name)));
        }
    }

    #[test]
    fn sound_names_are_read_in_both_forms(names in proptest::collection::vec("[a-z0-9]{1,8}(-[a-z0-9]{1,4})?", 1..6)) {
        let json = Value::Array(names.iter().map(|name| json!({"name": name})).collect());
        prop_assert_eq!(read(&names.join(",")), read(&json.to_string()));
    }
}

#[test]
fn both_annotations_together_have_one_default_route_4_1_2_1_9() {
    let of = |default: &str, networks: &str| {
        let selection = |name: &str, route: &str| format!(r#"[{{"name": "{name}", "default-route": {route}}}]"#);
        let all =
            Annotations { networks: Some(selection("a", networks)), default_network: Some(selection("d", default)) };
        all.added().map(|all| all.len()).map_err(|error| error.to_string())
    };
    for (default, networks) in
        [(r#"["10.0.0.1"]"#, r#"["10.1.0.1"]"#), ("[]", r#"["10.1.0.1"]"#), (r#"["fd00::1"]"#, "[]")]
    {
        let why = of(default, networks).expect_err(default);
        assert!(why.contains(NETWORKS) && why.contains(DEFAULT_NETWORK) && why.contains("default-route"), "{why}");
    }
    assert_eq!(of(r#"["10.0.0.1"]"#, r#"["fd00::1"]"#), Ok(1));
    assert_eq!(of("null", r#"["10.0.0.1"]"#), Ok(1));
}
