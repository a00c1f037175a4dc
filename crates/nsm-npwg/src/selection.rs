//! What a pod asks for: the network selection annotation, NPWG sections 4.1.1 (short form) and 4.1.2 (JSON).
//!
//! Guarantees: every value is checked, all mistakes are told at once; an invalid annotation asks for nothing that could be done
//! instead. Keys that are neither the specification's, Multus's nor in reverse-DNS notation are mistakes.

mod element;

use std::{collections::BTreeSet, net::IpAddr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    Error,
    mistakes::Mistakes,
    names::{self, is_interface, is_namespace, is_object},
};

/// The annotation that selects a pod's added networks.
pub const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// The annotation that selects another default network.
pub const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// Longest annotation, in bytes.
pub const LONGEST: usize = 64 << 10;
/// Most networks of one annotation.
pub const MOST: usize = 64;

/// The annotations of a pod that select networks, as somebody wrote them. Blank ones ask for nothing and are none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Annotations {
    /// [`NETWORKS`].
    pub networks: Option<String>,
    /// [`DEFAULT_NETWORK`].
    pub default_network: Option<String>,
}

impl Annotations {
    /// Those that `get` finds.
    pub fn of<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Self {
        let text = |key: &str| get(key).filter(|text| !text.trim().is_empty()).map(str::to_owned);
        Self { networks: text(NETWORKS), default_network: text(DEFAULT_NETWORK) }
    }

    /// Whether they ask for nothing.
    pub fn is_empty(&self) -> bool {
        self.networks.is_none() && self.default_network.is_none()
    }

    /// The added networks, in their order.
    ///
    /// # Errors
    /// All that is wrong with the annotation, also beside the other one.
    pub fn added(&self) -> Result<Vec<Selection>, Error> {
        let Some(text) = &self.networks else { return Ok(Vec::new()) };
        let mut all = Selection::parse(NETWORKS, text)?;
        // What is wrong with the other one alone is told where that is read.
        if let Ok(Some(default)) = self.default_one() {
            all.insert(0, default);
            let mut mistakes = Mistakes::default();
            check_together(&all, &mut mistakes);
            if !mistakes.is_empty() {
                let why = format!("together with {DEFAULT_NETWORK}: {}", mistakes.text());
                return Err(Error::Annotation { key: NETWORKS, why });
            }
            all.remove(0);
        }
        Ok(all)
    }

    /// The default network that is asked for instead of the configuration's.
    ///
    /// # Errors
    /// All that is wrong with the annotation; more than one network, or one with a name for its interface.
    pub fn default_one(&self) -> Result<Option<Selection>, Error> {
        let Some(text) = &self.default_network else { return Ok(None) };
        let wrong = |why: String| Error::Annotation { key: DEFAULT_NETWORK, why };
        let mut all = Selection::parse(DEFAULT_NETWORK, text)?;
        let (Some(one), 0) = (all.pop(), all.len()) else {
            return Err(wrong(format!("{} networks: expected one", all.len() + 1)));
        };
        match &one.interface {
            Some(name) => Err(wrong(format!("interface {name:?}: expected none, the runtime names it"))),
            None => Ok(Some(one)),
        }
    }
}

/// One network that a pod asks for. All values are sound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selection {
    /// Of the NetworkAttachmentDefinition; none: the pod's.
    pub namespace: Option<String>,
    /// Of the NetworkAttachmentDefinition.
    pub name: String,
    /// The interface's name.
    pub interface: Option<String>,
    /// Addresses, with or without prefix.
    pub ips: Vec<String>,
    /// The hardware address.
    pub mac: Option<String>,
    /// A list of objects for the capability `portMappings`.
    pub port_mappings: Option<Value>,
    /// An object for the capability `bandwidth`.
    pub bandwidth: Option<Value>,
    /// Merged over `args.cni`.
    pub cni_args: Map<String, Value>,
    /// For the capability `infinibandGUID`.
    pub infiniband_guid: Option<String>,
    /// For the capability `deviceID`.
    pub device_id: Option<String>,
    /// Gateways of the pod's default route, which is then this network's; empty: none.
    pub default_route: Option<Vec<IpAddr>>,
    /// The name of an IPAMClaim, which the network's own plugin reads.
    pub ipam_claim: Option<String>,
}

impl Selection {
    /// Reads an annotation, in either form.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(key: &'static str, text: &str) -> Result<Vec<Self>, Error> {
        let mut mistakes = Mistakes::default();
        let all = if text.len() > LONGEST {
            mistakes.add(format!("{} bytes: expected at most {LONGEST}", text.len()));
            Vec::new()
        } else if text.contains(['[', '{', '"']) {
            of_json(text, &mut mistakes)
        } else {
            of_list(text, &mut mistakes)
        };
        if all.len() > MOST {
            mistakes.add(format!("{} networks: expected at most {MOST}", all.len()));
        }
        check_together(&all, &mut mistakes);
        if mistakes.is_empty() { Ok(all) } else { Err(Error::Annotation { key, why: mistakes.text() }) }
    }
}

/// `[namespace/]name[@interface]`, separated by commas.
fn of_list(text: &str, mistakes: &mut Mistakes) -> Vec<Selection> {
    let mut all = Vec::new();
    for entry in text.split(',').take(MOST + 1).map(str::trim) {
        let (network, interface) = match entry.split_once('@') {
            Some((network, interface)) => (network, Some(interface)),
            None => (entry, None),
        };
        let (namespace, name) = match network.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, network),
        };
        let quoted = Value::from(entry);
        if !is_object(name) || !namespace.is_none_or(is_namespace) {
            mistakes.invalid("network", &quoted, "[namespace/]name[@interface], as names of objects are");
        } else if !interface.is_none_or(|name| is_interface(name) && !name.contains('@')) {
            mistakes.invalid("network", &quoted, &format!("after '@' {}", names::INTERFACE));
        } else {
            all.push(Selection {
                namespace: namespace.map(str::to_owned),
                name: name.to_owned(),
                interface: interface.map(str::to_owned),
                ..Selection::default()
            });
        }
    }
    all
}

fn of_json(text: &str, mistakes: &mut Mistakes) -> Vec<Selection> {
    let list = match serde_json::from_str(text) {
        Ok(Value::Array(list)) => list,
        Ok(other) => {
            mistakes.invalid("value", &other, "a list of objects, or names separated by commas");
            return Vec::new();
        }
        Err(error) => {
            mistakes.add(format!("{error}: expected a list of objects in JSON, or names separated by commas"));
            return Vec::new();
        }
    };
    let read = |(place, entry): (usize, &Value)| element::read(place, entry, mistakes);
    list.iter().take(MOST + 1).enumerate().filter_map(read).collect()
}

/// What one network says in view of the others.
fn check_together(all: &[Selection], mistakes: &mut Mistakes) {
    let mut names = BTreeSet::new();
    for name in all.iter().filter_map(|one| one.interface.as_deref()) {
        if !names.insert(name) {
            mistakes.add(format!("interface {name:?} is asked for twice: expected another name"));
        }
    }
    let asked: Vec<&Vec<IpAddr>> = all.iter().filter_map(|one| one.default_route.as_ref()).collect();
    for (family, v4) in [("IPv4", true), ("IPv6", false)] {
        let gateways: Vec<&IpAddr> = asked.iter().copied().flatten().filter(|ip| ip.is_ipv4() == v4).collect();
        if gateways.len() > 1 {
            mistakes.add(format!("default-route: {gateways:?}: expected one {family} gateway in all networks"));
        }
    }
    if asked.len() > 1 && asked.iter().any(|gateways| gateways.is_empty()) {
        mistakes.add("default-route: []: expected no default-route in another network, as this one leaves none");
    }
}

#[cfg(test)]
mod tests;
