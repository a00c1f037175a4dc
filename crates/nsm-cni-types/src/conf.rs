//! The network configuration of attach mode.
//!
//! | key | value | default |
//! |---|---|---|
//! | `networkService` | service to connect to, 1 to 253 bytes | required |
//! | `labels` | object of strings; not `podName`, `nodeName`, `clusterName`, `namespace` | `{}` |
//! | `mechanism` | `kernel` | `kernel` |
//! | `cniSocket` | absolute path of the agent's socket | `/run/nsm/cni.sock` |
//! | `timeoutSeconds` | 1 to 120 | 15 |
//! | `agentWaitSeconds` | 0 to 60 | 0 |
//! | `mtu` | 68 to 65535 | the endpoint's |
//! | `allowDefaultRoute`, `allowRouteOverlap` | bool | false |
//!
//! Known besides: `cniVersion`, `name`, `type`, and what runtimes and meta-plugins add. Labels: `CNI_ARGS` < `args.cni.labels` < `labels`.
//! Addresses and MAC: `CNI_ARGS` < `args.cni.ips` < `runtimeConfig`.

mod fields;
mod runtime;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::{Answer, Args, Error, Mechanism, Stdin, UnknownMechanism, Version, code, env};
use fields::Fields;

/// Where the agent listens unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/nsm/cni.sock";
/// Labels that the agent gives, from what the runtime and the node say.
pub const RESERVED_LABELS: [&str; 4] = ["podName", "nodeName", "clusterName", "namespace"];

const OURS: [&str; 10] = [
    "networkService",
    "labels",
    "mechanism",
    "cniSocket",
    "timeoutSeconds",
    "agentWaitSeconds",
    "allowDefaultRoute",
    "allowRouteOverlap",
    "interface",
    "mtu",
];
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
    /// `networkService`.
    pub network_service: String,
    /// Merged labels.
    pub labels: BTreeMap<String, String>,
    /// `mechanism`.
    pub mechanism: Mechanism,
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
    /// `interface`.
    pub interface: Option<String>,
    /// `mtu`.
    pub mtu: Option<u32>,
    /// The hardware address that is asked for.
    pub mac: Option<String>,
    /// The addresses that are asked for.
    pub ips: Vec<IpNetwork>,
    /// `prevResult`, converted to the configuration's version.
    pub prev_result: Option<Answer>,
}

/// What DEL and GC take from a configuration: mistakes are told, not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lenient {
    /// `cniSocket`, the default if it is no path.
    pub socket: PathBuf,
    /// `timeoutSeconds`, the default if it is no number in range.
    pub timeout: Duration,
    /// The mistakes.
    pub warnings: Vec<String>,
}

/// What names an attachment in `cni.dev/valid-attachments`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// `containerID`.
    pub container_id: String,
    /// `ifname`.
    pub ifname: String,
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

    /// The name that ADD gives the interface: `interface`, else `CNI_IFNAME`, else, when a plugin before this one has made an
    /// interface of that name in the same sandbox, `nsm-1`: a runtime hands one `CNI_IFNAME` to all plugins of a list.
    pub fn interface_to_make<'a>(&'a self, env: &'a env::Environment) -> &'a str {
        match &self.interface {
            Some(name) => name,
            None if self.made_before(&env.ifname, &env.netns) => CHAINED,
            None => &env.ifname,
        }
    }

    /// The name that ADD gave it, told from its result.
    pub fn interface_made<'a>(&'a self, env: &'a env::Environment) -> &'a str {
        match &self.interface {
            Some(name) => name,
            None if self.made_before(CHAINED, &env.netns) => CHAINED,
            None => &env.ifname,
        }
    }

    fn made_before(&self, name: &str, netns: &str) -> bool {
        let mut before = self.prev_result.iter().flat_map(|result| &result.interfaces);
        before.any(|known| known.name == name && known.sandbox.as_deref() == Some(netns))
    }
}

impl Lenient {
    /// Reads a configuration as far as it can be read.
    pub fn parse(stdin: &Stdin) -> Self {
        let mut keys = stdin.keys.clone();
        // What an ADD must have, and what it made, are no business of a DEL.
        keys.entry("networkService").or_insert_with(|| "absent".into());
        keys.remove("prevResult");
        let (conf, mistakes) = read(&keys, stdin.version, &Args::default());
        Self { socket: conf.socket, timeout: conf.timeout, warnings: mistakes.texts() }
    }

    /// `cni.dev/valid-attachments`: absent is not empty.
    ///
    /// # Errors
    /// Code 7: a list that is not understood must not free anything.
    pub fn valid_attachments(stdin: &Stdin) -> Result<Option<Vec<Attachment>>, Error> {
        const KEY: &str = "cni.dev/valid-attachments";
        let invalid = |value: &Value, expected: &str| {
            Err(Error::new(code::INVALID_CONFIG, format!("{KEY} {value}: expected {expected}")))
        };
        let list = match stdin.keys.get(KEY) {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(other) => return invalid(other, "a list of {containerID, ifname}"),
        };
        let mut attachments = Vec::new();
        for entry in list {
            let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
            match (text("containerID"), text("ifname")) {
                (Some(container), Some(ifname)) if env::container_id(container).is_ok() => {
                    attachments.push(Attachment { container_id: container.to_owned(), ifname: ifname.to_owned() });
                }
                _ => return invalid(entry, "an object with containerID and ifname"),
            }
        }
        Ok(Some(attachments))
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
    let mac =
        runtime.mac.or_else(|| args.mac.as_deref().and_then(|mac| runtime::mac("CNI_ARGS MAC", mac, &mut fields)));
    let legacy = runtime::ips("CNI_ARGS IP", args.ips.iter().map(String::as_str), &mut fields);
    let ips = [runtime.ips, arguments.ips, legacy].into_iter().find(|ips| !ips.is_empty()).unwrap_or_default();
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
    let conf = Conf {
        network_service,
        labels,
        mechanism,
        socket: PathBuf::from(socket.as_deref().unwrap_or(DEFAULT_SOCKET)),
        timeout: Duration::from_secs(timeout),
        agent_wait: Duration::from_secs(agent_wait),
        allow_default_route: fields.boolean(keys, "allowDefaultRoute"),
        allow_route_overlap: fields.boolean(keys, "allowRouteOverlap"),
        interface,
        mtu,
        mac,
        ips,
        prev_result,
    };
    (conf, fields)
}

fn network_service(keys: &Map<String, Value>, fields: &mut Fields) -> String {
    const EXPECTED: &str = "the name of a network service, 1 to 253 bytes";
    match keys.get("networkService") {
        None => fields.mistake(format!("networkService is missing: expected {EXPECTED}")),
        Some(Value::String(name)) if (1..=253).contains(&name.len()) && !name.chars().any(char::is_control) => {
            return name.clone();
        }
        Some(other) => fields.invalid("networkService", other, EXPECTED),
    }
    String::new()
}

#[cfg(test)]
mod tests;
