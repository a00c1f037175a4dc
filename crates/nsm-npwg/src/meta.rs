//! The meta-plugin's configuration: Multus's keys, thin and daemon, and this project's own.
//!
//! Guarantees: every key of Multus is in [`KEYS`], as honoured or without effect; what has none is told, what is not known is a
//! mistake; all mistakes at once. Keys are taken in any case, as by Multus, and it is told. DEL and GC take what can be read
//! ([`Meta::lenient`]).

mod keys;

use std::{path::PathBuf, time::Duration};

use nsm_cni_types::{Answer, DEFAULT_SOCKET, Error as CniError, Stdin, Version, code, pods};
use serde_json::{Map, Value};

pub use keys::{KEYS, Key, Treatment};

use crate::{
    List,
    change::{ATTACH, Change, DETACH},
    mistakes::Mistakes,
    names::{self, is_namespace},
    selection::Annotations,
    spelling,
};

const PATH: &str = "an absolute path";
/// Where Multus's daemon sees the host's configurations: what it writes for its shim names files there.
const DAEMONS: &str = "/host/";

/// The meta-plugin's configuration without mistakes.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the configuration")]
pub struct Meta {
    /// `name`.
    pub name: String,
    /// `cniVersion`.
    pub version: Version,
    /// Which network is the first one.
    pub default: Chosen,
    /// `defaultNetworks`.
    pub default_networks: Vec<String>,
    /// `systemNamespaces`: without `defaultNetworks`.
    pub system_namespaces: Vec<String>,
    /// `multusNamespace`: where names without a namespace in the configuration are looked for.
    pub multus_namespace: String,
    /// `namespaceIsolation`.
    pub namespace_isolation: bool,
    /// `globalNamespaces`.
    pub global_namespaces: Vec<String>,
    /// `confDir`: where networks are looked for that are files.
    pub conf_dir: PathBuf,
    /// `cniDir`: where records are.
    pub cni_dir: PathBuf,
    /// `binDir`: where plugins are looked for first.
    pub bin_dir: PathBuf,
    /// `readinessindicatorfile`.
    pub readiness_file: Option<PathBuf>,
    /// `auxiliaryCNIChainName`.
    pub auxiliary_chain: Option<String>,
    /// `cniSocket`.
    pub socket: PathBuf,
    /// `timeoutSeconds`.
    pub timeout: Duration,
    /// `agentWaitSeconds`.
    pub agent_wait: Duration,
    /// `allowDefaultRoute`.
    pub allow_default_route: bool,
    /// `allowRouteOverlap`.
    pub allow_route_overlap: bool,
    /// `allowDns`.
    pub allow_dns: bool,
    /// `runtimeConfig`, as it came: of the default network alone (section 7.5).
    pub runtime_config: Map<String, Value>,
    /// `attach` or `detach`, which only the agent writes: the call is about one network of a running pod.
    pub change: Option<Change>,
    /// `prevResult`.
    pub prev_result: Option<Answer>,
    /// Keys that have no effect, each with the reason.
    pub without_effect: Vec<String>,
    /// Keys that are spelled otherwise than they should be.
    pub misspelled: Vec<String>,
}

/// Which network is a pod's first one.
#[derive(Debug, Clone, PartialEq)]
pub enum Chosen {
    /// `clusterNetwork`: a definition in `multusNamespace`, or a file of the host.
    ClusterNetwork(String),
    /// `delegates`: these, the first of which is it.
    Delegates(Vec<List>),
}

impl Meta {
    /// Whether a configuration is a meta-plugin's: by its keys, or by the type that it is installed under.
    pub fn is(keys: &Map<String, Value>) -> bool {
        keys.iter().any(|(key, value)| {
            let is_multus = || matches!(value.as_str(), Some("multus" | "multus-shim"));
            (spelling::is_one(key, &["clusterNetwork", "delegates"]) && !value.is_null())
                || (spelling::is(key, "type") && is_multus())
        })
    }

    /// Reads a configuration strictly.
    ///
    /// # Errors
    /// All mistakes in one: code 2 if one of them is an unknown key, else 7.
    pub fn parse(stdin: &Stdin) -> Result<Self, CniError> {
        let (meta, mistakes) = read(stdin);
        if mistakes.is_empty() {
            return Ok(meta);
        }
        let code = if mistakes.has_unknown() { code::UNSUPPORTED_FIELD } else { code::INVALID_CONFIG };
        Err(CniError::new(code, mistakes.text()))
    }

    /// Reads a configuration as far as it can be read, for DEL and GC, with its mistakes.
    pub fn lenient(stdin: &Stdin) -> (Self, Vec<String>) {
        let (meta, mistakes) = read(stdin);
        (meta, mistakes.texts())
    }

    /// The pod's annotations that select networks and ask for network services, if the runtime gives annotations.
    pub fn annotations(&self) -> Option<(Annotations, pods::Annotations)> {
        let all = self.runtime_config.get(pods::CAPABILITY)?;
        let get = |key: &str| all.get(key).and_then(Value::as_str);
        Some((Annotations::of(get), pods::Annotations::of(get)))
    }
}

fn read(stdin: &Stdin) -> (Meta, Mistakes) {
    let mut mistakes = Mistakes::default();
    let mut keys = stdin.keys.clone();
    let misspelled = keys::spell(&mut keys, &mut mistakes);
    let keys = &keys;
    let without_effect = keys::judge(keys, &mut mistakes);
    let kind = keys.get("type").and_then(Value::as_str).unwrap_or_default();
    let path = |key: &str, fallback: &str, mistakes: &mut Mistakes| {
        PathBuf::from(absolute(keys, key, mistakes).unwrap_or_else(|| fallback.to_owned()))
    };
    let seconds = |key: &str, range, fallback, mistakes: &mut Mistakes| {
        Duration::from_secs(mistakes.number(keys, key, range).unwrap_or(fallback))
    };
    let namespaces = |key: &str, mistakes: &mut Mistakes| {
        let all = mistakes.strings(keys, key, "a list of namespaces")?;
        for wrong in all.iter().filter(|name| !is_namespace(name)) {
            mistakes.invalid(key, &wrong.as_str().into(), names::NAMESPACE);
        }
        Some(all)
    };
    let prev_result = keys.get("prevResult").filter(|value| !value.is_null());
    let prev_result = prev_result.and_then(|value| match Answer::parse(value, stdin.version) {
        Ok(answer) => Some(answer.convert(stdin.version)),
        Err(error) => {
            mistakes.add(error.msg);
            None
        }
    });
    let meta = Meta {
        name: stdin.name.clone(),
        version: stdin.version,
        default: chosen(keys, &stdin.name, kind, &mut mistakes),
        default_networks: default_networks(keys, &mut mistakes),
        system_namespaces: namespaces("systemNamespaces", &mut mistakes).unwrap_or_else(|| vec!["kube-system".into()]),
        multus_namespace: multus_namespace(keys, &mut mistakes),
        namespace_isolation: mistakes.boolean(keys, "namespaceIsolation"),
        global_namespaces: global_namespaces(keys, &mut mistakes),
        conf_dir: path("confDir", "/etc/cni/multus/net.d", &mut mistakes),
        cni_dir: path("cniDir", "/var/lib/cni/multus", &mut mistakes),
        bin_dir: path("binDir", "/opt/cni/bin", &mut mistakes),
        readiness_file: absolute(keys, "readinessindicatorfile", &mut mistakes).map(PathBuf::from),
        auxiliary_chain: auxiliary_chain(keys, &mut mistakes),
        socket: path("cniSocket", DEFAULT_SOCKET, &mut mistakes),
        timeout: seconds("timeoutSeconds", 1..=120, 15, &mut mistakes),
        agent_wait: seconds("agentWaitSeconds", 0..=60, 0, &mut mistakes),
        allow_default_route: mistakes.boolean(keys, "allowDefaultRoute"),
        allow_route_overlap: mistakes.boolean(keys, "allowRouteOverlap"),
        allow_dns: mistakes.boolean(keys, "allowDns"),
        runtime_config: mistakes.object(keys, "runtimeConfig").cloned().unwrap_or_default(),
        change: change(keys, &mut mistakes),
        prev_result,
        without_effect,
        misspelled,
    };
    (meta, mistakes)
}

fn absolute(keys: &Map<String, Value>, key: &str, mistakes: &mut Mistakes) -> Option<String> {
    let text = mistakes.string(keys, key, PATH).filter(|text| !text.is_empty())?;
    if text.starts_with('/') && !text.contains('\0') {
        return Some(text);
    }
    mistakes.invalid(key, &text.into(), PATH);
    None
}

/// `clusterNetwork` wins over `delegates`, as with Multus.
fn chosen(keys: &Map<String, Value>, own: &str, kind: &str, mistakes: &mut Mistakes) -> Chosen {
    const NAME: &str = "the name of a network, or the path of its file or directory";
    let cluster = mistakes.string(keys, "clusterNetwork", NAME).filter(|name| !name.is_empty());
    if let Some(name) = cluster {
        if name.chars().any(char::is_control) || (name.contains('/') && !name.starts_with('/')) {
            mistakes.invalid("clusterNetwork", &name.as_str().into(), NAME);
        }
        // A shim's configuration is written by the daemon, which sees the host's files elsewhere.
        let of_host = name.strip_prefix(DAEMONS).filter(|_| kind == "multus-shim");
        return Chosen::ClusterNetwork(of_host.map_or_else(|| name.clone(), |rest| format!("/{rest}")));
    }
    let delegates = match keys.get("delegates") {
        Some(Value::Array(delegates)) if !delegates.is_empty() => delegates.as_slice(),
        None | Some(Value::Null) => {
            mistakes.add(
                "clusterNetwork: expected it, or delegates; without them networkService, or a type that is no meta-plugin's",
            );
            &[]
        }
        Some(other) => {
            mistakes.invalid("delegates", other, "a list of at least one configuration");
            &[]
        }
    };
    let mut lists = Vec::new();
    for (place, delegate) in delegates.iter().enumerate() {
        let network = format!("delegates[{place}]");
        match List::of_host(&network, own, &delegate.to_string()) {
            Ok(list) => lists.push(list),
            Err(error) => mistakes.add(error.to_string()),
        }
    }
    Chosen::Delegates(lists)
}

fn change(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Option<Change> {
    let there = |key: &str| keys.get(key).filter(|value| !value.is_null());
    let read = match (there(ATTACH), there(DETACH)) {
        (None, None) => return None,
        (Some(attach), None) => serde_json::from_value(attach.clone()).map(Change::Attach),
        (None, Some(detach)) => serde_json::from_value(detach.clone()).map(Change::Detach),
        (Some(_), Some(_)) => {
            mistakes.add("attach beside detach: expected one of them");
            return None;
        }
    };
    read.map_err(|error| mistakes.add(format!("attach or detach: {error}: expected what nsm-agent writes"))).ok()
}

fn default_networks(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Vec<String> {
    const EXPECTED: &str = "a list of names of networks";
    let all = mistakes.strings(keys, "defaultNetworks", EXPECTED).unwrap_or_default();
    for wrong in all.iter().filter(|name| name.is_empty() || name.chars().any(char::is_control)) {
        mistakes.invalid("defaultNetworks", &wrong.as_str().into(), EXPECTED);
    }
    all
}

fn multus_namespace(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> String {
    let name = mistakes.string(keys, "multusNamespace", names::NAMESPACE).filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| "kube-system".to_owned());
    if !is_namespace(&name) {
        mistakes.invalid("multusNamespace", &name.as_str().into(), names::NAMESPACE);
    }
    name
}

fn global_namespaces(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Vec<String> {
    const EXPECTED: &str = "names of namespaces, separated by commas";
    let text = mistakes.string(keys, "globalNamespaces", EXPECTED).filter(|text| !text.trim().is_empty());
    let text = text.unwrap_or_else(|| "default".to_owned());
    let all: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if !all.iter().all(|name| is_namespace(name)) {
        mistakes.invalid("globalNamespaces", &text.into(), EXPECTED);
    }
    all
}

fn auxiliary_chain(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Option<String> {
    const EXPECTED: &str = "the name of a directory beside clusterNetwork, which is an absolute path then";
    let name = mistakes.string(keys, "auxiliaryCNIChainName", EXPECTED).filter(|name| !name.is_empty())?;
    let cluster = keys.get("clusterNetwork").and_then(Value::as_str).unwrap_or_default();
    if name.contains(['/', '\0']) || matches!(&*name, "." | "..") || !cluster.starts_with('/') {
        mistakes.invalid("auxiliaryCNIChainName", &name.into(), EXPECTED);
        return None;
    }
    Some(name)
}

#[cfg(test)]
mod tests;
