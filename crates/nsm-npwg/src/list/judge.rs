//! What a plugin's configuration may not say: that a meta-plugin is called and, in a definition, what reaches into the host.
//!
//! Guarantee: a key counts in every spelling that a program in Go would take.

use serde_json::{Map, Value};

use super::REACHING;
use crate::{mistakes::quoted, spelling};

/// Programs that are meta-plugins under any configuration.
const META: [&str; 3] = ["multus", "multus-shim", "multus-daemon"];
/// This project's own: a meta-plugin without `networkService`.
const OURS: &str = "nsm-cni";
/// Keys of a plugin under which is the configuration of another one that it calls.
const CALLED: [&str; 2] = ["ipam", "delegate"];

/// Why a plugin cannot be called.
pub(super) fn plugin(keys: &Map<String, Value>) -> Option<String> {
    let program = match keys.get("type") {
        Some(Value::String(text)) if is_program(text) => text,
        other => return Some(format!("type {}: expected the name of a plugin", quoted(other.unwrap_or(&Value::Null)))),
    };
    if let Some(why) = below(keys, "", true) {
        return Some(why);
    }
    if is_meta(program)
        || (program == OURS && ["delegates", "clusterNetwork"].iter().any(|key| spelling::has(keys, key)))
    {
        return Some(format!("type {program:?} is a meta-plugin, which would call itself: expected another plugin"));
    }
    if program == OURS && !keys.contains_key("networkService") {
        return Some(format!(
            "type {program:?} without networkService: expected one; what the pod's annotations ask for is made beside this network"
        ));
    }
    None
}

/// Whether it is `nsm-cni` as it is chained behind a cluster's network, for what pods ask by annotation.
pub(super) fn is_chained(plugin: &Value) -> bool {
    let has = |key: &str| plugin.as_object().is_some_and(|keys| spelling::has(keys, key));
    plugin["type"] == OURS && !["networkService", "delegates", "clusterNetwork"].into_iter().any(has)
}

/// Why what is below a plugin's keys cannot be called. A meta-plugin is looked for everywhere, as some plugin may call it.
fn below(keys: &Map<String, Value>, place: &str, is_plugin: bool) -> Option<String> {
    keys.iter().find_map(|(key, value)| {
        let (place, is_called) = (format!("{place}{key}"), is_plugin && spelling::is_one(key, &CALLED));
        objects(value).into_iter().find_map(|inner| {
            let twice = spelling::once(inner).err().filter(|_| is_called).map(|twice| format!("{place}: {twice}"));
            twice
                .or_else(|| wrong_type(inner, &place, is_called))
                .or_else(|| below(inner, &format!("{place}."), is_called))
        })
    })
}

fn wrong_type(keys: &Map<String, Value>, place: &str, is_called: bool) -> Option<String> {
    let kinds = keys.iter().filter(|(key, _)| spelling::is(key, "type"));
    let is_wrong = |value: &Value| match value {
        // host-device and others leave it empty for "none".
        Value::Null => false,
        Value::String(text) if text.is_empty() => false,
        Value::String(text) => is_meta(text) || text == OURS || (is_called && !is_program(text)),
        _ => is_called,
    };
    let (key, value) = kinds.into_iter().find(|(_, value)| is_wrong(value))?;
    Some(format!("{place}.{key} {}: expected a plugin that is no meta-plugin", quoted(value)))
}

/// Where a key of [`REACHING`] is, and its spelling. It is looked for everywhere, as a plugin has its paths where it likes.
pub(super) fn reaching(keys: &Map<String, Value>, place: &str) -> Option<(String, String)> {
    if let Some(key) = keys.keys().find(|key| REACHING.iter().any(|name| spelling::means(key, name))) {
        return Some((place.to_owned(), key.clone()));
    }
    keys.iter().find_map(|(key, value)| {
        objects(value).into_iter().find_map(|inner| reaching(inner, &format!("{key} of {place}")))
    })
}

/// All keys of [`REACHING`], each with its way from the top.
pub(super) fn all_reaching(keys: &Map<String, Value>, way: &str, found: &mut Vec<String>) {
    for (key, value) in keys {
        if REACHING.iter().any(|name| spelling::means(key, name)) {
            found.push(format!("{way}{key}"));
        }
        for inner in objects(value) {
            all_reaching(inner, &format!("{way}{key}."), found);
        }
    }
}

/// The objects that a value is, or that are in its lists.
fn objects(value: &Value) -> Vec<&Map<String, Value>> {
    match value {
        Value::Object(keys) => vec![keys],
        Value::Array(all) => all.iter().flat_map(objects).collect(),
        _ => Vec::new(),
    }
}

/// The name of a program in a directory of plugins.
fn is_program(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= 255 && !text.contains(['/', '\0'])
}

fn is_meta(program: &str) -> bool {
    META.contains(&program)
}
