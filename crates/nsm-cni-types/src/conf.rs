//! The network configuration: of one network service ([`Attach`]), or, without `networkService`, of whatever a pod asks for by
//! annotation ([`OfPod`]).
//!
//! | key | value | default |
//! |---|---|---|
//! | `networkService` | service to connect to, 1 to 253 bytes; absent: those of the pod's annotations | |
//! | `labels` | object of strings; not `podName`, `nodeName`, `clusterName`, `namespace`; with `networkService` | `{}` |
//! | `mechanism` | `kernel`; with `networkService` | `kernel` |
//! | `interface`, `mtu` | a name; 68 to 65535; with `networkService` | `CNI_IFNAME`; the endpoint's |
//! | `cniSocket` | absolute path of the agent's socket | `/run/nsm/cni.sock` |
//! | `timeoutSeconds` | 1 to 120 | 15 |
//! | `agentWaitSeconds` | 0 to 60 | 0 |
//! | `allowDefaultRoute`, `allowRouteOverlap` | bool | false |
//! | `allowDns` | bool; without `networkService` | false |
//!
//! Known besides: `cniVersion`, `name`, `type`, and what runtimes and meta-plugins add. Labels: `CNI_ARGS` < `args.cni.labels` < `labels`.
//! Addresses and MAC: `CNI_ARGS` < `args.cni.ips` < `runtimeConfig`.

mod fields;
mod lenient;
mod runtime;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::{Answer, Args, Error, Mechanism, Stdin, UnknownMechanism, Version, env, pods::Annotations};
use fields::Fields;
pub use lenient::{Attachment, Lenient};

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nsm/cni.sock";
/// Labels that the agent gives, from what the runtime and the node say.
pub const RESERVED_LABELS: [&str; 4] = ["podName", "nodeName", "clusterName", "namespace"];

const OURS: [&str; 11] = [
    "networkService",
    "labels",
    "mechanism",
    "cniSocket",
    "timeoutSeconds",
    "agentWaitSeconds",
    "allowDefaultRoute",
    "allowRouteOverlap",
    "allowDns",
    "interface",
    "mtu",
];
/// Those that say what one interface shall be: an annotation says it, or nobody.
const OF_ONE: [&str; 4] = ["labels", "mechanism", "interface", "mtu"];
/// Keys of the specification, of runtimes and of meta-plugins.
const OTHERS: [&str; 11] = [
    "cniVersion",
    "name",
    "type",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "args",
    "dns",
    "ipam",
    "deviceID",
    "pciBusID",
];
const TIMEOUT: u64 = 15;
const INTERFACE: &str =
    "the name of an interface: at most 15 bytes, without '/', ':', '%' and spaces, not all or default";
/// The interface's name where `CNI_IFNAME` is another plugin's, as a service annotation would name the first one.
const CHAINED: &str = "nsm-1";

/// A network configuration without mistakes, with what the call's arguments add to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Conf {
    /// Who says which network services.
    pub mode: Mode,
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
    /// `prevResult`, converted to the configuration's version.
    pub prev_result: Option<Answer>,
}

/// Who says which network services.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    /// The configuration: one.
    Attach(Attach),
    /// The pod: none, one or several.
    Pod(OfPod),
}

/// One network service, and what its interface shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// `networkService`.
    pub network_service: String,
    /// Merged labels.
    pub labels: BTreeMap<String, String>,
    /// `mechanism`.
    pub mechanism: Mechanism,
    /// `interface`.
    pub interface: Option<String>,
    /// `mtu`.
    pub mtu: Option<u32>,
    /// The hardware address that is asked for.
    pub mac: Option<String>,
    /// The addresses that are asked for.
    pub ips: Vec<IpNetwork>,
}

/// What is known of a pod that may ask by annotation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OfPod {
    /// The pod's annotations that are ours; none where the runtime does not pass annotations.
    pub annotations: Option<Annotations>,
    /// `allowDns`.
    pub allow_dns: bool,
}

impl Conf {
    /// Reads a configuration strictly.
    ///
    /// # Errors
    /// All mistakes in one: code 2 if one of them is an unknown key, else 7.
    pub fn parse(stdin: &Stdin, args: &Args) -> Result<Self, Error> {
        let (conf, mistakes) = read(&stdin.keys, stdin.version, args);
        mistakes.into_error().map_or(Ok(conf), Err)
    }

    /// The interfaces that plugins before this one made in the sandbox.
    pub fn made_before<'a>(&'a self, netns: &'a str) -> impl Iterator<Item = &'a str> {
        let before = self.prev_result.iter().flat_map(|result| &result.interfaces);
        before.filter(move |known| known.sandbox.as_deref() == Some(netns)).map(|known| known.name.as_str())
    }
}

impl Attach {
    /// The name that ADD gives the interface: `interface`, else `CNI_IFNAME`, else, when a plugin before this one has made an
    /// interface of that name in the same sandbox, `nsm-1`: a runtime hands one `CNI_IFNAME` to all plugins of a list.
    pub fn interface_to_make<'a>(&'a self, conf: &Conf, env: &'a env::Environment) -> &'a str {
        match &self.interface {
            Some(name) => name,
            None if conf.made_before(&env.netns).any(|name| name == env.ifname) => CHAINED,
            None => &env.ifname,
        }
    }

    /// The name that ADD gave it, told from its result.
    pub fn interface_made<'a>(&'a self, conf: &Conf, env: &'a env::Environment) -> &'a str {
        match &self.interface {
            Some(name) => name,
            None if conf.made_before(&env.netns).any(|name| name == CHAINED) => CHAINED,
            None => &env.ifname,
        }
    }
}

fn read(keys: &Map<String, Value>, version: Version, args: &Args) -> (Conf, Fields) {
    let mut fields = Fields::default();
    for key in keys.keys() {
        if !OURS.contains(&key.as_str()) && !OTHERS.contains(&key.as_str()) && !key.starts_with("cni.dev/") {
            fields.unknown(key, &OURS);
        }
    }
    let network_service = network_service(keys, &mut fields);
    if network_service.is_none() {
        for key in OF_ONE.iter().filter(|key| keys.contains_key(**key)) {
            fields.mistake(format!("{key}: expected networkService with it; without one, a pod's annotations say it"));
        }
    } else if keys.contains_key("allowDns") {
        fields.mistake(
            "allowDns: expected no networkService with it; the DNS of that service is always in the result".to_owned(),
        );
    }
    let mechanism = fields.text(keys, "mechanism", UnknownMechanism::EXPECTED).unwrap_or_default();
    let mechanism = Mechanism::parse(&mechanism).unwrap_or_else(|_| {
        fields.invalid("mechanism", &mechanism.as_str().into(), UnknownMechanism::EXPECTED);
        Mechanism::default()
    });
    let socket = fields.text(keys, "cniSocket", "an absolute path");
    let socket = socket.filter(|path| {
        let sound = path.starts_with('/') && !path.contains('\0');
        if !sound {
            fields.invalid("cniSocket", &path.as_str().into(), "an absolute path");
        }
        sound
    });
    let mut labels = args.labels.clone();
    fields.labels("CNI_ARGS LABELS", &labels);
    let arguments = runtime::arguments(keys, &mut fields);
    labels.extend(arguments.labels);
    labels.extend(fields.label_map(keys, "labels"));
    let timeout = fields.number(keys, "timeoutSeconds", 1..=120).unwrap_or(TIMEOUT);
    let agent_wait = fields.number(keys, "agentWaitSeconds", 0..=60).unwrap_or(0);
    let mtu = fields.number(keys, "mtu", 68..=65535).and_then(|mtu| u32::try_from(mtu).ok());
    let interface = fields.text(keys, "interface", INTERFACE).filter(|name| {
        let sound = env::is_new_interface(name);
        if !sound {
            fields.invalid("interface", &name.as_str().into(), INTERFACE);
        }
        sound
    });
    let runtime = runtime::config(keys, &mut fields);
    let mac = runtime
        .mac
        .clone()
        .or_else(|| args.mac.as_deref().and_then(|mac| runtime::mac("CNI_ARGS MAC", mac, &mut fields)));
    let legacy = runtime::ips("CNI_ARGS IP", args.ips.iter().map(String::as_str), &mut fields);
    let ips = [runtime.ips.clone(), arguments.ips, legacy].into_iter().find(|ips| !ips.is_empty()).unwrap_or_default();
    let prev_result = match keys.get("prevResult") {
        None | Some(Value::Null) => None,
        Some(value) => match Answer::parse(value, version) {
            Ok(answer) => Some(answer.convert(version)),
            Err(error) => {
                fields.mistake(error.msg);
                None
            }
        },
    };
    for key in ["dns", "ipam"] {
        fields.object(keys, key);
    }
    let allow_dns = fields.boolean(keys, "allowDns");
    let mode = match network_service {
        Some(network_service) => Mode::Attach(Attach { network_service, labels, mechanism, interface, mtu, mac, ips }),
        None => Mode::Pod(OfPod { annotations: runtime.annotations, allow_dns }),
    };
    let conf = Conf {
        mode,
        socket: PathBuf::from(socket.as_deref().unwrap_or(DEFAULT_SOCKET)),
        timeout: Duration::from_secs(timeout),
        agent_wait: Duration::from_secs(agent_wait),
        allow_default_route: fields.boolean(keys, "allowDefaultRoute"),
        allow_route_overlap: fields.boolean(keys, "allowRouteOverlap"),
        prev_result,
    };
    (conf, fields)
}

/// None where the key is absent; a wrong value is a mistake, and no other mode.
fn network_service(keys: &Map<String, Value>, fields: &mut Fields) -> Option<String> {
    const EXPECTED: &str = "the name of a network service, 1 to 253 bytes";
    match keys.get("networkService")? {
        Value::String(name) if (1..=253).contains(&name.len()) && !name.chars().any(char::is_control) => {
            Some(name.clone())
        }
        other => {
            fields.invalid("networkService", other, EXPECTED);
            Some(String::new())
        }
    }
}

#[cfg(test)]
mod tests;
