//! What says which networks a pod has: its annotation, definitions, the meta-plugin's configuration.

use std::collections::BTreeSet;

use nsm_cni_types::{Answer, Command, Stdin, Version};
use nsm_npwg::{
    Annotations, Completion, Definition, List, Lookup, MOST, Meta, NETWORKS, REACHING, Selection,
    status::{Entry, entries},
};
use serde_json::Value;

/// The annotation in both forms. What is taken is bounded, has sound names, and applies to a network or is refused by name.
pub fn network_selection(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let all = match Selection::parse(NETWORKS, &text) {
        Ok(all) => all,
        Err(error) => return assert!(error.to_string().starts_with("annotation ")),
    };
    assert!(all.len() <= MOST);
    let named: Vec<&String> = all.iter().filter_map(|one| one.interface.as_ref()).collect();
    assert_eq!(named.iter().collect::<BTreeSet<_>>().len(), named.len(), "a name is given twice");
    let list = List::of_host("n", "n", r#"{"type": "a", "capabilities": {"ips": true, "portMappings": true}}"#);
    for one in &all {
        assert!(!one.name.is_empty() && !one.name.contains(['/', ' ']));
        // What is kept of it is read as the same.
        let kept = serde_json::to_value(one).expect("a selection is JSON");
        assert_eq!(serde_json::from_value::<Selection>(kept).ok().as_ref(), Some(one));
        let completion = Completion::of(one, None);
        assert!(!completion.cni_args.contains(char::is_whitespace));
        let _ = completion.apply("n", list.clone().expect("sound"));
    }
}

/// `spec.config`. What is taken calls no meta-plugin and does not reach into the host, whichever way a program in Go reads it, and reads
/// as the same when it was printed.
pub fn network_definition(data: &[u8]) {
    let Ok(list) = List::of_definition("n/a", "a", &String::from_utf8_lossy(data)) else { return };
    assert!(!list.plugins().is_empty());
    for plugin in list.plugins() {
        let kind = plugin["type"].as_str().expect("a plugin has a type");
        assert!(!kind.contains('/') && !["multus", "multus-shim", "multus-daemon"].contains(&kind), "{kind}");
    }
    let printed = list.to_json();
    harmless(&printed);
    let again = List::of_definition("n/a", "b", &printed.to_string()).expect("what was printed can be read");
    assert_eq!(again.to_json(), printed);
}

/// No key, at any depth, is one that programs in Go would take for a refused one. Case is left out as Unicode has it, not as the
/// code under test.
fn harmless(value: &Value) {
    match value {
        Value::Object(keys) => {
            for (key, value) in keys {
                let upper = key.to_uppercase().replace('\u{212a}', "K");
                assert!(REACHING.iter().all(|name| upper != name.to_uppercase()), "{key}");
                let is_meta = matches!(value.as_str(), Some("multus" | "multus-shim" | "multus-daemon"));
                assert!(upper != "TYPE" || !is_meta, "{key}: {value}");
                assert!(!["PREVRESULT", "RUNTIMECONFIG"].contains(&&*upper) || !keys.contains_key("type"), "{key}");
                harmless(value);
            }
        }
        Value::Array(all) => all.iter().for_each(harmless),
        _ => {}
    }
}

/// A network's result, told as the pod's status. What is said is in the result, and is read as the same.
pub fn network_status(data: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(data) else { return };
    for assumed in Version::ALL {
        let Ok(result) = Answer::parse(&value, assumed) else { continue };
        for is_default in [false, true] {
            let told = entries("ns/net", "net1", is_default, None, &result);
            assert!(told.len() <= result.interfaces.len().max(1));
            assert_eq!(told.iter().filter(|entry| entry.default).count(), usize::from(is_default && !told.is_empty()));
            for entry in &told {
                let made = result.interfaces.iter().any(|one| one.name == entry.interface && one.sandbox.is_some());
                assert!(made || entry.interface.is_empty() || result.version() <= Version::V0_2_0, "{entry:?}");
                assert!(entry.ips.iter().all(|ip| result.ips.iter().any(|one| one.address.ip() == *ip)), "{entry:?}");
                let kept = serde_json::to_value(entry).expect("an entry is JSON");
                assert_eq!(serde_json::from_value::<Entry>(kept).ok().as_ref(), Some(entry));
            }
        }
    }
}

/// The meta-plugin's configuration, and plans of it: the first network is the runtime's, and no name is given twice.
pub fn meta_configuration(data: &[u8]) {
    let Ok(stdin) = Stdin::parse(data, &Command::Add) else { return };
    let (lenient, mistakes) = Meta::lenient(&stdin);
    assert!(lenient.cni_dir.is_absolute() && lenient.socket.is_absolute());
    let Ok(meta) = Meta::parse(&stdin) else { return assert!(!mistakes.is_empty()) };
    let asked = Annotations { networks: Some("a,b@x,a".to_owned()), default_network: None };
    let Ok(planned) = nsm_npwg::plan(&meta, "eth0", "default", &asked, &mut Everything) else { return };
    assert_eq!(planned.first().map(|one| one.ifname.as_str()), Some("eth0"));
    let names: BTreeSet<&str> = planned.iter().map(|one| one.ifname.as_str()).collect();
    assert_eq!(names.len(), planned.len());
}

/// A cluster that has every definition.
struct Everything;

impl Lookup for Everything {
    fn definition(&mut self, _: &str, _: &str) -> Option<Definition> {
        Some(Definition { config: Value::from_iter([("type", "a")]).to_string(), resource_name: None })
    }

    fn device(&mut self, _: &str, _: Option<&str>) -> Result<String, String> {
        Err("none".to_owned())
    }
}
