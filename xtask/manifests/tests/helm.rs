//! What Helm makes of the chart. Suite `helm`, which has Helm built.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The objects of a text by kind and name: Helm has an order of its own.
fn objects(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}: {yaml}"));
    let mut objects: Vec<Value> = documents.into_iter().filter(|document| !document.is_null()).collect();
    objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    objects
}

fn helm(args: &[&str]) -> String {
    let tools = std::env::var_os("NSM_LAB_TOOLS").expect("NSM_LAB_TOOLS: cargo xtask test helm sets it");
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(Path::new(&tools).join("helm"));
    command.args(args).current_dir(root()).env("HOME", home.path());
    for variable in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(variable, home.path());
    }
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "helm {args:?}: {said}");
    String::from_utf8(done.stdout).unwrap()
}

/// A Helm that is not of a release takes a cluster without a version for one of 2020.
const KUBERNETES: &str = "--kube-version=1.34.0";

fn template(args: &[&str]) -> Vec<Value> {
    let fixed = ["template", "nsm", "deploy/chart", "--namespace", "nsm-system", KUBERNETES];
    objects(&helm(&[&fixed, args].concat()))
}

/// What the agent's pods are.
fn pod(objects: &[Value]) -> &Value {
    let set = objects.iter().find(|object| object["kind"] == "DaemonSet").expect("no DaemonSet");
    &set["spec"]["template"]["spec"]
}

fn arguments(objects: &[Value]) -> Vec<String> {
    let args = pod(objects)["containers"][0]["args"].as_array().unwrap();
    args.iter().map(|arg| arg.as_str().unwrap().to_owned()).collect()
}

#[test]
fn helm_renders_the_manifest() {
    let mut manifest = objects(&fs::read_to_string(root().join("deploy/nsm.yaml")).unwrap());
    // A release's namespace is its user's to make.
    manifest.retain(|object| object["kind"] != "Namespace");
    let rendered = template(&[]);
    assert_eq!(rendered.len(), manifest.len());
    for (rendered, written) in rendered.iter().zip(&manifest) {
        assert_eq!(rendered, written, "{} {}", written["kind"], written["metadata"]["name"]);
    }
    let crds = objects(&fs::read_to_string(root().join("deploy/crds.yaml")).unwrap());
    let mut all = template(&["--include-crds"]);
    all.retain(|object| object["kind"] == "CustomResourceDefinition");
    assert_eq!(all, crds);
}

#[test]
fn values_become_what_they_say() {
    let set = "agent.serviceAccess=own-namespace,agent.excludedPrefixes={192.0.2.0/24,2001:db8::/32},\
               agent.extraArgs={--log-format=json},agent.clusterName=east,admissionPolicy=false";
    let rendered = template(&["--set", set]);
    let arguments = arguments(&rendered);
    for flag in [
        "--service-access=own-namespace",
        "--excluded-prefix=192.0.2.0/24,2001:db8::/32",
        "--log-format=json",
        "--cluster-name=east",
    ] {
        assert!(arguments.iter().any(|argument| argument == flag), "{flag}: {arguments:?}");
    }
    assert!(rendered.iter().all(|object| object["kind"] != "ValidatingAdmissionPolicy"));
}

/// Nothing comes in the place of the host's processes, and nothing else goes with them: no capability is there for them alone.
#[test]
fn without_the_hosts_processes() {
    let mut with = template(&[]);
    let without = template(&["--set", "hostPID=false"]);
    assert_eq!(pod(&with)["hostPID"], true);
    for field in ["hostPID", "hostIPC", "shareProcessNamespace"] {
        assert!(pod(&without).get(field).is_none(), "{field} in {}", pod(&without));
    }
    let added = &pod(&without)["containers"][0]["securityContext"]["capabilities"];
    assert_eq!(added["drop"], serde_json::json!(["ALL"]));
    for of_processes in ["SYS_PTRACE", "KILL"] {
        assert!(!added["add"].as_array().unwrap().contains(&of_processes.into()), "{added}");
    }
    let set = with.iter_mut().find(|object| object["kind"] == "DaemonSet").unwrap();
    set["spec"]["template"]["spec"].as_object_mut().unwrap().remove("hostPID");
    assert_eq!(with, without);
}

/// The door to the host is there when it is asked for, and nothing else changes.
#[test]
fn networks_of_running_pods() {
    let without = template(&[]);
    let mut with = template(&["--set", "runningPodNetworks=true"]);
    let flag = "--host-mount-namespace=/proc/1/ns/mnt";
    let has_flag = |objects: &[Value]| arguments(objects).iter().any(|argument| argument == flag);
    assert!(has_flag(&with) && !has_flag(&without));
    let set = with.iter_mut().find(|object| object["kind"] == "DaemonSet").unwrap();
    let container = &mut set["spec"]["template"]["spec"]["containers"][0];
    container["args"].as_array_mut().unwrap().retain(|argument| argument != flag);
    let added = container["securityContext"]["capabilities"]["add"].as_array_mut().unwrap();
    let before = added.len();
    added.retain(|capability| capability != "SYS_PTRACE" && capability != "SYS_CHROOT");
    assert_eq!(before, added.len() + 2);
    assert_eq!(with, without);
}

#[test]
fn every_file_of_values_is_taken() {
    let mut seen = 0;
    for entry in fs::read_dir(root().join("deploy/chart")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if !name.starts_with("values-") {
            continue;
        }
        let file = format!("deploy/chart/{name}");
        let values: Value = serde_saphyr::from_str(&fs::read_to_string(root().join(&file)).unwrap()).unwrap();
        let rendered = template(&["-f", &file]);
        let expected = format!("--install-plugin={}", values["cni"]["binDir"].as_str().unwrap());
        assert!(arguments(&rendered).contains(&expected), "{name}");
        let bound = rendered.iter().any(|object| object["roleRef"]["name"] == "system:openshift:scc:privileged");
        assert_eq!(bound, values["openshift"] == true, "{name}");
        seen += 1;
    }
    assert!(seen >= 2);
    helm(&["lint", "--strict", KUBERNETES, "deploy/chart"]);
}
