//! Multus as a daemon with its shim, which writes the runtime's configuration itself, as its DaemonSet has it.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use nsm_kube::{BIN_DIR, CONF_DIR, Image, Mesh, Traces, is, patiently, tool};
use serde_json::{Value, json};

use super::lived::Called;
use super::{Node, OLD, ONE, PLAIN, TWO, is_told};

const IMAGE: &str = "docker.io/local/multus-daemon:1";
const SET: &str = "kube-multus-ds";
/// What the daemon writes, and removes when it ends.
const THEIRS: &str = "00-multus.conf";
const COPY: &str = "00-multus-nsm.conf";
/// For a daemon to come or go.
const ROLLED: Duration = Duration::from_mins(2);

pub(crate) fn from_the_daemon_and_back(mesh: &mut Mesh) -> anyhow::Result<()> {
    mesh.namespace("thick", &Value::Null)?;
    let node = Node { mesh, at: 1, namespace: "thick" };
    let machine = node.machine()?;
    let before = Traces::of(machine)?;
    node.define()?;
    let archive = machine.place().dir().join("multus-daemon.tar");
    image(&archive)?;
    machine.import(&[archive])?;
    machine.add_plugin("multus-shim")?;
    node.shell(&format!("mkdir -p /opt/multus && cp {BIN_DIR}/multus-shim /opt/multus/multus-shim"))?;
    let created = deploy(mesh);
    let lived = created.and_then(|()| there_and_back(&node));
    let logs =
        lived.is_err().then(|| node.mesh.kubectl(&["-n", "kube-system", "logs", "-l", "name=multus", "--tail=30"]));
    if lived.is_err() {
        node.open().ok();
        // Pods that the daemon made do not end without it.
        node.mesh.kubectl(&["-n", node.namespace, "delete", "pods", "--all", "--timeout=60s"]).ok();
    }
    let removed = undeploy(&node);
    lived.map_err(|error| error.context(format!("the daemon said {logs:?}")))?;
    removed?;
    before.remain(machine)
}

/// The daemon in a container, where its user has a home and `/var/run` is `/run`.
fn image(to: &Path) -> anyhow::Result<()> {
    Image::running(&["/bin/multus-daemon"])
        .with("bin/multus-daemon", &tool("multus-daemon")?)
        .linking("var/run", "/run")
        .save(IMAGE, to)
}

/// What its manifest has, on nodes with a label.
fn deploy(mesh: &Mesh) -> anyhow::Result<()> {
    let metadata = |name: &str| json!({ "name": name, "namespace": "kube-system" });
    let config = json!({
        "chrootDir": "/hostroot", "cniVersion": "1.0.0", "logLevel": "verbose", "logToStderr": true,
        "cniConfigDir": "/host/etc/cni/net.d", "multusAutoconfigDir": "/host/etc/cni/net.d", "multusConfigFile": "auto",
        "socketDir": "/host/run/multus/",
    });
    let mounts = [
        ("cni", "/etc/cni/net.d", "/host/etc/cni/net.d", None),
        ("cnibin", "/opt/cni/bin", "/opt/cni/bin", None),
        ("run", "/run", "/host/run", None),
        ("records", "/var/lib/cni/multus", "/var/lib/cni/multus", None),
        ("kubelet", "/var/lib/kubelet", "/var/lib/kubelet", Some("HostToContainer")),
        ("netns", "/run/netns", "/run/netns", Some("HostToContainer")),
        ("root", "/", "/hostroot", Some("HostToContainer")),
    ];
    let mut volumes: Vec<Value> = mounts
        .iter()
        .map(|(name, path, ..)| json!({ "name": name, "hostPath": { "path": path, "type": "DirectoryOrCreate" } }))
        .collect();
    volumes.push(json!({ "name": "config", "configMap": { "name": "multus-daemon-config" } }));
    let mut inside: Vec<Value> = mounts
        .iter()
        .map(|(name, _, to, how)| json!({ "name": name, "mountPath": to, "mountPropagation": how }))
        .collect();
    inside.push(json!({ "name": "config", "mountPath": "/etc/cni/net.d/multus.d", "readOnly": true }));
    let env = |name: &str, value: &str| json!({ "name": name, "value": value });
    let container = json!({
        "name": "kube-multus", "image": IMAGE, "imagePullPolicy": "Never", "securityContext": { "privileged": true },
        "volumeMounts": inside,
        "env": [
            env("USER", "root"), env("HOME", "/root"),
            { "name": "MULTUS_NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } },
        ],
    });
    let objects = [
        json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata("multus") }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "multus" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin" },
            "subjects": [{ "kind": "ServiceAccount", "name": "multus", "namespace": "kube-system" }],
        }),
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata("multus-daemon-config"),
            "data": { "daemon-config.json": config.to_string() } }),
        json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata(SET),
            "spec": {
                "selector": { "matchLabels": { "name": "multus" } },
                "template": {
                    "metadata": { "labels": { "name": "multus" } },
                    "spec": {
                        "nodeSelector": { "multus": "on" }, "hostNetwork": true, "hostPID": true,
                        "tolerations": [{ "operator": "Exists" }], "serviceAccountName": "multus",
                        "terminationGracePeriodSeconds": 10, "containers": [container], "volumes": volumes,
                    },
                },
            },
        }),
    ];
    objects.iter().try_for_each(|object| mesh.kubectl_apply(object).map(drop))
}

/// Its daemon runs and has written the configuration.
fn let_in(node: &Node<'_>) -> anyhow::Result<()> {
    let machine = node.machine()?;
    node.mesh.kubectl(&["label", "--overwrite", "node", machine.name(), "multus=on"])?;
    let ready = || {
        let pods = node.mesh.pods("kube-system")?;
        let runs = pods.iter().any(|pod| pod["metadata"]["labels"]["name"] == "multus" && is(pod, "Ready"));
        Ok((runs, machine.place().list(CONF_DIR)?))
    };
    patiently("Multus's daemon", ROLLED, ready, |(runs, files)| *runs && files.iter().any(|file| file == THEIRS))
        .map(drop)
}

/// Keeps the DaemonSet from the node: its daemon ends, and takes its configuration away.
fn keep_off(node: &Node<'_>) -> anyhow::Result<()> {
    node.mesh.kubectl(&["label", "node", node.machine()?.name(), "multus-"])?;
    patiently("end of Multus's daemon", ROLLED, || Ok(node.mesh.pods("kube-system")?.len()), |count| *count == 0)
        .map(drop)
}

fn undeploy(node: &Node<'_>) -> anyhow::Result<()> {
    let machine = node.machine()?;
    let delete = |what: &[&str]| {
        let command = ["-n", "kube-system", "delete", "--ignore-not-found"];
        node.mesh.kubectl(&command.iter().chain(what).copied().collect::<Vec<_>>()).map(drop)
    };
    delete(&["daemonset", SET])?;
    delete(&["clusterrolebinding", "multus"])?;
    delete(&["serviceaccount", "multus"])?;
    delete(&["configmap", "multus-daemon-config"])?;
    // Fails where it has gone.
    node.mesh.kubectl(&["label", "node", machine.name(), "multus-"]).ok();
    patiently("end of Multus's daemon", ROLLED, || Ok(node.mesh.pods("kube-system")?.len()), |count| *count == 0)?;
    machine.ctr(&["images", "rm", IMAGE])?;
    for file in machine.place().list(CONF_DIR)?.iter().filter(|file| [THEIRS, COPY].contains(&file.as_str())) {
        machine.unconfigure(file)?;
    }
    Ok(())
}

/// The copy of the configuration that stays when the daemon has gone.
fn copy(node: &Node<'_>) -> anyhow::Result<()> {
    node.shell(&format!("cd {CONF_DIR} && cp -p {THEIRS} {COPY}.new && mv {COPY}.new {COPY}")).map(drop)
}

fn there_and_back(node: &Node<'_>) -> anyhow::Result<()> {
    let_in(node)?;
    let all = [&PLAIN, &ONE, &TWO, &OLD];
    node.make(&all)?;
    node.exact(&all)?;
    let found = node.findings()?;
    let theirs = format!("{CONF_DIR}/{THEIRS}");
    is_told(&found, "warning", "configuration of Multus's daemon", &["removes", &theirs, COPY])?;
    is_told(&found, "error", "definitions", &["thick/reaching", "ipam.kubernetes.kubeconfig", "ipam.log_file"])?;
    is_told(&found, "ok", "records", &["4 pods of Multus's"])?;
    let called = Called { plugin: "multus-shim", configuration: COPY };
    node.without_loss(|| {
        copy(node)?;
        node.replace("multus-shim", &format!("{BIN_DIR}/nsm-cni"))?;
        keep_off(node)
    })?;
    let files = node.machine()?.place().list(CONF_DIR)?;
    ensure!(!files.contains(&THEIRS.to_owned()), "the daemon leaves its configuration: {files:?}");
    node.exact(&all)?;
    node.ends_those_of_multus(&called)?;
    node.drained()?;
    node.replace("multus-shim", "/opt/multus/multus-shim")?;
    node.machine()?.unconfigure(COPY)?;
    let_in(node)?;
    node.is_back()?;
    copy(node)?;
    node.replace("multus-shim", &format!("{BIN_DIR}/nsm-cni"))?;
    keep_off(node)?;
    node.ends_the_last()
}
