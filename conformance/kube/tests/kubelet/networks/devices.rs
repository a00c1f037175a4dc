//! Networks that are made of devices which the kubelet has given the pod.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use nsm_kube::definitions::{NETWORK_STATUS, NETWORKS};
use nsm_kube::{Machine, Mesh, SOON, patiently};
use serde_json::{Value, json};

use super::{asking, by_meta_plugin, recorder};

const RESOURCE: &str = "lab.example/nic";
const DEVICES: [&str; 3] = ["0000:07:00.1", "0000:07:00.2", "0000:07:00.3"];

/// Where device plugins describe devices (Device Information Specification 1.1.0, section 4).
const DESCRIPTIONS: &str = "/var/run/k8s.cni.cncf.io/devinfo";

pub(crate) fn each_network_has_a_device_of_the_pod(mesh: &mut Mesh) -> anyhow::Result<()> {
    recorder::install(mesh.machine(0)?)?;
    let _devices = mesh.machine(0)?.offer(RESOURCE, &DEVICES)?;
    for device in DEVICES {
        let file = format!("{DESCRIPTIONS}/dp/lab.example-nic-{device}-device.json");
        mesh.machine(0)?.place().write(&file, &description(device).to_string())?;
    }
    by_meta_plugin(mesh, 0, "devices", &json!({}), |mesh| pods(mesh).and_then(|()| of_a_running_pod(mesh)))?;
    let left = mesh.machine(0)?.place().list(&format!("{DESCRIPTIONS}/cni"))?;
    ensure!(left.is_empty(), "descriptions of devices that are no pod's: {left:?}");
    Ok(())
}

fn description(device: &str) -> Value {
    json!({ "type": "pci", "version": "1.1.0", "pci": { "pci-address": device } })
}

/// The devices that a pod's status describes, each once; none where it is about anything else.
fn described_in(pod: &Value) -> Option<BTreeSet<&'static str>> {
    let text = pod["metadata"]["annotations"][NETWORK_STATUS].as_str()?;
    let all: Vec<Value> = serde_json::from_str(text).ok()?;
    let entries = all.iter().filter(|entry| entry["default"] != true);
    let device = |entry: &Value| {
        let found = DEVICES.into_iter().find(|device| entry["device-info"] == description(device));
        found.filter(|_| entry["name"] == "devices/nic")
    };
    let devices = entries.map(device).collect::<Option<Vec<_>>>()?;
    let each: BTreeSet<&str> = devices.iter().copied().collect();
    (each.len() == devices.len()).then_some(each)
}

/// Networks that a pod gets later have other devices than those that it has, and its status describes them too.
fn of_a_running_pod(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let [one, two, three] = DEVICES;
    mesh.create(&with_devices(machine, "grows", DEVICES.len(), "nic"))?;
    mesh.running("devices", "grows")?;
    recorder::install(machine)?;
    let edits = [
        ("nic,nic@more0,nic@more1", vec![one, two, three]),
        ("nic,nic@more1", vec![one, three]),
        ("nic,nic@more1,nic@more2", vec![one, two, three]),
    ];
    for (value, expected) in edits {
        let annotation = format!("{NETWORKS}={value}");
        mesh.kubectl(&["-n", "devices", "annotate", "--overwrite", "pod", "grows", &annotation])?;
        let expected = Some(expected.into_iter().collect());
        let look = || Ok(described_in(&mesh.pod("devices", "grows")?));
        patiently("devices in the pod's status", SOON, look, |found| *found == expected)?;
    }
    let calls = recorder::calls(machine)?;
    let added = calls.iter().filter_map(|(what, conf)| Some((what.strip_prefix("ADD ")?, conf["deviceID"].as_str()?)));
    let added: Vec<(&str, &str)> = added.collect();
    ensure!(added == [("more0", two), ("more1", three), ("more2", two)], "{added:?}");
    mesh.delete("devices", &["grows"])?;
    mesh.gone("devices", &["grows"])
}

fn with_devices(machine: &Machine, name: &str, count: usize, networks: &str) -> Value {
    let mut pod = asking("devices", name, machine, networks);
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { RESOURCE: count.to_string() } });
    pod
}

fn pods(mesh: &Mesh) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let nic = json!({ "cniVersion": "1.0.0", "type": "recorder", "capabilities": { "deviceID": true } });
    mesh.define("devices", &[("nic", nic)])?;
    let resource = format!("k8s.v1.cni.cncf.io/resourceName={RESOURCE}");
    mesh.kubectl(&["-n", "devices", "annotate", "net-attach-def", "nic", &resource])?;
    let path = format!("/api/v1/nodes/{}", machine.name());
    let offered = |node: &Value| node["status"]["allocatable"][RESOURCE] == *DEVICES.len().to_string();
    patiently("the node's devices", SOON, || mesh.cluster().get(&path), offered)?;
    mesh.create(&with_devices(machine, "two", 2, "nic,nic"))?;
    mesh.running("devices", "two")?;
    mesh.create(&with_devices(machine, "short", 1, "nic,nic"))?;
    let told =
        |events: &Vec<String>| events.iter().any(|event| event.contains(RESOURCE) && event.contains("devices/nic"));
    patiently("an event that names the resource", SOON, || mesh.events("devices", "short"), told)?;
    let look = || Ok(described_in(&mesh.pod("devices", "two")?));
    let described = patiently("devices in the pod's status", SOON, look, Option::is_some)?.context("just seen")?;
    mesh.delete("devices", &["two", "short"])?;
    mesh.gone("devices", &["two", "short"])?;
    let calls = recorder::calls(machine)?;
    let given = |verb: &str| -> anyhow::Result<BTreeSet<(String, String)>> {
        let of = calls.iter().filter_map(|(what, conf)| Some((what.strip_prefix(verb)?, conf)));
        of.map(|(interface, conf)| {
            let device = conf["runtimeConfig"]["deviceID"].as_str().with_context(|| format!("no device in {conf}"))?;
            Ok((interface.to_owned(), device.to_owned()))
        })
        .collect()
    };
    let [added, deleted] = [given("ADD ")?, given("DEL ")?];
    let devices: BTreeSet<&str> = added.iter().map(|(_, device)| device.as_str()).collect();
    ensure!(devices.len() == 2 && devices.iter().all(|device| DEVICES.contains(device)), "{added:?}");
    ensure!(added.len() == 2 && added == deleted, "added {added:?}, deleted {deleted:?}");
    ensure!(described == devices, "the status describes {described:?}, the pod has {devices:?}");
    Ok(())
}
