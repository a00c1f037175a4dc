//! A network's configuration as a list of plugins, whoever wrote it: `spec.config` of a NetworkAttachmentDefinition (NPWG section
//! 3.2), a file of the host, or an object in the meta-plugin's configuration.
//!
//! Guarantees: there is at least one plugin, each has a type that is the name of a program, none is a meta-plugin; the list has a
//! name and a version that is known or none. Of a definition no plugin has a key of [`REACHING`]. What else is in it stays.

use nsm_cni_types::Version;
use serde_json::{Map, Value, json};

use crate::{Error, mistakes::quoted};

/// Keys by which a configuration reaches into the host: no definition may have them. Whoever may write definitions chooses which of
/// the host's plugins run, not where these look for programs, credentials and sockets or write logs.
pub const REACHING: [&str; 10] = [
    "kubeconfig",
    "cniDir",
    "binDir",
    "confDir",
    "logFile",
    "cniSocket",
    "delegates",
    "clusterNetwork",
    "socketDir",
    "daemonSocketDir",
];
/// Programs that are meta-plugins under any configuration.
const META: [&str; 3] = ["multus", "multus-shim", "multus-daemon"];
/// This project's own: a meta-plugin without `networkService`.
const OURS: &str = "nsm-cni";
/// Longest configuration, in bytes.
const LONGEST: usize = 1 << 20;
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
        let list = Self::of_text(network, name, config)?;
        let reaching = |keys: &Map<String, Value>| REACHING.into_iter().find(|key| keys.contains_key(*key));
        let of_plugins = list.plugins.iter().find_map(|plugin| Some((type_of(plugin), reaching(plugin)?)));
        let found = of_plugins.or_else(|| Some(("the list".to_owned(), reaching(&list.keys)?)));
        match found {
            Some((of, key)) => Err(Error::refused(
                network,
                format!(
                    "key {key:?} of {of}: expected no such key in a NetworkAttachmentDefinition, as it reaches into the host; it is for \
                     the node's own configuration"
                ),
            )),
            None => Ok(list),
        }
    }

    /// Reads a configuration of the host, a file or what is written in the meta-plugin's own; without a name it gets `name`.
    ///
    /// # Errors
    /// [`Error::Refused`], naming `network`.
    pub fn of_host(network: &str, name: &str, config: &str) -> Result<Self, Error> {
        Self::of_text(network, name, config)
    }

    fn of_text(network: &str, name: &str, config: &str) -> Result<Self, Error> {
        let refused = |why: String| Error::refused(network, why);
        if config.len() > LONGEST {
            return Err(refused(format!("its configuration has {} bytes: expected at most {LONGEST}", config.len())));
        }
        match serde_json::from_str(config) {
            Ok(Value::Object(keys)) => Self::of_keys(network, name, keys),
            Ok(other) => Err(refused(format!("configuration {}: expected an object", quoted(&other)))),
            Err(error) => Err(refused(format!("its configuration is no JSON: {error}"))),
        }
    }

    fn of_keys(network: &str, name: &str, mut keys: Map<String, Value>) -> Result<Self, Error> {
        let refused = |why: String| Error::refused(network, why);
        let wrong =
            |key: &str, value: &Value, expected: &str| refused(format!("{key} {}: expected {expected}", quoted(value)));
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
            Value::Object(plugin) => is_delegate(&plugin).map_or(Ok(plugin), |why| Err(refused(why))),
            other => Err(wrong("plugins", &other, "objects with type")),
        });
        let plugins = sound.collect::<Result<_, _>>()?;
        // What only runtimes and meta-plugins say.
        keys.retain(|key, _| !matches!(key.as_str(), "prevResult" | "runtimeConfig"));
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
        self.plugins.iter().any(|plugin| {
            plugin.get("capabilities").and_then(|all| all.get(capability)).and_then(Value::as_bool) == Some(true)
        })
    }

    /// The conflist.
    pub fn to_json(&self) -> Value {
        let mut all = self.keys.clone();
        all.insert("name".to_owned(), self.name.clone().into());
        all.insert("plugins".to_owned(), json!(self.plugins));
        Value::Object(all)
    }
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

/// Why a plugin cannot be called.
fn is_delegate(plugin: &Map<String, Value>) -> Option<String> {
    let none = Map::new();
    let within = |key: &str| plugin.get(key).and_then(Value::as_object).unwrap_or(&none);
    let (ipam, delegate) = (within("ipam"), within("delegate"));
    let program = match plugin.get("type") {
        Some(Value::String(text)) if is_program(text) => text,
        other => return Some(format!("type {}: expected the name of a plugin", quoted(other.unwrap_or(&Value::Null)))),
    };
    for (place, inner) in [("ipam.type", ipam), ("delegate.type", delegate)] {
        match inner.get("type") {
            None | Some(Value::Null) => {}
            // host-device and others leave it empty for "none".
            Some(Value::String(text)) if text.is_empty() => {}
            Some(Value::String(text)) if is_program(text) && !is_meta(text) && text != OURS => {}
            Some(other) => return Some(format!("{place} {}: expected a plugin that is no meta-plugin", quoted(other))),
        }
    }
    let asks = plugin.contains_key("networkService");
    if is_meta(program)
        || (program == OURS && ["delegates", "clusterNetwork"].iter().any(|key| plugin.contains_key(*key)))
    {
        return Some(format!("type {program:?} is a meta-plugin, which would call itself: expected another plugin"));
    }
    if program == OURS && !asks {
        return Some(format!(
            "type {program:?} without networkService: expected one; what the pod's annotations ask for is made beside this network"
        ));
    }
    None
}

/// The name of a program in a directory of plugins.
fn is_program(text: &str) -> bool {
    !matches!(text, "" | "." | "..") && text.len() <= 255 && !text.contains(['/', '\0'])
}

fn is_meta(program: &str) -> bool {
    META.contains(&program)
}

#[cfg(test)]
mod tests;
