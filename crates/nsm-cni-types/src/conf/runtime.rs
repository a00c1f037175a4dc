//! What runtimes and meta-plugins add: `runtimeConfig`, `capabilities` and `args`.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use super::fields::Fields;
use crate::pods::{Annotations, CAPABILITY};

/// Capabilities that ask nothing of the interface.
const WITHOUT_EFFECT: [&str; 4] = [CAPABILITY, "dns", "aliases", "cgroupPath"];

#[derive(Debug, Default)]
pub(super) struct RuntimeConfig {
    pub(super) mac: Option<String>,
    pub(super) ips: Vec<IpNetwork>,
    /// Present when the runtime gives annotations, whether the pod has any or not.
    pub(super) annotations: Option<Annotations>,
}

#[derive(Debug, Default)]
pub(super) struct Arguments {
    pub(super) labels: BTreeMap<String, String>,
    pub(super) ips: Vec<IpNetwork>,
}

/// `runtimeConfig`: `mac` and `ips` are honoured; what is declared, asked for and not done is refused by name.
pub(super) fn config(keys: &Map<String, Value>, fields: &mut Fields) -> RuntimeConfig {
    let mut config = RuntimeConfig::default();
    let declared = fields.object(keys, "capabilities");
    for (name, value) in declared.into_iter().flatten() {
        if !value.is_boolean() {
            fields.invalid(&format!("capabilities.{name}"), value, "true or false");
        }
    }
    let declared = |name: &str| declared.is_some_and(|all| all.get(name) == Some(&Value::Bool(true)));
    for (name, value) in fields.object(keys, "runtimeConfig").into_iter().flatten() {
        let key = format!("runtimeConfig.{name}");
        if name == CAPABILITY {
            config.annotations = Some(annotations(&key, value, fields));
        }
        if is_empty(value) || WITHOUT_EFFECT.contains(&name.as_str()) {
            continue;
        }
        match (name.as_str(), value) {
            ("mac", Value::String(text)) => config.mac = mac(&key, text, fields),
            ("mac", other) => fields.invalid(&key, other, "a hardware address"),
            ("ips", list) => config.ips = ip_list(&key, list, fields),
            (_, value) if declared(name) => fields.invalid(
                &key,
                value,
                &format!("no such key: this plugin does not do {name}, so its capabilities must not declare it"),
            ),
            _ => {}
        }
    }
    config
}

fn annotations(key: &str, value: &Value, fields: &mut Fields) -> Annotations {
    match value {
        Value::Null => Annotations::default(),
        Value::Object(all) => Annotations::of(|name| all.get(name)?.as_str()),
        other => {
            fields.invalid(key, other, "an object of strings");
            Annotations::default()
        }
    }
}

/// `args.cni.labels`, a list of key and value or an object, and `args.cni.ips`.
pub(super) fn arguments(keys: &Map<String, Value>, fields: &mut Fields) -> Arguments {
    let mut arguments = Arguments::default();
    let Some(cni) = fields.object(keys, "args").and_then(|args| fields.object(args, "cni")) else { return arguments };
    let name = "args.cni.labels";
    match cni.get("labels") {
        None | Some(Value::Null) => {}
        Some(Value::Object(object)) => arguments.labels = fields.label_object(name, object),
        Some(Value::Array(list)) => {
            let mut object = Map::new();
            for entry in list {
                match (entry.get("key").and_then(Value::as_str), entry.get("value")) {
                    (Some(key), Some(value)) => drop(object.insert(key.to_owned(), value.clone())),
                    _ => fields.invalid(name, entry, "an object with key and value"),
                }
            }
            arguments.labels = fields.label_object(name, &object);
        }
        Some(other) => fields.invalid(name, other, "a list of {key, value}, or an object of strings"),
    }
    if let Some(list) = cni.get("ips").filter(|list| !is_empty(list)) {
        arguments.ips = ip_list("args.cni.ips", list, fields);
    }
    arguments
}

/// A unicast hardware address of 6 bytes, in lower case.
pub(super) fn mac(key: &str, text: &str, fields: &mut Fields) -> Option<String> {
    let parts: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|part| (part.len() == 2).then(|| u8::from_str_radix(part, 16).ok()).flatten())
        .collect();
    match parts.as_deref() {
        Some([first, rest @ ..])
            if rest.len() == 5 && first & 1 == 0 && (*first != 0 || rest.iter().any(|b| *b != 0)) =>
        {
            let hex: Vec<String> = std::iter::once(first).chain(rest).map(|byte| format!("{byte:02x}")).collect();
            Some(hex.join(":"))
        }
        _ => {
            fields.invalid(key, &text.into(), "a unicast hardware address like 02:00:00:00:00:01");
            None
        }
    }
}

/// Addresses with or without a prefix.
pub(super) fn ips<'a>(key: &str, texts: impl Iterator<Item = &'a str>, fields: &mut Fields) -> Vec<IpNetwork> {
    let mut ips = Vec::new();
    for text in texts {
        match text.parse::<IpNetwork>() {
            Ok(ip) if !ip.ip().is_unspecified() && !ip.ip().is_multicast() => ips.push(ip),
            _ => fields.invalid(key, &text.into(), "an address like 10.0.0.1, 10.0.0.1/32 or fd00::1/128"),
        }
    }
    ips
}

fn ip_list(key: &str, list: &Value, fields: &mut Fields) -> Vec<IpNetwork> {
    let texts = list.as_array().and_then(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    let Some(texts) = texts else {
        fields.invalid(key, list, "a list of addresses");
        return Vec::new();
    };
    ips(key, texts.into_iter(), fields)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::String(text) => text.is_empty(),
        Value::Bool(_) | Value::Number(_) => false,
    }
}
