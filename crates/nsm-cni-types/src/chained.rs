//! The configuration of a node's network with `nsm-cni` behind it: what the agent installs, and what an uninstaller takes away.
//!
//! Guarantees: of the original every key and value stays as its bytes are, numbers included; what runs `nsm-cni` already, or names
//! a derived configuration, is never derived from; what is derived sorts before its original, so that a runtime which takes
//! the first takes it; no input makes this panic.
//!
//! Assumption: runtimes sort by bytes and take `.conf`, `.conflist` and `.json` (containerd's go-cni, CRI-O's ocicni).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};

use crate::pods;

/// The plugin's type: its file's name in the runtime's plugin directory.
pub const TYPE: &str = "nsm-cni";
/// What derived configurations are called: the first that sorts before the original.
pub const NAMES: [&str; 4] = ["00-nsm.conflist", "0-nsm.conflist", "+nsm.conflist", "!nsm.conflist"];

/// The key that tells what a list was derived from. Runtimes skip keys of a list that they do not know.
const ORIGIN: &str = "networkservicemesh.io/derived-from";
/// What may hold the plugins in a list.
const PLUGINS: &str = "plugins";

/// Whether a runtime looks into a file of that name.
pub fn is_configuration(file: &str) -> bool {
    [".conf", ".conflist", ".json"].iter().any(|end| file.ends_with(end))
}

/// Whether that is the name of a derived configuration.
pub fn is_ours(file: &str) -> bool {
    NAMES.contains(&file)
}

/// What the plugin is told in a derived configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The agent's private socket.
    pub cni_socket: String,
    /// How long an ADD waits for an agent that is not there: while it is being replaced, for one.
    pub agent_wait_seconds: u64,
}

/// A file of the configuration directory.
#[derive(Debug, Clone)]
pub struct File {
    /// Its name.
    pub name: String,
    /// What is in it, or why that cannot be told.
    pub content: Result<Vec<u8>, String>,
}

/// A configuration that is to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// What its file is called.
    pub name: String,
    /// The file that it was derived from.
    pub from: String,
    /// What is in it.
    pub text: String,
    /// The plugins that the runtime runs before `nsm-cni`, by type.
    pub before: Vec<String>,
}

/// Why nothing is to be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The node has no network yet.
    #[error(
        "no CNI configuration to derive from: install the cluster's network, or name the directory that the runtime reads"
    )]
    NoOriginal,
    /// The runtime cannot take its first file either, or it is being written.
    #[error("{file} is the first CNI configuration and cannot be used: {why}")]
    Broken {
        /// The first file.
        file: String,
        /// What is wrong with it.
        why: String,
    },
    /// An operator, or a meta-plugin, runs `nsm-cni` by itself.
    #[error("{file} is the first CNI configuration and runs nsm-cni itself")]
    Chained {
        /// The first file.
        file: String,
    },
    /// Nothing sorts before it.
    #[error("no name sorts before {file}: rename it to begin with a digit")]
    NoName {
        /// The first file.
        file: String,
    },
}

/// A network, as much of it as a runtime needs to take it.
struct Network {
    keys: BTreeMap<String, Box<RawValue>>,
    plugins: Vec<Box<RawValue>>,
    /// Of each plugin.
    types: Vec<String>,
}

/// What is to be written, by what is in the directory.
pub fn choose(files: &[File], entry: &Entry) -> Result<Derived, Reason> {
    let mut files: Vec<&File> = files.iter().filter(|file| is_configuration(&file.name)).collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let (ours, others): (Vec<&File>, Vec<&File>) = files.into_iter().partition(|file| is_ours(&file.name));
    let first = others.first().ok_or(Reason::NoOriginal)?;
    let mut original = (*first, read(first).map_err(|why| Reason::Broken { file: first.name.clone(), why })?);
    if mentions_us(first) {
        // A meta-plugin that took ours for its main network: ours follows the network that it was derived from.
        let origin = ours.first().and_then(|ours| origin(ours.content.as_ref().ok()?));
        let origin = origin.and_then(|name| others.iter().find(|file| file.name == name));
        let network = origin.filter(|file| !mentions_us(file)).and_then(|file| Some((*file, read(file).ok()?)));
        original = network.ok_or_else(|| Reason::Chained { file: first.name.clone() })?;
    }
    let (file, network) = original;
    let names = ours.iter().map(|file| file.name.as_str()).chain(NAMES);
    let name = names.into_iter().find(|name| *name < file.name.as_str());
    let name = name.ok_or_else(|| Reason::NoName { file: file.name.clone() })?;
    let text = network.chained(&file.name, entry);
    Ok(Derived { name: name.to_owned(), from: file.name.clone(), text, before: network.types })
}

/// The file that a derived configuration was derived from.
pub fn origin(text: &[u8]) -> Option<String> {
    serde_json::from_slice::<Value>(text).ok()?.get(ORIGIN)?.as_str().map(str::to_owned)
}

/// Whether a runtime would take this file.
///
/// # Errors
/// Why it would not.
pub fn usable(file: &File) -> Result<(), String> {
    read(file).map(|_| ())
}

/// Whether a file runs `nsm-cni` or names a derived configuration, anywhere in it.
pub fn mentions_us(file: &File) -> bool {
    let Ok(text) = &file.content else { return false };
    serde_json::from_slice(text).is_ok_and(|value| mentions(&value))
}

/// Whether a file names a derived configuration, as a meta-plugin does that takes it for its main network.
pub fn mentions_derived(file: &File) -> bool {
    fn of(value: &Value) -> bool {
        match value {
            Value::Object(object) => object.values().any(of),
            Value::Array(values) => values.iter().any(of),
            Value::String(text) => text.rsplit('/').next().is_some_and(is_ours),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    let Ok(text) = &file.content else { return false };
    serde_json::from_slice(text).is_ok_and(|value| of(&value))
}

fn mentions(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.get("type").is_some_and(|kind| kind == TYPE) || object.values().any(mentions),
        Value::Array(values) => values.iter().any(mentions),
        Value::String(text) => text.rsplit('/').next().is_some_and(is_ours),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn read(file: &File) -> Result<Network, String> {
    let text = file.content.as_ref().map_err(Clone::clone)?;
    let mut keys: BTreeMap<String, Box<RawValue>> =
        serde_json::from_slice(text).map_err(|error| format!("expected a JSON object: {error}"))?;
    let word = |keys: &BTreeMap<String, Box<RawValue>>, key: &str| {
        let value = keys.get(key).and_then(|value| serde_json::from_str::<String>(value.get()).ok());
        value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key:?}: expected a text"))
    };
    word(&keys, "name")?;
    if !file.name.ends_with(".conflist") {
        let types = vec![word(&keys, "type")?];
        let whole: Box<RawValue> = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        keys.retain(|key, _| ["name", "cniVersion"].contains(&key.as_str()));
        return Ok(Network { keys, plugins: vec![whole], types });
    }
    let plugins = keys.remove(PLUGINS).ok_or("\"plugins\": expected a list")?;
    let plugins: Vec<Box<RawValue>> =
        serde_json::from_str(plugins.get()).map_err(|error| format!("\"plugins\": expected a list: {error}"))?;
    if plugins.is_empty() {
        return Err("\"plugins\" is empty".into());
    }
    let kind = |plugin: &RawValue| {
        let keys = serde_json::from_str(plugin.get()).map_err(|error| format!("a plugin is no object: {error}"))?;
        word(&keys, "type").map_err(|why| format!("a plugin's {why}"))
    };
    let types = plugins.iter().map(|plugin| kind(plugin)).collect::<Result<_, String>>()?;
    Ok(Network { keys, plugins, types })
}

#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    keys: BTreeMap<&'a str, &'a RawValue>,
    plugins: Vec<&'a RawValue>,
}

impl Network {
    /// This network with `nsm-cni` as its last plugin.
    fn chained(&self, from: &str, entry: &Entry) -> String {
        let ours = json!({
            "type": TYPE,
            "capabilities": { pods::CAPABILITY: true },
            "cniSocket": entry.cni_socket,
            "agentWaitSeconds": entry.agent_wait_seconds,
        });
        let raw = |value: &Value| to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let (ours, from) = (raw(&ours), raw(&from.into()));
        let mut keys: BTreeMap<&str, &RawValue> =
            self.keys.iter().map(|(key, value)| (key.as_str(), value.as_ref())).collect();
        keys.insert(ORIGIN, &from);
        let mut plugins: Vec<&RawValue> = self.plugins.iter().map(AsRef::as_ref).collect();
        plugins.push(&ours);
        // Texts and raw values only: that cannot fail.
        let mut text = serde_json::to_string_pretty(&Written { keys, plugins }).unwrap_or_default();
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests;
