//! A network's configuration as a list of plugins, whoever wrote it: `spec.config` of a NetworkAttachmentDefinition (NPWG section
//! 3.2), a file of the host, or an object in the meta-plugin's configuration.
//!
//! Guarantees: there is at least one plugin, each has a type that is the name of a program, none is a meta-plugin; the list has a
//! name and a version that is known or none. No key is there in two spellings, and those that are read or written here are in the
//! specification's. A definition has no key of [`REACHING`], and nothing that only a runtime says. What else is in it stays.

mod judge;

use nsm_cni_types::Version;
use serde_json::{Map, Value, json};

use crate::{Error, flag, flag::FLAGS, mistakes::quoted, spelling};

/// Keys by which a configuration reaches into the host, at any depth: no definition may have them, in whatever spelling. Whoever may
/// write definitions chooses which of the host's plugins run, not where these look for programs, credentials and sockets or write logs.
pub const REACHING: [&str; 14] = [
    "kubeconfig",
    "cniDir",
    "binDir",
    "confDir",
    "logFile",
    "logFilePath",
    "cniSocket",
    "delegates",
    "clusterNetwork",
    "socketDir",
    "socketFile",
    "daemonSocketDir",
    "daemonSocketPath",
    "configurationPath",
];
/// Keys that are read or written here, which plugins would take in any spelling: a second one would be believed instead.
const READ: [&str; 9] =
    ["name", "cniVersion", "cniVersions", "plugins", "type", "capabilities", "args", "deviceID", "pciBusID"];
/// Keys that only a runtime says.
const RUNTIMES: [&str; 4] = ["prevResult", "runtimeConfig", "cni.dev/valid-attachments", "cni.dev/attachments"];
/// Longest configuration of the host, in bytes.
const LONGEST: usize = 1 << 20;
/// Longest one of a definition, whose author may be anybody: a pod may name it many times, and read it takes many times its length.
const LONGEST_DEFINED: usize = 64 << 10;
/// Most plugins of a list.
const MOST: usize = 64;

/// A network's plugins in their order.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    name: String,
    keys: Map<String, Value>,
    plugins: Vec<Map<String, Value>>,
}

impl List {
    /// Reads `spec.config` of a NetworkAttachmentDefinition; without a name it gets the definition's (section 3.4.2).
    ///
    /// # Errors
    /// [`Error::Refused`], naming `network`.
    pub fn of_definition(network: &str, name: &str, config: &str) -> Result<Self, Error> {
        let mut list = Self::of_keys(network, name, parsed(network, config, LONGEST_DEFINED)?)?;
        let of_plugins = list.plugins.iter().find_map(|plugin| judge::reaching(plugin, &type_of(plugin)));
        let found = of_plugins.or_else(|| judge::reaching(&list.keys, "the list"));
        if let Some((of, key)) = found {
            return Err(Error::refused(
                network,
                format!(
                    "key {key:?} of {of}: expected no such key in a NetworkAttachmentDefinition, as it reaches into the host; it is for \
                     the node's own configuration"
                ),
            ));
        }
        for plugin in &mut list.plugins {
            plugin.retain(|key, _| !RUNTIMES.contains(&key.as_str()));
        }
        Ok(list)
    }

    /// The keys because of which a definition is refused as it reaches into the host, each with its way: `ipam.log_file`. None where it
    /// is no object.
    pub fn reaching(config: &str) -> Vec<String> {
        let mut found = Vec::new();
        if let Ok(Value::Object(keys)) = serde_json::from_str(config) {
            judge::all_reaching(&keys, "", &mut found);
        }
        found
    }

    /// Reads a configuration of the host, a file or what is written in the meta-plugin's own; without a name it gets `name`. Where it
    /// is a list in which `nsm-cni` follows other plugins, that one is left out: what the pod's annotations ask for is made beside this network.
    ///
    /// # Errors
    /// [`Error::Refused`], naming `network`.
    pub fn of_host(network: &str, name: &str, config: &str) -> Result<Self, Error> {
        let mut keys = parsed(network, config, LONGEST)?;
        if let Some(Value::Array(plugins)) = keys.get_mut("plugins")
            && plugins.iter().any(|plugin| !judge::is_chained(plugin))
        {
            plugins.retain(|plugin| !judge::is_chained(plugin));
        }
        Self::of_keys(network, name, keys)
    }

    fn of_keys(network: &str, name: &str, mut keys: Map<String, Value>) -> Result<Self, Error> {
        let refused = |why: String| Error::refused(network, why);
        let wrong =
            |key: &str, value: &Value, expected: &str| refused(format!("{key} {}: expected {expected}", quoted(value)));
        spell(&mut keys).map_err(refused)?;
        for key in FLAGS {
            let is_set = flag(&keys, key).map_err(refused)?;
            keys.remove(key);
            if is_set {
                keys.insert(key.to_owned(), true.into());
            }
        }
        let own = match keys.remove("name") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(own)) => own,
            Some(other) => return Err(wrong("name", &other, "a text")),
        };
        let name = if own.is_empty() { name.to_owned() } else { own };
        if !is_network(&name) {
            let expected = "letters, digits, '_', '.' and '-', the first a letter or a digit";
            return Err(wrong("name", &name.into(), expected));
        }
        let version = version(&mut keys).map_err(|(key, value)| wrong(key, &value, "a version from 0.1.0 to 1.1.0"))?;
        let plugins = match keys.remove("plugins") {
            // One plugin without a list.
            None | Some(Value::Null) => vec![Value::Object(std::mem::take(&mut keys))],
            Some(Value::Array(plugins)) if plugins.is_empty() => {
                return Err(refused("plugins []: expected at least one plugin".to_owned()));
            }
            Some(Value::Array(plugins)) if plugins.len() > MOST => {
                return Err(refused(format!("{} plugins: expected at most {MOST}", plugins.len())));
            }
            Some(Value::Array(plugins)) => plugins,
            Some(other) => return Err(wrong("plugins", &other, "a list of objects")),
        };
        let sound = plugins.into_iter().map(|plugin| match plugin {
            Value::Object(mut plugin) => {
                spell(&mut plugin).map_err(refused)?;
                judge::plugin(&plugin).map_or(Ok(plugin), |why| Err(refused(why)))
            }
            other => Err(wrong("plugins", &other, "objects with type")),
        });
        let plugins = sound.collect::<Result<_, _>>()?;
        keys.retain(|key, _| !RUNTIMES.contains(&key.as_str()));
        if let Some(version) = version {
            keys.insert("cniVersion".to_owned(), version.as_str().into());
        }
        Ok(Self { name, keys, plugins })
    }

    /// The network's name, as its plugins are told.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The version that its plugins are called in.
    pub fn version(&self) -> Version {
        self.keys.get("cniVersion").and_then(Value::as_str).and_then(Version::parse).unwrap_or(Version::V0_1_0)
    }

    /// The plugins' configurations, without what a runtime adds.
    pub fn plugins(&self) -> &[Map<String, Value>] {
        &self.plugins
    }

    pub(crate) fn plugins_mut(&mut self) -> &mut [Map<String, Value>] {
        &mut self.plugins
    }

    /// A key of the list.
    pub fn key(&self, key: &str) -> Option<&Value> {
        self.keys.get(key)
    }

    /// Whether at least one plugin declares a capability.
    pub fn declares(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, capability))
    }

    /// The conflist.
    pub fn to_json(&self) -> Value {
        let mut all = self.keys.clone();
        all.insert("name".to_owned(), self.name.clone().into());
        all.insert("plugins".to_owned(), json!(self.plugins));
        Value::Object(all)
    }
}

fn parsed(network: &str, config: &str, longest: usize) -> Result<Map<String, Value>, Error> {
    let refused = |why: String| Error::refused(network, why);
    if config.len() > longest {
        return Err(refused(format!("its configuration has {} bytes: expected at most {longest}", config.len())));
    }
    match serde_json::from_str(config) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(other) => Err(refused(format!("configuration {}: expected an object", quoted(&other)))),
        Err(error) => Err(refused(format!("its configuration is no JSON: {error}"))),
    }
}

/// Whether a plugin declares a capability.
pub fn declares(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all.get(capability)) == Some(&Value::Bool(true))
}

/// The newest of `cniVersions` and `cniVersion` that is known; none: neither is there.
fn version(keys: &mut Map<String, Value>) -> Result<Option<Version>, (&'static str, Value)> {
    let one = match keys.remove("cniVersion") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(value) => match value.as_str().and_then(Version::parse) {
            Some(version) => Some(version),
            None => return Err(("cniVersion", value)),
        },
    };
    let several = match keys.remove("cniVersions") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let known = value.as_array().into_iter().flatten().filter_map(|text| Version::parse(text.as_str()?)).max();
            if known.is_none() {
                return Err(("cniVersions", value));
            }
            known
        }
    };
    Ok(one.max(several))
}

/// Whether a network's name has only what the CNI specification allows.
fn is_network(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn type_of(plugin: &Map<String, Value>) -> String {
    plugin.get("type").map_or("a plugin".to_owned(), |kind| format!("plugin {}", quoted(kind)))
}

/// Each key in one spelling, those that are read here in the specification's.
fn spell(keys: &mut Map<String, Value>) -> Result<(), String> {
    spelling::once(keys).map_err(|twice| twice.to_string())?;
    spelling::respell(keys, &READ);
    spelling::respell(keys, &RUNTIMES);
    spelling::respell(keys, &FLAGS);
    Ok(())
}

#[cfg(test)]
mod tests;
