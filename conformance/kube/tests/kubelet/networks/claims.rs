//! Networks that are made of devices which the pod has by ResourceClaims.

use anyhow::{Context, ensure};
use nsm_kube::{Driver, Machine, Mesh, RESOURCE_API, SOON, patiently};
use serde_json::{Value, json};

use super::{asking, by_meta_plugin, recorder};

const DRIVER: &str = "claims.lab.example";
const RESOURCE: &str = "lab.example/vf";
const NAMESPACE: &str = "claims";

pub(crate) fn each_network_has_a_device_of_a_claim(mesh: &mut Mesh) -> anyhow::Result<()> {
    recorder::install(mesh.machine(0)?)?;
    let text = |text: &str| json!({ "string": text });
    let devices = [
        // As the drivers of networks say it, and as any driver of such a device does.
        (
            "vf-a",
            json!({ "kind": text("vf"), "k8s.cni.cncf.io/resourceName": text(RESOURCE),
                "k8s.cni.cncf.io/deviceID": text("0000:09:00.1") }),
        ),
        (
            "vf-b",
            json!({ "kind": text("vf"), "k8s.cni.cncf.io/resourceName": text(RESOURCE),
                "resource.kubernetes.io/pciBusID": text("0000:09:00.2") }),
        ),
        (
            "vf-c",
            json!({ "kind": text("vf"), "k8s.cni.cncf.io/resourceName": text(RESOURCE),
                "k8s.cni.cncf.io/deviceID": text("0000:09:00.3") }),
        ),
        ("gpu", json!({ "kind": text("gpu"), "resource.kubernetes.io/pciBusID": text("0000:0a:00.0") })),
    ];
    let driver = mesh.serve_claims(0, DRIVER, &devices)?;
    let lived = by_meta_plugin(mesh, 0, NAMESPACE, &json!({}), |mesh| pods(mesh, &driver));
    let ended = patiently("claims that are no pod's", SOON, || Ok(driver.prepared()), Vec::is_empty);
    mesh.forget_claims(0, DRIVER)?;
    lived.and(ended.map(drop))
}

/// A pod with a claim of that kind, which the scheduler gives a device.
fn with_claim(machine: &Machine, name: &str, kind: &str) -> Value {
    let mut pod = asking(NAMESPACE, name, machine, "vf");
    let spec = &mut pod["spec"];
    spec["nodeName"] = Value::Null;
    spec["nodeSelector"] = json!({ "kubernetes.io/hostname": machine.name() });
    spec["resourceClaims"] = json!([{ "name": "device", "resourceClaimTemplateName": kind }]);
    spec["containers"][0]["resources"] = json!({ "claims": [{ "name": "device" }] });
    pod
}

/// A pod for which the scheduler makes a claim: its container has an extended resource, which any device of the driver serves.
fn with_resource(machine: &Machine, name: &str) -> Value {
    let mut pod = with_claim(machine, name, "vf");
    pod["spec"]["resourceClaims"] = json!([]);
    pod["spec"]["containers"][0]["resources"] = json!({ "limits": { format!("{DRIVER}/device"): "1" } });
    pod
}

fn pods(mesh: &Mesh, driver: &Driver) -> anyhow::Result<()> {
    let machine = mesh.machine(0)?;
    let vf = json!({ "cniVersion": "1.0.0", "type": "recorder", "capabilities": { "deviceID": true } });
    mesh.define(NAMESPACE, &[("vf", vf)])?;
    let resource = format!("k8s.v1.cni.cncf.io/resourceName={RESOURCE}");
    mesh.kubectl(&["-n", NAMESPACE, "annotate", "net-attach-def", "vf", &resource])?;
    for kind in ["vf", "gpu"] {
        let is = format!("device.attributes[{DRIVER:?}].kind == {kind:?}");
        let exactly = json!({ "deviceClassName": DRIVER, "selectors": [{ "cel": { "expression": is } }] });
        mesh.kubectl_apply(&json!({
            "apiVersion": RESOURCE_API, "kind": "ResourceClaimTemplate", "metadata": { "name": kind, "namespace": NAMESPACE },
            "spec": { "spec": { "devices": { "requests": [{ "name": "one", "exactly": exactly }] } } },
        }))?;
    }
    for name in ["first", "second"] {
        mesh.create(&with_claim(machine, name, "vf"))?;
        mesh.running(NAMESPACE, name)?;
    }
    // The first that is free.
    mesh.create(&with_resource(machine, "third"))?;
    mesh.running(NAMESPACE, "third")?;
    let claim = mesh.pod(NAMESPACE, "third")?["status"]["extendedResourceClaimStatus"].clone();
    ensure!(claim["resourceClaimName"].is_string(), "no claim of the scheduler's: {claim}");
    ensure!(driver.prepared().len() == 3, "{:?}", driver.prepared());
    mesh.create(&with_claim(machine, "other", "gpu"))?;
    // Pod, claim, request, device, and what would serve.
    let words =
        ["claims/vf", "\"claims/other\"", "other-device-", "\"one\"", "\"gpu\"", DRIVER, "resourceName", RESOURCE];
    let told = |events: &Vec<String>| events.iter().any(|event| words.iter().all(|word| event.contains(word)));
    patiently("an event that names what is missing", SOON, || mesh.events(NAMESPACE, "other"), told)?;
    let names = ["first", "second", "third", "other"];
    mesh.delete(NAMESPACE, &names)?;
    mesh.gone(NAMESPACE, &names)?;
    let calls = recorder::calls(machine)?;
    let given = |verb: &str| -> anyhow::Result<Vec<String>> {
        let of = calls.iter().filter(|(what, _)| what == verb).map(|(_, conf)| {
            let device = conf["runtimeConfig"]["deviceID"].as_str().with_context(|| format!("no device in {conf}"))?;
            ensure!(conf["deviceID"] == device && conf["pciBusID"] == device, "{conf}");
            Ok(device.to_owned())
        });
        let mut all = of.collect::<anyhow::Result<Vec<_>>>()?;
        all.sort();
        Ok(all)
    };
    let [added, deleted] = [given("ADD net1")?, given("DEL net1")?];
    ensure!(
        added == ["0000:09:00.1", "0000:09:00.2", "0000:09:00.3"] && added == deleted,
        "added {added:?}, deleted {deleted:?}"
    );
    Ok(())
}
