//! Networks that are made of devices which the kubelet has given the pod.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use nsm_kube::{Machine, Mesh, SOON, patiently};
use serde_json::{Value, json};

use super::{asking, by_meta_plugin, recorder};

const RESOURCE: &str = "lab.example/nic";
const DEVICES: [&str; 3] = ["0000:07:00.1", "0000:07:00.2", "0000:07:00.3"];

pub(crate) fn each_network_has_a_device_of_the_pod(mesh: &mut Mesh) -> anyhow::Result<()> {
    recorder::install(mesh.machine(0)?)?;
    let _devices = mesh.machine(0)?.offer(RESOURCE, &DEVICES)?;
    by_meta_plugin(mesh, 0, "devices", &json!({}), |mesh| pods(mesh))
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
    Ok(())
}
