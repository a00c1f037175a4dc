//! One object of the annotation's JSON form, NPWG section 4.1.2.1.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value, json};

use super::Selection;
use crate::{
    mistakes::Mistakes,
    names::{self, is_guid, is_interface, is_mac, is_namespace, is_object},
};

const KNOWN: [&str; 13] = [
    "name",
    "namespace",
    "interface",
    "interfaceRequest",
    "ips",
    "mac",
    "portMappings",
    "bandwidth",
    "cni-args",
    "infiniband-guid",
    "deviceID",
    "default-route",
    "ipam-claim-reference",
];
const IPS: &str = "a list of at least one address, each once, with or without prefix";
const RATES: [(&str, &str); 2] = [("ingressRate", "ingressBurst"), ("egressRate", "egressBurst")];
/// Longest device id, in bytes.
const LONGEST_DEVICE: usize = 1024;

/// Reads an element; one that has no sound name is none.
pub(super) fn read(place: usize, entry: &Value, mistakes: &mut Mistakes) -> Option<Selection> {
    let Value::Object(keys) = entry else {
        mistakes.invalid(&format!("[{place}]"), entry, "an object with name");
        return None;
    };
    let mut own = Mistakes::default();
    for key in keys.keys() {
        // What others add has a domain in its name.
        if !KNOWN.contains(&key.as_str()) && !key.contains(['.', '/']) {
            own.unknown(key, &KNOWN.join(", "));
        }
    }
    let text = |key: &str, expected: &str, sound: fn(&str) -> bool, own: &mut Mistakes| {
        let text = own.string(keys, key, expected).filter(|text| !text.is_empty())?;
        if sound(&text) {
            return Some(text);
        }
        own.invalid(key, &text.into(), expected);
        None
    };
    let device = |text: &str| text.len() <= LONGEST_DEVICE && !text.chars().any(char::is_control);
    let selection = Selection {
        namespace: text("namespace", names::NAMESPACE, is_namespace, &mut own),
        name: text("name", names::OBJECT, is_object, &mut own).unwrap_or_default(),
        interface: text("interface", names::INTERFACE, is_interface, &mut own)
            .or_else(|| text("interfaceRequest", names::INTERFACE, is_interface, &mut own)),
        ips: ips(keys, &mut own),
        mac: text("mac", names::MAC, is_mac, &mut own).map(|mac| mac.replace('-', ":").to_ascii_lowercase()),
        port_mappings: port_mappings(keys, &mut own),
        bandwidth: bandwidth(keys, &mut own),
        cni_args: own.object(keys, "cni-args").cloned().unwrap_or_default(),
        infiniband_guid: text("infiniband-guid", names::GUID, is_guid, &mut own),
        device_id: text("deviceID", "a device's id", device, &mut own),
        default_route: default_route(keys, &mut own),
        ipam_claim: text("ipam-claim-reference", names::OBJECT, is_object, &mut own),
    };
    if selection.name.is_empty() && own.is_empty() {
        own.add("name: expected the name of a NetworkAttachmentDefinition");
    }
    if selection.ipam_claim.is_some() && !selection.ips.is_empty() {
        own.add("ips beside ipam-claim-reference: expected one of them, the claim says the addresses");
    }
    if own.is_empty() {
        return Some(selection);
    }
    let named = if selection.name.is_empty() { String::new() } else { format!(" ({})", selection.name) };
    mistakes.add(format!("[{place}]{named}: {}", own.text()));
    None
}

fn ips(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Vec<String> {
    let Some(all) = mistakes.strings(keys, "ips", IPS) else { return Vec::new() };
    let mut seen: Vec<IpAddr> = Vec::new();
    for text in &all {
        // Addresses with and without prefix; IpNetwork takes both.
        match text.parse::<IpNetwork>().map(|network| network.ip()) {
            Ok(ip) if !seen.contains(&ip) && !ip.is_unspecified() => seen.push(ip),
            _ => mistakes.invalid("ips", &text.as_str().into(), IPS),
        }
    }
    if all.is_empty() {
        mistakes.invalid("ips", &json!([]), IPS);
    }
    all
}

fn default_route(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Option<Vec<IpAddr>> {
    const EXPECTED: &str = "a list of gateways' addresses, at most one of each family";
    let all = mistakes.strings(keys, "default-route", EXPECTED)?;
    let mut gateways = Vec::new();
    for text in all {
        match text.parse::<IpAddr>() {
            Ok(ip) if !ip.is_unspecified() => gateways.push(ip),
            _ => mistakes.invalid("default-route", &text.into(), EXPECTED),
        }
    }
    Some(gateways)
}

/// As the capability takes them.
fn port_mappings(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Option<Value> {
    const EXPECTED: &str = "a list of objects with hostPort, containerPort and protocol (TCP, UDP or SCTP)";
    let list = match keys.get("portMappings")? {
        Value::Null => return None,
        Value::Array(list) if !list.is_empty() => list,
        other => {
            mistakes.invalid("portMappings", other, EXPECTED);
            return None;
        }
    };
    let mut sound = Vec::new();
    for entry in list {
        match port_mapping(entry) {
            Some(mapping) => sound.push(mapping),
            None => mistakes.invalid("portMappings", entry, EXPECTED),
        }
    }
    let host = |one: &Value| (one["hostPort"].clone(), one["protocol"].clone(), one["hostIP"].clone());
    let twice = sound.iter().enumerate().find(|(place, one)| sound[..*place].iter().any(|two| host(two) == host(one)));
    if let Some((_, twice)) = twice {
        mistakes.invalid("portMappings", twice, "each port of the host once");
    }
    Some(Value::Array(sound))
}

fn port_mapping(entry: &Value) -> Option<Value> {
    let keys = entry.as_object()?;
    let known = ["hostPort", "containerPort", "protocol", "hostIP"];
    let port = |key: &str| keys.get(key)?.as_u64().filter(|port| (1..=65535).contains(port));
    let protocol = match keys.get("protocol") {
        None | Some(Value::Null) => "tcp".to_owned(),
        Some(Value::String(text)) if text.is_empty() => "tcp".to_owned(),
        Some(other) => other.as_str()?.to_ascii_lowercase(),
    };
    let sound = ["tcp", "udp", "sctp"].contains(&&*protocol) && keys.keys().all(|key| known.contains(&&**key));
    let mut mapping =
        json!({ "hostPort": port("hostPort")?, "containerPort": port("containerPort")?, "protocol": protocol });
    match keys.get("hostIP") {
        None | Some(Value::Null) => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(other) => mapping["hostIP"] = other.as_str()?.parse::<IpAddr>().ok()?.to_string().into(),
    }
    sound.then_some(mapping)
}

/// As the capability takes it.
fn bandwidth(keys: &Map<String, Value>, mistakes: &mut Mistakes) -> Option<Value> {
    const EXPECTED: &str = "an object of ingressRate, ingressBurst, egressRate and egressBurst, numbers of bits above 0, a burst with its rate";
    let value = keys.get("bandwidth").filter(|value| !value.is_null())?;
    let sound = value.as_object().filter(|keys| {
        let known = |key: &String| RATES.iter().any(|(rate, burst)| key == rate || key == burst);
        let with_rate = |(rate, burst): &(&str, &str)| !keys.contains_key(*burst) || keys.contains_key(*rate);
        // As much as the programs that read it hold.
        let number = |value: &Value| value.as_i64().is_some_and(|bits| bits > 0);
        !keys.is_empty() && keys.keys().all(known) && keys.values().all(number) && RATES.iter().all(with_rate)
    });
    if sound.is_none() {
        mistakes.invalid("bandwidth", value, EXPECTED);
    }
    sound.map(|keys| Value::Object(keys.clone()))
}
