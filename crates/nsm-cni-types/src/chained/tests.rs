use proptest::prelude::*;

use super::*;

const FLANNEL: &str = r#"{"name": "cbr0", "cniVersion": "0.3.1", "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;
const BRIDGE: &str =
    r#"{"cniVersion": "1.0.0", "name": "lab", "type": "bridge", "mtu": 1e3, "odd": 123456789012345678901234567890}"#;

fn entry() -> Entry {
    Entry { cni_socket: "/run/nsm/cni.sock".into(), agent_wait_seconds: 10 }
}

fn file(name: &str, text: &str) -> File {
    File { name: name.into(), content: Ok(text.as_bytes().to_vec()) }
}

fn multus(cluster_network: &str) -> String {
    json!({"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "clusterNetwork": cluster_network})
        .to_string()
}

#[test]
fn a_list_gets_one_plugin_more_and_loses_nothing() {
    let derived = choose(&[file("10-flannel.conflist", FLANNEL), file("20-other.conf", BRIDGE)], &entry()).unwrap();
    assert_eq!((derived.name.as_str(), derived.from.as_str()), ("00-nsm.conflist", "10-flannel.conflist"));
    let mut list: Value = serde_json::from_str(&derived.text).unwrap();
    let ours = list["plugins"].as_array_mut().unwrap().pop().unwrap();
    assert_eq!(
        ours,
        json!({"type": "nsm-cni", "capabilities": {"io.kubernetes.cri.pod-annotations": true},
               "cniSocket": "/run/nsm/cni.sock", "agentWaitSeconds": 10})
    );
    assert_eq!(list.as_object_mut().unwrap().remove(ORIGIN), Some(json!("10-flannel.conflist")));
    assert_eq!(list, serde_json::from_str::<Value>(FLANNEL).unwrap());
    assert_eq!(origin(derived.text.as_bytes()).as_deref(), Some("10-flannel.conflist"));
}

#[test]
fn a_single_configuration_becomes_the_first_of_a_list_as_it_is() {
    let derived = choose(&[file("99-bridge.conf", BRIDGE)], &entry()).unwrap();
    assert!(derived.text.contains(BRIDGE), "{}", derived.text);
    let list: Value = serde_json::from_str(&derived.text).unwrap();
    assert_eq!((&list["name"], &list["cniVersion"]), (&json!("lab"), &json!("1.0.0")));
    assert_eq!(list["plugins"].as_array().unwrap().len(), 2);
}

#[test]
fn what_is_derived_sorts_first() {
    for (original, name) in [
        ("10-calico.conflist", "00-nsm.conflist"),
        ("00-multus.conflist", "0-nsm.conflist"),
        ("0-a.conflist", "+nsm.conflist"),
        ("-.conflist", "+nsm.conflist"),
        ("#1.conflist", "!nsm.conflist"),
    ] {
        let derived = choose(&[file(original, FLANNEL), file("zz.conf", BRIDGE)], &entry()).unwrap();
        assert_eq!(derived.name, name);
        assert!(derived.name.as_str() < original);
    }
    let why = choose(&[file("!a.conflist", FLANNEL)], &entry()).unwrap_err();
    assert_eq!(why, Reason::NoName { file: "!a.conflist".into() });
}

#[test]
fn ours_is_no_original_and_keeps_its_name_while_that_sorts_first() {
    let first = choose(&[file("00-multus.conflist", FLANNEL)], &entry()).unwrap();
    let ours = file(&first.name, &first.text);
    let files = [ours.clone(), file("10-flannel.conflist", FLANNEL)];
    let next = choose(&files, &entry()).unwrap();
    assert_eq!((next.name.as_str(), next.from.as_str()), ("0-nsm.conflist", "10-flannel.conflist"));
    assert_eq!(choose(&[ours], &entry()), Err(Reason::NoOriginal));
}

#[test]
fn what_a_runtime_would_not_take_is_not_passed_over() {
    let good = file("20-good.conflist", FLANNEL);
    for (name, text, why) in [
        ("10-a.conflist", "", "expected a JSON object"),
        ("10-a.conflist", "{\"name\": \"x\"", "expected a JSON object"),
        ("10-a.conflist", r#"{"plugins": [{"type": "x"}]}"#, "\"name\": expected a text"),
        ("10-a.conflist", r#"{"name": "x"}"#, "\"plugins\": expected a list"),
        ("10-a.conflist", r#"{"name": "x", "plugins": []}"#, "\"plugins\" is empty"),
        ("10-a.conflist", r#"{"name": "x", "plugins": [{}]}"#, "a plugin's \"type\": expected a text"),
        ("10-a.conf", FLANNEL, "\"type\": expected a text"),
        ("10-a.json", FLANNEL, "\"type\": expected a text"),
        ("10-a.conf", r#"{"type": "x"}"#, "\"name\": expected a text"),
    ] {
        let files = [file(name, text), good.clone()];
        match choose(&files, &entry()) {
            Err(Reason::Broken { file, why: said }) => {
                assert_eq!(file, name);
                assert!(said.contains(why), "{said}");
            }
            other => panic!("{text}: {other:?}"),
        }
    }
    let unread = File { name: "10-a.conf".into(), content: Err("permission denied".into()) };
    assert!(matches!(choose(&[unread, good.clone()], &entry()), Err(Reason::Broken { .. })));
    let beside = [file("README", "no"), file("10-a.conflist.cilium_bak", "{"), file(".00-nsm.conflist.new", "{"), good];
    assert_eq!(choose(&beside, &entry()).unwrap().from, "20-good.conflist");
}

#[test]
fn who_runs_the_plugin_already_is_left_alone() {
    let by_hand = r#"{"name": "x", "plugins": [{"type": "bridge"}, {"type": "nsm-cni", "networkService": "s"}]}"#;
    let files = [file("05-mine.conflist", by_hand), file("10-flannel.conflist", FLANNEL)];
    assert_eq!(choose(&files, &entry()), Err(Reason::Chained { file: "05-mine.conflist".into() }));
    // Behind the first it does not count: the runtime does not run it.
    let files = [file("10-flannel.conflist", FLANNEL), file("50-mine.conflist", by_hand)];
    assert_eq!(choose(&files, &entry()).unwrap().from, "10-flannel.conflist");
}

#[test]
fn a_meta_plugin_that_is_first_is_chained_after_and_one_that_takes_ours_is_followed_through() {
    // It is there first, with a main network of its own.
    let before =
        [file("00-multus.conf", &multus("/etc/cni/net.d/10-flannel.conflist")), file("10-flannel.conflist", FLANNEL)];
    let over = choose(&before, &entry()).unwrap();
    assert_eq!((over.name.as_str(), over.from.as_str()), ("0-nsm.conflist", "00-multus.conf"));
    // Then it takes ours for its main network: ours must not be derived from that, or it would run itself.
    let after = [
        file("00-multus.conf", &multus("/host/etc/cni/net.d/0-nsm.conflist")),
        file(&over.name, &over.text),
        file("10-flannel.conflist", FLANNEL),
    ];
    assert_eq!(choose(&after, &entry()), Err(Reason::Chained { file: "00-multus.conf".into() }));
    // It comes later and takes ours: ours goes on to follow its own original.
    let under = choose(&[file("10-flannel.conflist", FLANNEL)], &entry()).unwrap();
    let changed = FLANNEL.replace("hairpinMode\": true", "hairpinMode\": false");
    let files = [
        file("00-multus.conf", &multus("/etc/cni/net.d/00-nsm.conflist")),
        file(&under.name, &under.text),
        file("10-flannel.conflist", &changed),
    ];
    let next = choose(&files, &entry()).unwrap();
    assert_eq!((next.name.as_str(), next.from.as_str()), ("00-nsm.conflist", "10-flannel.conflist"));
    assert!(next.text.contains("hairpinMode\": false"));
}

proptest! {
    #[test]
    fn nothing_panics_and_what_is_derived_can_be_derived_from_no_more(
        name in "[ -~]{1,12}\\.(conf|conflist|json)", text in ".{0,200}", key in "[a-z]{1,8}", number in any::<f64>(),
    ) {
        let _ = choose(&[file(&name, &text)], &entry());
        let list = json!({"name": "n", "plugins": [{"type": "x", key: number}]}).to_string();
        if let Ok(derived) = choose(&[file(&name, &list)], &entry()) {
            prop_assert!(mentions_us(&file(&derived.name, &derived.text)));
            prop_assert!(usable(&file(&derived.name, &derived.text)).is_ok());
            let copied = [file("0-copy.conflist", &derived.text)];
            let chained = matches!(choose(&copied, &entry()), Err(Reason::Chained { .. }));
            prop_assert!(chained);
        }
    }
}
