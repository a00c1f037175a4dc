//! The result of ADD, in any version of the specification.
//!
//! Held in the newest form with the version it came in. Fields that this crate does not know stay as long as the version stays;
//! a conversion drops them, and what the target version cannot say.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{Error, Version, code};

/// A result.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    version: Version,
    /// Interfaces, in the pod and on the host.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes.
    pub routes: Vec<Route>,
    /// DNS.
    pub dns: Dns,
    other: Map<String, Value>,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Since 1.1.0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The namespace's path; none on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// Fields kept as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ip {
    /// Place in the result's interfaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// With its prefix.
    pub address: IpNetwork,
    /// The gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
    /// Fields kept as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNetwork,
    /// Gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Fields kept as they came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Route {
    /// Whether it is in the main table, where a route without a table is.
    pub fn is_main(&self) -> bool {
        matches!(self.table, None | Some(0 | MAIN_TABLE))
    }
}

/// DNS.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Servers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// Search domains.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// `domain`, `options` and what else came.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// `ip4` and `ip6` of 0.1.0 and 0.2.0.
#[derive(Serialize, Deserialize)]
struct OldIp {
    ip: IpNetwork,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

/// The kernel's number of the main routing table.
const MAIN_TABLE: u32 = 254;

/// Fields of an interface and a route that 1.1.0 brought and this crate does not read.
const NEW_INTERFACE: [&str; 2] = ["socketPath", "pciID"];
const NEW_ROUTE: [&str; 3] = ["advmss", "priority", "scope"];

impl Answer {
    /// An empty result.
    pub fn new(version: Version) -> Self {
        let (interfaces, ips, routes) = Default::default();
        Self { version, interfaces, ips, routes, dns: Dns::default(), other: Map::new() }
    }

    /// The version it is printed in.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Reads a result; without a `cniVersion` it is in `assumed`.
    ///
    /// # Errors
    /// Code 7, naming `prevResult`.
    pub fn parse(value: &Value, assumed: Version) -> Result<Self, Error> {
        let invalid = |why: String| Error::new(code::INVALID_CONFIG, format!("prevResult: {why}"));
        let Value::Object(object) = value else { return Err(invalid(format!("{value}: expected an object"))) };
        let mut object = object.clone();
        let version = match object.remove("cniVersion") {
            None | Some(Value::Null) => assumed,
            Some(Value::String(text)) if text.is_empty() => assumed,
            Some(Value::String(text)) => {
                Version::parse(&text).ok_or_else(|| invalid(format!("cniVersion {text:?}: expected 0.1.0 to 1.1.0")))?
            }
            Some(other) => return Err(invalid(format!("cniVersion {other}: expected a string"))),
        };
        let mut answer = Self::new(version);
        answer.dns = field(&mut object, "dns").map_err(invalid)?.unwrap_or_default();
        if version <= Version::V0_2_0 {
            for key in ["ip4", "ip6"] {
                if let Some(OldIp { ip, gateway, routes, other }) = field(&mut object, key).map_err(invalid)? {
                    if ip.is_ipv4() != (key == "ip4") {
                        return Err(invalid(format!("{key}.ip {ip}: of the other family")));
                    }
                    answer.ips.push(Ip { interface: None, address: ip, gateway, other });
                    answer.routes.extend(routes);
                }
            }
        } else {
            answer.interfaces = field(&mut object, "interfaces").map_err(invalid)?.unwrap_or_default();
            answer.ips = field(&mut object, "ips").map_err(invalid)?.unwrap_or_default();
            answer.routes = field(&mut object, "routes").map_err(invalid)?.unwrap_or_default();
            let interfaces = answer.interfaces.len();
            for (place, ip) in answer.ips.iter_mut().enumerate() {
                if let Some(interface) = ip.interface.filter(|interface| *interface >= interfaces) {
                    return Err(invalid(format!(
                        "ips[{place}].interface {interface}: expected a place in {interfaces} interfaces"
                    )));
                }
                if version <= Version::V0_4_0 {
                    ip.other.remove("version");
                }
            }
        }
        answer.other = object;
        Ok(answer)
    }

    /// The same result in another version, less what that cannot say.
    #[must_use]
    pub fn convert(mut self, to: Version) -> Self {
        if self.version == to {
            return self;
        }
        let keep = |other: &mut Map<String, Value>, known: &[&str]| {
            other.retain(|key, _| to >= Version::V1_1_0 && known.contains(&key.as_str()));
        };
        for interface in &mut self.interfaces {
            keep(&mut interface.other, &NEW_INTERFACE);
            interface.mtu = interface.mtu.filter(|_| to >= Version::V1_1_0);
        }
        for ip in &mut self.ips {
            ip.other.clear();
        }
        if to < Version::V1_1_0 {
            // Without its table, a policy's route would read as one of the pod's main table.
            self.routes.retain(Route::is_main);
        }
        for route in &mut self.routes {
            keep(&mut route.other, &NEW_ROUTE);
            if to < Version::V1_1_0 {
                (route.mtu, route.table) = (None, None);
            }
        }
        self.dns.other.retain(|key, _| key == "domain" || key == "options");
        self.other.clear();
        if to <= Version::V0_2_0 {
            self.interfaces.clear();
            self.ips.iter_mut().for_each(|ip| ip.interface = None);
        }
        self.version = to;
        self
    }

    /// Adds what another plugin made, converted to this result's version; DNS without doubles, the earlier first.
    pub fn extend(&mut self, more: Self) {
        let more = more.convert(self.version);
        let shift = self.interfaces.len();
        self.interfaces.extend(more.interfaces);
        let shifted = |mut ip: Ip| {
            ip.interface = ip.interface.map(|place| place + shift);
            ip
        };
        self.ips.extend(more.ips.into_iter().map(shifted));
        self.routes.extend(more.routes);
        for (ours, theirs) in
            [(&mut self.dns.nameservers, more.dns.nameservers), (&mut self.dns.search, more.dns.search)]
        {
            let new: Vec<String> = theirs.into_iter().filter(|entry| !ours.contains(entry)).collect();
            ours.extend(new);
        }
    }

    /// The JSON object.
    ///
    /// # Errors
    /// Code 7: 0.1.0 and 0.2.0 cannot say a result without addresses.
    pub fn to_json(&self) -> Result<Value, Error> {
        let mut object = self.other.clone();
        object.insert("cniVersion".to_owned(), json!(self.version.as_str()));
        if self.version <= Version::V0_2_0 {
            self.old_ips(&mut object)?;
        } else {
            if !self.interfaces.is_empty() {
                object.insert("interfaces".to_owned(), json!(self.interfaces));
            }
            if !self.ips.is_empty() {
                let mut ips = json!(self.ips);
                if self.version <= Version::V0_4_0 {
                    for (json, ip) in ips.as_array_mut().into_iter().flatten().zip(&self.ips) {
                        json["version"] = json!(if ip.address.is_ipv4() { "4" } else { "6" });
                    }
                }
                object.insert("ips".to_owned(), ips);
            }
            if !self.routes.is_empty() {
                object.insert("routes".to_owned(), json!(self.routes));
            }
        }
        if self.dns != Dns::default() {
            object.insert("dns".to_owned(), json!(self.dns));
        }
        Ok(Value::Object(object))
    }

    fn old_ips(&self, object: &mut Map<String, Value>) -> Result<(), Error> {
        if self.ips.is_empty() {
            return Err(Error::new(
                code::INVALID_CONFIG,
                format!(
                    "cniVersion {:?}: cannot convert: no valid IP addresses; expected 0.3.0 or newer for an interface without",
                    self.version.as_str()
                ),
            ));
        }
        for (key, v4) in [("ip4", true), ("ip6", false)] {
            let Some(ip) = self.ips.iter().find(|ip| ip.address.is_ipv4() == v4) else { continue };
            let routes = self.routes.iter().filter(|route| route.dst.is_ipv4() == v4).cloned().collect();
            let old = OldIp { ip: ip.address, gateway: ip.gateway, routes, other: ip.other.clone() };
            object.insert(key.to_owned(), json!(old));
        }
        Ok(())
    }

    /// The part that the plugin for `ifname` added: its interface, that one's addresses, and the routes that can only be of it.
    #[must_use]
    pub fn part_of(&self, ifname: &str) -> Self {
        let ours = |place: &usize| {
            self.interfaces.get(*place).is_some_and(|known| known.name == ifname && known.sandbox.is_some())
        };
        let mut part = Self::new(self.version);
        let Some(place) = (0..self.interfaces.len()).find(ours) else { return part };
        part.interfaces.extend(self.interfaces.get(place).cloned());
        let ips = self.ips.iter().filter(|ip| ip.interface == Some(place));
        part.ips = ips.map(|ip| Ip { interface: Some(0), ..ip.clone() }).collect();
        let alone = self.interfaces.iter().filter(|known| known.sandbox.is_some()).count() == 1;
        let through_us =
            |gateway: IpAddr| part.ips.iter().any(|ip| ip.address.contains(gateway) || ip.gateway == Some(gateway));
        let routes = self.routes.iter().filter(|route| alone || route.gw.is_some_and(through_us));
        part.routes = routes.cloned().collect();
        part
    }
}

/// Takes a key; null is absent, as for Go programs.
fn field<T: serde::de::DeserializeOwned>(object: &mut Map<String, Value>, key: &str) -> Result<Option<T>, String> {
    match object.remove(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => serde_json::from_value(value).map(Some).map_err(|error| format!("{key}: {error}")),
    }
}

#[cfg(test)]
pub(crate) mod tests;
