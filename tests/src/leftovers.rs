//! All that a connection could leave behind, as lines that can be compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use nsm_netlink::{Netns, NetnsSocket};

use crate::Node;
use crate::admin::lists;
use crate::sandbox::NETNS_DIR;

/// What the agent keeps of each endpoint that it has called, as long as that is registered: a connection to it, and a netlink
/// socket in its namespace with the directory of the settings there.
const KEPT: [(&str, usize); 2] = [("agent's file socket", 2), ("agent's file /proc/sys/net/ipv6/conf", 1)];
const FILE: &str = "agent's file ";
/// A Close that an endpoint has still to hear.
const OWED: &str = "file run/owed/";

/// A state of the node: each line with how often it occurs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leftovers {
    lines: BTreeMap<String, usize>,
    endpoints: usize,
}

/// So many of these lines may come with an endpoint.
fn kept(line: &str) -> usize {
    KEPT.iter().find(|(kept, _)| line == *kept).map_or(0, |(_, count)| *count)
}

impl Leftovers {
    /// What is more (`+`) or less (`-`) now than in `self`.
    pub fn difference(&self, now: &Self) -> Vec<String> {
        let count = |lines: &Self, line: &String| lines.lines.get(line).copied().unwrap_or_default();
        let mut all: Vec<&String> = self.lines.keys().chain(now.lines.keys()).collect();
        all.sort();
        all.dedup();
        all.into_iter()
            .filter_map(|line| match (count(self, line), count(now, line)) {
                // Kept until the next call to any endpoint: the socket file of the one that was called last.
                (before, after) if line.ends_with(".sock (deleted)") && after <= before + 1 => None,
                // A renewed registration brings the socket's file anew, while calls are held by the one before.
                (before, after) if is_socket_file(line) && after <= before + now.endpoints => None,
                (before, after) if after > before && after <= before + kept(line) * now.endpoints => None,
                // Fewer: those of a call that was just ending, and its Close at the endpoint.
                (before, after) if (line.starts_with(FILE) || line.starts_with(OWED)) && after < before => None,
                (before, after) if after > before => Some(format!("+{} {line}", after - before)),
                (before, after) if after < before => Some(format!("-{} {line}", before - after)),
                _ => None,
            })
            .collect()
    }

    fn add(&mut self, line: String) {
        *self.lines.entry(line).or_default() += 1;
    }
}

fn is_socket_file(line: &str) -> bool {
    line.starts_with(FILE) && line.rsplit('.').next() == Some("sock")
}

/// Looks at everything: named namespaces, links, addresses, routes, rules and neighbours in each, the agent's open files,
/// records, of sandboxes too, and notes, registered endpoints with their connections, connections.
pub(crate) fn of(node: &Node, agent: Option<u32>) -> anyhow::Result<Leftovers> {
    let mut lines = Leftovers::default();
    for entry in fs::read_dir(NETNS_DIR)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        namespace(&mut lines, &name, &path).with_context(|| format!("looking into namespace {name}"))?;
    }
    for dir in [node.run_dir(), node.dir().join("cni.sock.owed"), node.dir().join("cni.sock.pods")] {
        files(&mut lines, &dir, node.dir());
    }
    if let Some(pid) = agent {
        open_files(&mut lines, pid);
        let (endpoints, connections) = lists(node)?;
        lines.endpoints = endpoints.len();
        for endpoint in endpoints {
            let name = endpoint.endpoint.unwrap_or_default().name;
            lines.add(format!("endpoint {name} connections {} {}", endpoint.connections, endpoint.unreachable));
        }
        for connection in connections {
            let id = connection.connection.unwrap_or_default().id;
            lines.add(format!(
                "connection {id} {} of {}/{}",
                connection.phase, connection.container_id, connection.ifname
            ));
        }
    }
    Ok(lines)
}

fn namespace(lines: &mut Leftovers, name: &str, path: &Path) -> anyhow::Result<()> {
    lines.add(format!("namespace {name}"));
    let mut socket = NetnsSocket::open(&Netns::open(path)?)?;
    for link in socket.links()? {
        lines.add(format!("{name}: link {} alias {:?} up {}", link.name, link.alias, link.up));
    }
    for address in socket.addresses()? {
        lines.add(format!("{name}: address {} on {}", address.network, address.index));
    }
    for route in socket.routes()? {
        lines.add(format!("{name}: route {route:?}"));
    }
    for rule in socket.rules()? {
        lines.add(format!("{name}: rule {rule:?}"));
    }
    Ok(())
}

/// Files below `dir`, sockets excepted: they are the running programs'.
fn files(lines: &mut Leftovers, dir: &Path, base: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files(lines, &path, base),
            Ok(kind) if kind.is_file() => {
                lines.add(format!("file {}", path.strip_prefix(base).unwrap_or(&path).display()));
            }
            _ => {}
        }
    }
}

/// The agent's descriptors by kind, without the numbers that differ each time.
fn open_files(lines: &mut Leftovers, pid: u32) {
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy().into_owned();
        lines.add(format!("{FILE}{}", target.split(":[").next().unwrap_or(&target)));
    }
}
