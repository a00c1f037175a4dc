//! A change of a running pod, as the agent tells the plugin: keys of the meta-plugin's configuration that nobody else writes.

use std::net::IpAddr;

use nsm_cni_types::pods::MadeNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Completion, Error, List, Network, Planned};

/// The key of a network that a running pod gets.
pub const ATTACH: &str = "attach";
/// The key of a network that a running pod loses.
pub const DETACH: &str = "detach";

/// What a call is about, where it is not about all of a pod's networks.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// ADD of one network.
    Attach(Box<Attach>),
    /// DEL of one network.
    Detach(Detach),
}

/// One network that a running pod gets.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attach {
    /// As the status names it.
    pub name: String,
    /// The interface's name.
    pub ifname: String,
    /// The conflist, with what was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<Value>,
    /// The name of a network of the host, where there is no configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Capability arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub capability_args: Map<String, Value>,
    /// More `CNI_ARGS`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cni_args: String,
    /// To be merged over `args.cni`, where the configuration is a file.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub args: Map<String, Value>,
    /// The device.
    #[serde(rename = "deviceID", default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// The device's resource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource_name: Option<String>,
    /// Gateways of the default route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_route: Option<Vec<IpAddr>>,
    /// Addresses that the result must have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ips: Vec<String>,
    /// The hardware address that the result must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The agent's own word on it, which is told again with what was made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// One network that a running pod loses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Detach {
    /// Its interface's name.
    pub ifname: String,
    /// As the status names it: where the interface is another network's by now, that stays. None: whichever has the interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// What the plugin answers: the pod's networks after the change, in the order in which they were made. A default route that moved has
/// changed others' results too.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// All of them.
    pub networks: Vec<MadeNetwork>,
}

impl From<&Planned> for Attach {
    fn from(planned: &Planned) -> Self {
        let (configuration, file) = match &planned.network {
            Network::List(list) => (Some(list.to_json()), None),
            Network::File(file) => (None, Some(file.clone())),
        };
        let Completion { capability_args, cni_args, args, device_id } = planned.completion.clone();
        Self {
            name: planned.name.clone(),
            ifname: planned.ifname.clone(),
            configuration,
            file,
            capability_args,
            cni_args,
            args,
            device_id,
            resource_name: planned.resource_name.clone(),
            default_route: planned.default_route.clone(),
            ips: planned.ips.clone(),
            mac: planned.mac.clone(),
            note: String::new(),
        }
    }
}

impl TryFrom<Attach> for Planned {
    type Error = Error;

    fn try_from(attach: Attach) -> Result<Self, Error> {
        let Attach { name, ifname, configuration, file, capability_args, cni_args, args, device_id, .. } = attach;
        let network = match (configuration, file) {
            (Some(list), None) => Network::List(List::of_host(&name, &name, &list.to_string())?),
            (None, Some(file)) => Network::File(file),
            _ => return Err(Error::refused(&name, "expected a configuration, or the name of a file's network")),
        };
        Ok(Self {
            name,
            ifname,
            network,
            completion: Completion { capability_args, cni_args, args, device_id },
            default_route: attach.default_route,
            ips: attach.ips,
            mac: attach.mac,
            resource_name: attach.resource_name,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_told_is_what_was_planned() {
        let list = List::of_host("n", "n", r#"{"type": "macvlan", "master": "eth1"}"#).unwrap();
        let planned = Planned {
            name: "default/a".into(),
            ifname: "net1".into(),
            network: Network::List(list),
            completion: Completion { cni_args: "MAC=02:00:00:00:00:01".into(), ..Completion::default() },
            default_route: Some(Vec::new()),
            ips: vec!["10.0.0.2".into()],
            mac: Some("02:00:00:00:00:01".into()),
            resource_name: None,
        };
        let told = json!(Attach::from(&planned));
        assert_eq!(told["configuration"]["plugins"][0]["type"], "macvlan");
        let read: Attach = serde_json::from_value(told).unwrap();
        assert_eq!(Planned::try_from(read), Ok(planned));
        assert!(Planned::try_from(Attach::default()).is_err());
    }
}
