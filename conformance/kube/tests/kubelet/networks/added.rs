//! Networks that annotations of a pod add.

use std::fs;
use std::time::Duration;

use anyhow::{Context, ensure};
use nsm_kube::pods::{ASKS, endpoint, interfaces, reaches, serve};
use nsm_kube::{Mesh, SOON, is, patiently};
use nsm_lab::ping;
use serde_json::{Value, json};

use super::seen::{addresses, mac, true_status};
use super::{asking, bridge, by_meta_plugin};

/// Asked for by hand.
const MAC: &str = "02:00:00:00:61:77";

pub(crate) fn pods_have_what_they_ask_for(mesh: &mut Mesh) -> anyhow::Result<()> {
    // Each with its containerd.
    for at in 0..mesh.len() {
        by_meta_plugin(mesh, at, &format!("added-{at}"), &json!({}), |mesh| {
            pods(mesh, at).with_context(|| format!("machine {at}"))
        })?;
    }
    Ok(())
}

fn pods(mesh: &Mesh, at: usize) -> anyhow::Result<()> {
    let machine = mesh.machine(at)?;
    let of = &format!("added-{at}");
    // What is asked of it, by capabilities of different plugins of one list.
    let fixed = json!({ "cniVersion": "1.0.0", "plugins": [
        { "type": "macvlan", "master": "eth0", "mode": "bridge", "capabilities": { "ips": true },
          "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.61.0.0/24" }]] } },
        { "type": "tuning", "capabilities": { "mac": true } },
    ] });
    mesh.define(of, &[("bridged", bridge("br-added", "10.60.0.0/24")), ("fixed", fixed)])?;
    serve(mesh, machine, &endpoint(of, "responder", machine, "icmp", "172.16.1.0/24"))?;
    mesh.create(&asking(of, "usual", machine, "bridged"))?;
    let asks = json!([{ "name": "fixed", "ips": ["10.61.0.77/24"], "mac": MAC, "interface": "fix0" }]);
    mesh.create(&asking(of, "exact", machine, &asks.to_string()))?;
    let mut both = asking(of, "both", machine, &format!("{of}/fixed@fix0, bridged"));
    both["metadata"]["annotations"][ASKS] = "kernel://icmp/nsm-1".into();
    mesh.create(&both)?;
    let mut fixed = asking(of, "static", machine, "bridged");
    fixed["spec"].as_object_mut().context("no spec")?.remove("nodeName");
    let file = machine.static_pods().join("networks.json");
    fs::write(&file, fixed.to_string())?;

    let usual = mesh.running(of, "usual").and_then(|_| {
        let network = mesh.network_of(machine, of, "usual")?;
        ensure!(interfaces(&network)? == ["eth0", "net1"], "{:?}", interfaces(&network)?);
        let bridged = format!("{of}/bridged");
        true_status(mesh, machine, (of, "usual"), &[("first", "eth0"), (&bridged, "net1")])
    });
    let checked = usual.and_then(|_| exact(mesh, at, of)).and_then(|()| services_too(mesh, at, of));
    let fixed = of_a_file(mesh, at, of);
    fs::remove_file(file)?;
    checked.and(fixed)?;
    mesh.gone(of, &[&format!("static-{}", machine.name())])
}

/// Address and hardware address are those of the annotation, and others of the network are reached.
fn exact(mesh: &Mesh, at: usize, of: &str) -> anyhow::Result<()> {
    let machine = mesh.machine(at)?;
    mesh.running(of, "exact")?;
    mesh.running(of, "both")?;
    let network = mesh.network_of(machine, of, "exact")?;
    let fixed = format!("{of}/fixed");
    let status = true_status(mesh, machine, (of, "exact"), &[("first", "eth0"), (&fixed, "fix0")])?;
    ensure!(status[1]["ips"] == json!(["10.61.0.77"]) && status[1]["mac"] == MAC, "{status:?}");
    ensure!(mac(&network, "fix0")? == MAC, "{}", mac(&network, "fix0")?);
    let [peer] = addresses(&mesh.network_of(machine, of, "both")?, "fix0")?[..] else {
        anyhow::bail!("one address of fix0");
    };
    network.run(|| ping(peer, Duration::from_secs(2)))?.with_context(|| format!("{peer} through fix0"))?;
    let given = machine.addresses_of("fixed")?;
    ensure!(given.len() == 2 && given.contains(&"10.61.0.77".to_owned()), "{given:?}");
    Ok(())
}

/// One plan and one status of networks and network services.
fn services_too(mesh: &Mesh, at: usize, of: &str) -> anyhow::Result<()> {
    let machine = mesh.machine(at)?;
    let network = mesh.network_of(machine, of, "both")?;
    ensure!(interfaces(&network)? == ["eth0", "fix0", "net2", "nsm-1"], "{:?}", interfaces(&network)?);
    reaches(&network, "nsm-1")?;
    let [fixed, bridged] = ["fixed", "bridged"].map(|name| format!("{of}/{name}"));
    let expected = [("first", "eth0"), (&*fixed, "fix0"), (&*bridged, "net2"), ("networkservicemesh.io/icmp", "nsm-1")];
    true_status(mesh, machine, (of, "both"), &expected).map(drop)
}

/// A pod of a file on the machine.
fn of_a_file(mesh: &Mesh, at: usize, of: &str) -> anyhow::Result<()> {
    let machine = mesh.machine(at)?;
    let name = format!("static-{}", machine.name());
    let ready = |pod: &Value| is(pod, "Ready");
    patiently("the static pod", SOON, || mesh.pod(of, &name), ready)
        .with_context(|| mesh.events(of, &name).unwrap_or_default().join("\n"))?;
    let bridged = format!("{of}/bridged");
    true_status(mesh, machine, (of, &name), &[("first", "eth0"), (&bridged, "net1")]).map(drop)
}
