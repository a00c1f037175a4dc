//! The default route of a pod is one network's.

use std::net::IpAddr;

use anyhow::{Context, ensure};
use nsm_kube::definitions::NETWORKS;
use nsm_kube::{Mesh, SOON, patiently};
use nsm_lab::Namespace;
use nsm_netlink::Family;
use serde_json::{Value, json};

use super::seen::{defaults, true_status};
use super::{asking, by_meta_plugin};

/// Of both families, in a directory of its own.
const FIRST: &str = "/etc/cni/dual/first.conflist";

fn ipam(v4: &str, v6: &str) -> Value {
    json!({
        "type": "host-local", "ranges": [[{ "subnet": v4 }], [{ "subnet": v6 }]],
        "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
    })
}

pub(crate) fn a_default_route_moves(mesh: &mut Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let first = json!({ "cniVersion": "1.0.0", "name": "dual", "plugins": [
        { "type": "ptp", "ipam": ipam("10.62.1.0/24", "fd62:1::/64") },
    ] });
    machine.place().write(FIRST, &first.to_string())?;
    by_meta_plugin(mesh, 0, "routes", &json!({ "clusterNetwork": FIRST }), |mesh| pods(mesh))
}

/// Families, and where each default route of the pod leads.
fn leads(network: &Namespace, expected: [Option<(&str, &str)>; 2]) -> anyhow::Result<()> {
    for (family, expected) in [Family::V4, Family::V6].into_iter().zip(expected) {
        let there = defaults(network, family)?;
        let expected: Vec<(String, Option<IpAddr>)> = expected
            .into_iter()
            .map(|(interface, gateway)| Ok((interface.to_owned(), Some(gateway.parse()?))))
            .collect::<anyhow::Result<_>>()?;
        ensure!(there == expected, "{family:?} of {}: {there:?}, expected {expected:?}", network.name());
    }
    Ok(())
}

fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let other = json!({
        "cniVersion": "1.0.0", "type": "bridge", "bridge": "br-routes", "isGateway": true,
        "ipam": ipam("10.62.2.0/24", "fd62:2::/64"),
    });
    mesh.define("routes", &[("other", other)])?;
    let asks = |gateways: Value| json!([{ "name": "other", "default-route": gateways }]).to_string();
    let all = [
        ("sibling", "other".to_owned()),
        ("both", asks(json!(["10.62.2.1", "fd62:2::1"]))),
        ("one", asks(json!(["10.62.2.1"]))),
        ("none", asks(json!([]))),
    ];
    for (name, networks) in &all {
        mesh.create(&asking("routes", name, machine, networks))?;
    }
    let (own, moved) = ((("eth0", "10.62.1.1"), ("eth0", "fd62:1::1")), (("net1", "10.62.2.1"), ("net1", "fd62:2::1")));
    for (name, routes) in [
        ("sibling", [Some(own.0), Some(own.1)]),
        ("both", [Some(moved.0), Some(moved.1)]),
        ("one", [Some(moved.0), Some(own.1)]),
        ("none", [None, None]),
    ] {
        mesh.running("routes", name)?;
        leads(&mesh.network_of(machine, "routes", name)?, routes)?;
        true_status(mesh, machine, ("routes", name), &[("dual", "eth0"), ("routes/other", "net1")]).context(name)?;
    }
    // The same while they run.
    for (name, networks, routes) in [
        ("sibling", &all[1].1, [Some(moved.0), Some(moved.1)]),
        ("sibling", &all[2].1, [Some(moved.0), Some(own.1)]),
        ("both", &all[0].1, [Some(own.0), Some(own.1)]),
        ("none", &all[0].1, [Some(own.0), Some(own.1)]),
    ] {
        let annotation = format!("{NETWORKS}={networks}");
        mesh.kubectl(&["-n", "routes", "annotate", "--overwrite", "pod", name, &annotation])?;
        let network = mesh.network_of(machine, "routes", name)?;
        let there = patiently("default routes", SOON, || Ok(leads(&network, routes).is_ok()), |there| *there);
        there.or_else(|_| leads(&network, routes).map(|()| true)).with_context(|| format!("{name}: {networks}"))?;
        let told = || true_status(mesh, machine, ("routes", name), &[("dual", "eth0"), ("routes/other", "net1")]);
        let told_soon = patiently("a true status", SOON, || Ok(told().is_ok()), |told| *told);
        told_soon.or_else(|_| told().map(|_| true)).with_context(|| format!("{name}: {networks}"))?;
    }
    leads(&mesh.network_of(machine, "routes", "one")?, [Some(moved.0), Some(own.1)]).context("one that nobody edited")
}
