//! Endpoints and clients as pods, and what they see.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::machine::Machine;
use crate::mesh::{Mesh, SOON, idle, patiently};
use anyhow::{Context, ensure};
use nsm_lab::{Namespace, ping};
use nsm_netlink::{IfName, Netns, NetnsSocket};
use serde_json::{Value, json};

/// As `cargo xtask image` names it.
pub const IMAGE: &str = concat!("docker.io/library/nsm:", env!("CARGO_PKG_VERSION"));

/// The annotation of NSM v1.
pub const ASKS: &str = "networkservicemesh.io";
/// That of 2019.
pub const ASKS_2019: &str = "ns.networkservicemesh.io";

/// Where `cargo xtask image` leaves it.
pub fn image() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    // target/PROFILE/PROGRAM, or target/PROFILE/deps/TEST.
    let target = exe.ancestors().find(|dir| dir.ends_with("debug") || dir.ends_with("release")).and_then(Path::parent);
    let path = target.context("no target directory")?.join("nsm-image.tar");
    ensure!(path.is_file(), "{} is missing: `cargo xtask image --quick` makes it", path.display());
    Ok(path)
}

/// An endpoint that gives addresses of `prefix`: a pod without privileges.
pub fn endpoint(namespace: &str, name: &str, machine: &Machine, service: &str, prefix: &str) -> Value {
    let env = |name: &str, value: &str| json!({ "name": name, "value": value });
    let mut pod = idle(namespace, name, machine.name());
    pod["spec"]["containers"] = json!([{
        "name": "endpoint", "image": IMAGE, "imagePullPolicy": "Never", "command": ["/usr/bin/icmp-responder"],
        "env": [
            env("NSM_NAME", &format!("{namespace}-{name}")), env("NSM_SERVICE_NAMES", service), env("NSM_CIDR_PREFIX", prefix),
            env("NSM_LABELS", &format!("app:{name}")),
            env("NSM_CONNECT_TO", "unix:///var/lib/networkservicemesh/nsm.io.sock"),
        ],
        "securityContext": { "runAsNonRoot": true, "runAsUser": 1000, "runAsGroup": 1000,
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
        "volumeMounts": [
            { "name": "nsm", "mountPath": "/var/lib/networkservicemesh", "readOnly": true },
            { "name": "tmp", "mountPath": "/tmp" },
        ],
    }]);
    pod["spec"]["volumes"] = json!([
        { "name": "nsm", "hostPath": { "path": "/var/lib/networkservicemesh", "type": "Directory" } },
        { "name": "tmp", "emptyDir": { "medium": "Memory" } },
    ]);
    pod
}

/// A pod that asks.
pub fn client(namespace: &str, name: &str, machine: &Machine, key: &str, value: &str) -> Value {
    let mut pod = idle(namespace, name, machine.name());
    pod["metadata"]["annotations"] = json!({ key: value });
    pod
}

/// Creates an endpoint and waits until its service can be asked for.
pub fn serve(mesh: &Mesh, machine: &Machine, pod: &Value) -> anyhow::Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
    mesh.create(pod)?;
    mesh.running(&namespace, &name)?;
    registered(machine, &format!("{namespace}-{name}"))
}

/// Waits until an endpoint of that name can be reached.
pub fn registered(machine: &Machine, name: &str) -> anyhow::Result<()> {
    let names = || {
        let list: Value = serde_json::from_str(&machine.nsmctl(&["get", "nse", "-o", "json"])?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        Ok(items.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let known = |items: &Vec<String>| items.iter().any(|item| item.contains(&format!("\"{name}\"")));
    patiently("registration of the endpoint", SOON, names, known).map(drop)
}

/// Who is at the other end of a pod's interface: the first host route there.
pub fn peer(network: &Namespace, interface: &str) -> anyhow::Result<IpAddr> {
    let mut socket = NetnsSocket::open(&Netns::open(network.path())?)?;
    let name = IfName::new(interface)?;
    let link = socket.link_by_name(&name)?.with_context(|| format!("{} has no {interface}", network.name()))?;
    let routes = socket.routes()?;
    let host = |length: u8, address: IpAddr| length == if address.is_ipv4() { 32 } else { 128 };
    let found = routes.iter().find(|entry| {
        let to = entry.route.destination;
        entry.index == Some(link.index) && host(to.prefix(), to.ip())
    });
    Ok(found.with_context(|| format!("no host route through {interface} in {routes:?}"))?.route.destination.ip())
}

/// Names of the interfaces of a pod, without its loopback.
pub fn interfaces(network: &Namespace) -> anyhow::Result<Vec<String>> {
    let links = NetnsSocket::open(&Netns::open(network.path())?)?.links()?;
    let mut names: Vec<String> = links.iter().map(|link| link.name.as_str().to_owned()).collect();
    names.retain(|name| name != "lo");
    names.sort();
    Ok(names)
}

/// An echo through an interface of a pod, answered by who serves it.
pub fn reaches(network: &Namespace, interface: &str) -> anyhow::Result<IpAddr> {
    let address = peer(network, interface)?;
    network
        .run(|| ping(address, Duration::from_secs(2)))?
        .with_context(|| format!("{} does not reach {address} through {interface}", network.name()))?;
    Ok(address)
}

/// A file of the repository.
pub fn file(path: &str) -> anyhow::Result<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    fs::canonicalize(format!("{root}/{path}")).map(|path| path.display().to_string()).with_context(|| path.to_owned())
}
