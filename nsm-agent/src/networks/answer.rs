//! A planned network as the plugin is told it.

use nsm_npwg::{Network, Planned};
use nsm_proto::cni::PlannedNetwork;
use serde_json::Value;

/// With our own word on it.
pub(super) fn network(planned: &Planned, note: String) -> PlannedNetwork {
    let object = |object: &serde_json::Map<String, Value>| {
        if object.is_empty() { String::new() } else { Value::Object(object.clone()).to_string() }
    };
    let (configuration, file) = match &planned.network {
        Network::List(list) => (list.to_json().to_string(), String::new()),
        Network::File(file) => (String::new(), file.clone()),
    };
    let completion = &planned.completion;
    PlannedNetwork {
        name: planned.name.clone(),
        ifname: planned.ifname.clone(),
        configuration,
        file,
        capability_args: object(&completion.capability_args),
        cni_args: completion.cni_args.clone(),
        default_route: planned.default_route.iter().flatten().map(ToString::to_string).collect(),
        takes_default_route: planned.default_route.is_some(),
        ips: planned.ips.clone(),
        mac: planned.mac.clone().unwrap_or_default(),
        args: object(&completion.args),
        device_id: completion.device_id.clone().unwrap_or_default(),
        resource_name: planned.resource_name.clone().unwrap_or_default(),
        note,
    }
}
