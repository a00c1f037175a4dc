//! What a plan says of one network, completed with what only the host knows: files, devices, the runtime's own words.

use std::path::Path;

use nsm_cni_types::Error;
use nsm_npwg::{Chosen, List, Meta};
use serde_json::{Map, json};

use super::{Planned, Source, Wanted, invalid};
use crate::{
    Call,
    meta::{
        devinfo::{self, Device},
        hostfiles,
        network::{Conflist, Network},
    },
};

/// What only a runtime says of the pod, and what is of one interface: not for the others.
const OF_ONE: [&str; 2] = ["MAC", "IP"];

pub(super) fn wanted(
    (container, given): (&str, &str),
    meta: &Meta,
    planned: Planned,
    is_default: bool,
) -> Result<Wanted, Error> {
    let list = match planned.source {
        Source::List(list) => list,
        Source::File(text) => {
            let list = hostfiles::find(meta, &text)?;
            planned.completion.apply(&planned.name, list).map_err(invalid)?
        }
    };
    // A network that is named by its place has a name of its own.
    let name = if planned.name.starts_with('/') { list.name().to_owned() } else { planned.name };
    // Section 7.5: what the runtime says is for the first network alone.
    let mut capability_args = if is_default { meta.runtime_config.clone() } else { Map::new() };
    capability_args.extend(planned.completion.capability_args);
    let file = devinfo::path(&name, container, &planned.ifname);
    capability_args.insert(devinfo::CAPABILITY.to_owned(), file.to_string_lossy().into());
    let device = planned.resource.zip(planned.completion.device_id).map(|(resource, id)| Device { resource, id });
    let mut network = Network {
        name,
        ifname: planned.ifname,
        args: arguments(given, &planned.completion.cni_args, is_default),
        capability_args,
        list: conflist(&list, meta)?,
        follows_nothing: false,
        note: planned.note,
    };
    network.capability_args.retain(|name, _| network.list.declares(name));
    Ok(Wanted { network, default_route: planned.default_route, ips: planned.ips, mac: planned.mac, device })
}

/// A list as it is recorded: with a version, as an ADD and its DEL may see different configurations around it.
fn conflist(list: &List, meta: &Meta) -> Result<Conflist, Error> {
    let mut json = list.to_json();
    if list.key("cniVersion").is_none() {
        json["cniVersion"] = json!(meta.version.as_str());
    }
    serde_json::from_value(json).map_err(|error| invalid(format!("network {:?}: {error}", list.name())))
}

/// CNI_ARGS of a network's plugins.
fn arguments(given: &str, more: &str, is_default: bool) -> String {
    let of_one = |pair: &&str| OF_ONE.iter().any(|key| pair.split('=').next() == Some(key));
    let mut pairs: Vec<&str> = given.split(';').filter(|pair| !pair.is_empty()).collect();
    if !is_default || !more.is_empty() {
        pairs.retain(|pair| !of_one(pair));
    }
    if !more.is_empty() {
        // Plugins that know one of them refuse the other.
        if !pairs.iter().any(|pair| pair.starts_with("IgnoreUnknown=")) {
            pairs.push("IgnoreUnknown=1");
        }
        pairs.extend(more.split(';').filter(|pair| !pair.is_empty()));
    }
    pairs.join(";")
}

/// The plugins in the folder of that name beside the cluster network, which follow a plugin that makes nothing.
pub(super) fn auxiliary(call: &Call, meta: &Meta, others: &[Wanted]) -> Result<Option<Wanted>, Error> {
    let (Some(name), Chosen::ClusterNetwork(cluster)) = (&meta.auxiliary_chain, &meta.default) else { return Ok(None) };
    let cluster = Path::new(cluster);
    let dir = if cluster.is_dir() { cluster } else { cluster.parent().unwrap_or(cluster) };
    let plugins = hostfiles::beside(dir, name)?;
    if plugins.is_empty() {
        return Ok(None);
    }
    let list = json!({"cniVersion": meta.version.as_str(), "name": name, "plugins": plugins});
    let list = List::of_host(name, name, &list.to_string()).map_err(invalid)?;
    let network = Network {
        name: name.clone(),
        ifname: free_name(&others.iter().map(|one| one.network.ifname.as_str()).collect::<Vec<_>>()),
        args: arguments(&call.env.args, "", false),
        capability_args: Map::new(),
        list: conflist(&list, meta)?,
        follows_nothing: true,
        note: String::new(),
    };
    Ok(Some(Wanted { network, default_route: None, ips: Vec::new(), mac: None, device: None }))
}

/// The name of one more interface.
fn free_name(taken: &[&str]) -> String {
    let mut names = (taken.len()..).map(|place| format!("net{place}"));
    names.find(|name| !taken.contains(&name.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_auxiliary_chain_takes_a_name_that_no_network_has() {
        assert_eq!(free_name(&["eth0", "net1"]), "net2");
        assert_eq!(free_name(&["eth0", "net2"]), "net3");
        assert_eq!(free_name(&["eth0", "net3", "net4", "net5"]), "net6");
    }
}
