//! What becomes of each key.

use serde_json::{Map, Value};

use crate::{
    change::{ATTACH, DETACH},
    mistakes::Mistakes,
    spelling,
};

/// What becomes of a key of the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Treatment {
    /// It does what Multus's documentation says, or ours.
    Honoured,
    /// It is taken and does nothing; the text says why.
    WithoutEffect(&'static str),
    /// It is an error; the text says what to do instead.
    Refused(&'static str),
}

/// A key, and what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What becomes of it.
    pub treatment: Treatment,
}

const fn honoured(name: &'static str) -> Key {
    Key { name, treatment: Treatment::Honoured }
}

const fn idle(name: &'static str, why: &'static str) -> Key {
    Key { name, treatment: Treatment::WithoutEffect(why) }
}

const fn refused(name: &'static str, instead: &'static str) -> Key {
    Key { name, treatment: Treatment::Refused(instead) }
}

/// Keys that the CNI library writes beside those of the file.
const BY_THE_LIBRARY: [&str; 2] = ["cniVersion", "name"];
const NO_CREDENTIAL: &str = "the plugin makes no call to the API server and needs no credential";
const STDERR: &str = "the plugin logs to stderr, which the runtime keeps";
const NO_DAEMON: &str = "there is no daemon beside nsm-agent, whose settings are its own";

/// Every key of Multus, thin and daemon, and of this project.
pub const KEYS: &[Key] = &[
    honoured("cniVersion"),
    honoured("name"),
    honoured("type"),
    honoured("capabilities"),
    honoured("runtimeConfig"),
    honoured("prevResult"),
    honoured("clusterNetwork"),
    honoured("delegates"),
    honoured("defaultNetworks"),
    honoured("systemNamespaces"),
    honoured("multusNamespace"),
    honoured("namespaceIsolation"),
    honoured("globalNamespaces"),
    honoured("confDir"),
    honoured("cniDir"),
    honoured("binDir"),
    honoured("readinessindicatorfile"),
    honoured("auxiliaryCNIChainName"),
    honoured("cniSocket"),
    honoured("timeoutSeconds"),
    honoured("agentWaitSeconds"),
    honoured("allowDefaultRoute"),
    honoured("allowRouteOverlap"),
    honoured("allowDns"),
    honoured(ATTACH),
    honoured(DETACH),
    idle("retryDeleteOnError", "a record is always kept until every network's DEL has succeeded"),
    idle("kubeconfig", NO_CREDENTIAL),
    idle("perNodeCertificate", NO_CREDENTIAL),
    idle("logFile", STDERR),
    idle("logLevel", STDERR),
    idle("logToStderr", STDERR),
    idle("logOptions", STDERR),
    idle("args", "networks have arguments of their own"),
    idle("dns", "networks answer their own"),
    idle("ipam", "networks have their own"),
    idle("socketDir", NO_DAEMON),
    idle("daemonSocketDir", NO_DAEMON),
    idle("chrootDir", NO_DAEMON),
    idle("connectionLimit", NO_DAEMON),
    idle("metricsPort", NO_DAEMON),
    idle("enablePprof", NO_DAEMON),
    idle("multusConfigFile", NO_DAEMON),
    idle("multusAutoconfigDir", NO_DAEMON),
    idle("multusMasterCNI", NO_DAEMON),
    idle("cniConfigDir", NO_DAEMON),
    idle("forceCNIVersion", NO_DAEMON),
    idle("overrideNetworkName", NO_DAEMON),
    refused(
        "networkService",
        "expected it alone, or clusterNetwork or delegates alone: the pod's annotations ask for services",
    ),
    refused("labels", "expected none: a pod's annotations say it"),
    refused("mechanism", "expected none: a pod's annotations say it"),
    refused("interface", "expected none: a pod's annotations say it"),
    refused("mtu", "expected none: each network says its own"),
];

/// Gives keys the spelling of [`KEYS`], as Multus takes them in any case; answers what is told of that. What only the agent writes is
/// not taken otherwise.
pub(super) fn spell(keys: &mut Map<String, Value>, mistakes: &mut Mistakes) -> Vec<String> {
    let names: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|name| ![ATTACH, DETACH].contains(name)).collect();
    let mut told = Vec::new();
    for (key, name) in spelling::respell(keys, &names) {
        told.push(format!("{key} is taken for {name}: expected that spelling"));
    }
    keys.retain(|key, _| {
        let Some(name) = names.iter().find(|name| *name != key && spelling::is(key, name)) else { return true };
        if BY_THE_LIBRARY.contains(name) {
            told.push(format!("{key} has no effect: {name} is beside it, which the runtime writes"));
        } else {
            mistakes.add(format!("{key} beside {name}: expected the second alone"));
        }
        false
    });
    told
}

/// Judges all keys; answers those that have no effect.
pub(super) fn judge(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Vec<String> {
    let mut without_effect = Vec::new();
    for (name, value) in keys {
        match KEYS.iter().find(|key| key.name == name).map(|key| key.treatment) {
            Some(Treatment::Honoured) => {}
            // As libcni leaves them.
            Some(Treatment::WithoutEffect(_))
                if value.is_null() || (name == "dns" && value == &Value::Object(Map::new())) => {}
            Some(Treatment::WithoutEffect(why)) => without_effect.push(format!("{name} has no effect: {why}")),
            Some(Treatment::Refused(instead)) => {
                mistakes.add(format!("{name} beside clusterNetwork or delegates: {instead}"));
            }
            None if name.starts_with("cni.dev/") => {}
            None => {
                let known = KEYS
                    .iter()
                    .filter(|key| key.treatment == Treatment::Honoured && ![ATTACH, DETACH].contains(&key.name))
                    .map(|key| key.name);
                mistakes.unknown(name, &known.collect::<Vec<_>>().join(", "));
            }
        }
    }
    without_effect
}
