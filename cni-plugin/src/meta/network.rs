//! One network of a pod as it is recorded, and its plugins run as the CNI library runs them.
//!
//! Guarantees: each plugin gets its configuration as it was written, with the list's name and version, the runtime configuration of
//! the capabilities that it declares, and the previous result in the list's version; DEL gets what ADD got. An error names
//! network, interface and plugin and keeps the plugin's code.

use std::{ffi::OsString, time::Instant};

use nsm_cni_types::{Answer, Attachment, Error, Version, code};
use nsm_npwg::declares;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    exec::{self, SearchPath, Told},
    patience::share,
};

/// A network of a pod.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Network {
    /// As the network's status calls it.
    pub(crate) name: String,
    /// CNI_IFNAME of its plugins.
    pub(crate) ifname: String,
    /// CNI_ARGS of its plugins.
    #[serde(default)]
    pub(crate) args: String,
    /// What becomes `runtimeConfig`, by capability.
    #[serde(default)]
    pub(crate) capability_args: Map<String, Value>,
    /// Its plugins.
    pub(crate) list: Conflist,
    /// Whether its first plugin follows an empty result, as behind a plugin that makes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) follows_nothing: bool,
    /// The agent's own word on it, as its plan had it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

/// A list of plugins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conflist {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) cni_version: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) disable_check: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not", rename = "disableGC")]
    pub(crate) disable_gc: bool,
    pub(crate) plugins: Vec<Map<String, Value>>,
}

/// Where plugins run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sandbox<'a> {
    pub(crate) container_id: &'a str,
    /// Its namespace; empty: it is gone.
    pub(crate) netns: &'a str,
    pub(crate) search: &'a SearchPath,
    /// When their time is over.
    pub(crate) until: Instant,
}

/// The keys of a GC; the second is what the specification's text and the library call it by mistake.
const VALID: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

impl Conflist {
    /// A list, or one plugin without a list, as somebody recorded it; `version` where it has none.
    pub(crate) fn of(mut keys: Map<String, Value>, version: Version) -> Option<Self> {
        let own = keys.get("cniVersion").and_then(Value::as_str).is_some_and(|own| !own.is_empty());
        if !own {
            keys.insert("cniVersion".to_owned(), version.as_str().into());
        }
        if !keys.contains_key("plugins") {
            let (name, version) = (keys.get("name").cloned()?, keys.get("cniVersion").cloned()?);
            let mut list = Map::from_iter([("name".to_owned(), name), ("cniVersion".to_owned(), version)]);
            list.insert("plugins".to_owned(), Value::Array(vec![Value::Object(keys)]));
            keys = list;
        }
        for key in ["disableCheck", "disableGC"] {
            let is_set = nsm_npwg::flag(&keys, key).ok()?;
            keys.insert(key.to_owned(), is_set.into());
        }
        serde_json::from_value(Value::Object(keys)).ok()
    }

    /// The version of its results.
    ///
    /// # Errors
    /// Code 1: not one that is known.
    pub(crate) fn version(&self) -> Result<Version, Error> {
        Version::parse(&self.cni_version).ok_or_else(|| {
            let msg = format!("cniVersion {:?} of {:?}: expected 0.1.0 to 1.1.0", self.cni_version, self.name);
            Error::new(code::INCOMPATIBLE_VERSION, msg)
        })
    }

    /// Whether one of its plugins declares a capability.
    pub(crate) fn declares(&self, capability: &str) -> bool {
        self.plugins.iter().any(|plugin| declares(plugin, capability))
    }

    /// Whether its plugins can be asked for GC.
    pub(crate) fn has_gc(&self) -> bool {
        !self.disable_gc && self.is_since(Version::V1_1_0)
    }

    fn is_since(&self, version: Version) -> bool {
        self.version().is_ok_and(|own| own >= version)
    }
}

impl Network {
    /// Whether it is made as that one would be.
    pub(crate) fn is_made_as(&self, other: &Self) -> bool {
        let Self { name, ifname, args, capability_args, list, follows_nothing, note: _ } = self;
        let it = (name, ifname, args, capability_args, list, follows_nothing);
        it == (&other.name, &other.ifname, &other.args, &other.capability_args, &other.list, &other.follows_nothing)
    }

    /// Finds all plugins.
    pub(crate) fn find_plugins(&self, search: &SearchPath) -> Result<(), Error> {
        for plugin in &self.list.plugins {
            search.find(kind(plugin)).map_err(|error| self.of(plugin, error))?;
        }
        Ok(())
    }

    /// Runs all plugins. The result, in the list's version.
    pub(crate) fn add(&self, sandbox: Sandbox<'_>) -> Result<Value, Error> {
        let version = self.list.version()?;
        let empty = json!({"cniVersion": version.as_str(), "interfaces": [], "ips": [], "routes": [], "dns": {}});
        let mut result = self.follows_nothing.then_some(empty);
        for plugin in &self.list.plugins {
            let answer = self.run("ADD", sandbox, plugin, self.configuration(plugin, result.as_ref()))?;
            let answer = answer.ok_or_else(|| Error::new(code::DECODING, "no result: expected one on stdout"));
            let answer = answer.and_then(|answer| in_version(answer, version));
            result = Some(answer.map_err(|error| self.of(plugin, error))?);
        }
        result.ok_or_else(|| Error::new(code::INVALID_CONFIG, format!("network {:?}: plugins is empty", self.name)))
    }

    /// Runs all plugins in reverse order, up to the first that fails.
    pub(crate) fn del(&self, sandbox: Sandbox<'_>, result: Option<&Value>) -> Result<(), Error> {
        let result = result.filter(|_| self.list.is_since(Version::V0_4_0));
        for plugin in self.list.plugins.iter().rev() {
            self.run("DEL", sandbox, plugin, self.configuration(plugin, result))?;
        }
        Ok(())
    }

    /// Runs all plugins, unless the list says that it cannot be checked.
    pub(crate) fn check(&self, sandbox: Sandbox<'_>, result: &Value) -> Result<(), Error> {
        if self.list.disable_check || !self.list.is_since(Version::V0_4_0) {
            return Ok(());
        }
        for plugin in &self.list.plugins {
            self.run("CHECK", sandbox, plugin, self.configuration(plugin, Some(result)))?;
        }
        Ok(())
    }

    /// Has all plugins free what is not `valid`; goes on behind errors, and behind one that hangs for its share of the time.
    pub(crate) fn gc(&self, search: &SearchPath, valid: &[Attachment], until: Instant) -> Vec<Error> {
        if !self.list.has_gc() {
            return Vec::new();
        }
        let valid: Value =
            valid.iter().map(|known| json!({"containerID": known.container_id, "ifname": known.ifname})).collect();
        let ran = self.list.plugins.iter().enumerate().map(|(place, plugin)| {
            let mut configuration = self.named(plugin);
            for key in VALID {
                configuration.insert(key.to_owned(), valid.clone());
            }
            let until = share(until, self.list.plugins.len() - place);
            self.run_alone("GC", (search, until), plugin, configuration)
        });
        ran.filter_map(Result::err).collect()
    }

    /// Asks all plugins that can be asked; of all it is told whether they are there.
    pub(crate) fn status(&self, search: &SearchPath, until: Instant) -> Vec<Error> {
        let ran = self.list.plugins.iter().map(|plugin| {
            if self.list.is_since(Version::V1_1_0) {
                self.run_alone("STATUS", (search, until), plugin, self.named(plugin))
            } else {
                search.find(kind(plugin)).map(drop).map_err(|error| self.of(plugin, error))
            }
        });
        ran.filter_map(Result::err).collect()
    }

    fn run_alone(
        &self,
        command: &'static str,
        (search, until): (&SearchPath, Instant),
        plugin: &Map<String, Value>,
        configuration: Map<String, Value>,
    ) -> Result<(), Error> {
        let nowhere = Network { ifname: String::new(), args: String::new(), ..self.clone() };
        let sandbox = Sandbox { container_id: "", netns: "", search, until };
        nowhere.run(command, sandbox, plugin, configuration).map(drop)
    }

    fn run(
        &self,
        command: &'static str,
        sandbox: Sandbox<'_>,
        plugin: &Map<String, Value>,
        configuration: Map<String, Value>,
    ) -> Result<Option<Value>, Error> {
        let path: OsString = sandbox.search.cni_path();
        let told = Told {
            command,
            container_id: sandbox.container_id,
            netns: sandbox.netns,
            ifname: &self.ifname,
            args: &self.args,
            path: &path,
        };
        let program = sandbox.search.find(kind(plugin));
        let answer =
            program.and_then(|program| exec::run(&program, told, &Value::Object(configuration), sandbox.until));
        answer.map_err(|error| self.of(plugin, error))
    }

    /// An error with whose it is.
    fn of(&self, plugin: &Map<String, Value>, error: Error) -> Error {
        let interface = if self.ifname.is_empty() { String::new() } else { format!(", interface {}", self.ifname) };
        let msg = format!("network {:?}{interface}, plugin {}: {}", self.name, kind(plugin), error.msg);
        Error { msg, ..error }
    }

    fn named(&self, plugin: &Map<String, Value>) -> Map<String, Value> {
        let mut configuration = plugin.clone();
        configuration.insert("name".to_owned(), json!(self.list.name));
        configuration.insert("cniVersion".to_owned(), json!(self.list.cni_version));
        configuration
    }

    fn configuration(&self, plugin: &Map<String, Value>, before: Option<&Value>) -> Map<String, Value> {
        let mut configuration = self.named(plugin);
        let declared = self.capability_args.iter().filter(|(name, _)| declares(plugin, name));
        let runtime: Map<String, Value> = declared.map(|(name, value)| (name.clone(), value.clone())).collect();
        if !runtime.is_empty() {
            configuration.insert("runtimeConfig".to_owned(), Value::Object(runtime));
        }
        if let Some(before) = before {
            configuration.insert("prevResult".to_owned(), before.clone());
        }
        configuration
    }
}

/// The binary's name.
pub(crate) fn kind(plugin: &Map<String, Value>) -> &str {
    plugin.get("type").and_then(Value::as_str).unwrap_or_default()
}

/// A plugin's answer in the list's version; one that is in it already stays as it is.
fn in_version(answer: Value, version: Version) -> Result<Value, Error> {
    let read = Answer::parse(&answer, version).map_err(|error| {
        let why = error.msg.strip_prefix("prevResult: ").unwrap_or(&error.msg);
        Error::new(code::DECODING, format!("no result that can be read: {why}"))
    })?;
    if read.version() == version { Ok(answer) } else { read.convert(version).to_json() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn switches_of_recorded_lists_may_be_texts() {
        let of = |value: &Value| {
            let keys = json!({"name": "a", "plugins": [{"type": "ptp"}], "disableCheck": value, "disableGC": value});
            let list = Conflist::of(keys.as_object().cloned().unwrap_or_default(), Version::V1_0_0)?;
            Some((list.disable_check, list.disable_gc))
        };
        assert_eq!(of(&json!("True")), Some((true, true)));
        assert_eq!([of(&json!("false")), of(&Value::Null)], [Some((false, false)); 2]);
        assert_eq!(of(&json!("no")), None);
    }
}
