//! What pods leave on a machine: there while they run, and no longer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use nsm_netlink::{Netns, NetnsSocket};

use crate::machine::Machine;
use crate::mesh::patiently;

/// Until a deleted pod has left nothing: a DEL that is owed, the garbage collection of the agent.
const GONE: Duration = Duration::from_secs(30);

/// Where host-local keeps what it has given away.
const HOST_LOCAL: &str = "/var/lib/cni/networks";

/// Of each kind the names that are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traces(BTreeSet<String>);

/// Files below a directory, without the lock of the agent that runs.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) if entry.file_name() != "lock" => found.push(entry.path().display().to_string()),
            _ => {}
        }
    }
    found
}

impl Machine {
    /// The addresses that host-local has given away of a network: a file each, beside some of its own.
    pub fn addresses_of(&self, network: &str) -> anyhow::Result<Vec<String>> {
        let mut addresses = self.place().list(&format!("{HOST_LOCAL}/{network}"))?;
        addresses.retain(|name| name.parse::<std::net::IpAddr>().is_ok());
        Ok(addresses)
    }
}

impl Traces {
    /// As it is.
    pub fn of(machine: &Machine) -> anyhow::Result<Self> {
        let mut lines = BTreeSet::new();
        let place = machine.place();
        let interfaces = NetnsSocket::open(&Netns::open(place.network().path())?)?.links()?;
        // The plugin of bridges leaves them.
        for link in interfaces.iter().filter(|link| link.kind.as_deref() != Some("bridge")) {
            lines.insert(format!("link {}", link.name));
        }
        let mut add = |kind: &str, names: Vec<String>| {
            lines.extend(names.iter().map(|name| format!("{kind} {name}")));
        };
        add("network", place.list("/run/netns")?);
        for network in place.list(HOST_LOCAL)? {
            add(&format!("address of {network}"), machine.addresses_of(&network)?);
        }
        let mut records = place.list("/var/lib/cni/multus/nsm-cni")?;
        // Of all networks, for good.
        records.retain(|name| name != ".gates");
        add("networks of", records);
        add("record of", place.list("/run/nsm/cni.sock.pods")?);
        add("debt", place.list("/run/nsm/cni.sock.owed")?);
        add("state", place.run(|| files(Path::new("/run/nsm/state")))?);
        Ok(Self(lines))
    }

    /// Waits until nothing is there that was not there then.
    pub fn remain(&self, machine: &Machine) -> anyhow::Result<()> {
        let more = || {
            let more: Vec<String> = Self::of(machine)?.0.difference(&self.0).cloned().collect();
            Ok(more)
        };
        patiently(&format!("nothing left on {}", machine.name()), GONE, more, Vec::is_empty).map(drop)
    }
}
