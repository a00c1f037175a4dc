//! A whole cluster: control plane, controllers, machines; and what a user does with it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nsm_lab::{Namespace, Program, eventually_at};
use serde_json::{Value, json};

use crate::claims::EXTENDED_RESOURCES;
use crate::cluster::{Audience, Cluster, command};
use crate::images;
use crate::machine::Machine;
use crate::runtime::{CONF_DIR, Release};

/// For what a busy machine does with a pod.
pub const SOON: Duration = Duration::from_mins(1);
/// Between two looks at the API server.
const PAUSE: Duration = Duration::from_millis(40);

/// Namespaces that scenarios share.
const KEPT: [&str; 5] = ["default", "kube-system", "kube-public", "kube-node-lease", "nsm-system"];

/// A cluster with machines.
pub struct Mesh {
    // In the order in which they end.
    machines: Vec<Machine>,
    _controllers: Vec<Program>,
    cluster: Cluster,
    images: Vec<PathBuf>,
    lab: String,
}

/// Looks until `condition` says yes, at a pace that leaves an API server time for others.
pub fn patiently<T: std::fmt::Debug>(
    what: &str,
    bound: Duration,
    look: impl FnMut() -> anyhow::Result<T>,
    condition: impl Fn(&T) -> bool,
) -> anyhow::Result<T> {
    eventually_at(PAUSE, what, bound, look, condition)
}

impl Mesh {
    /// The control plane, with nothing of ours in it. `lab` names the control groups.
    pub fn start(lab: &str) -> anyhow::Result<Self> {
        let cluster = Cluster::empty(Audience::Machines)?;
        let file = |name: &str| cluster.file(name).display().to_string();
        let mut manager = command(&nsm_peers::tools::tool("kube-controller-manager")?);
        manager.args([
            format!("--kubeconfig={}", file("manager.conf")),
            format!("--service-account-private-key-file={}", file("accounts.key")),
            format!("--root-ca-file={}", file("tls.crt")),
            format!("--cert-dir={}", file("manager")),
            "--use-service-account-credentials=true".to_owned(),
            "--leader-elect=false".to_owned(),
            format!("--feature-gates={EXTENDED_RESOURCES}=true"),
        ]);
        let mut scheduler = command(&nsm_peers::tools::tool("kube-scheduler")?);
        scheduler.args([
            format!("--kubeconfig={}", file("scheduler.conf")),
            format!("--cert-dir={}", file("scheduler")),
            "--leader-elect=false".to_owned(),
            format!("--feature-gates={EXTENDED_RESOURCES}=true"),
        ]);
        let start = |name: &str, command: &mut Command| {
            Program::start(name, command, cluster.namespace(), &cluster.file(&format!("{name}.log")))
        };
        let controllers = vec![start("manager", &mut manager)?, start("scheduler", &mut scheduler)?];
        let images = images::basic(&cluster.file(""))?;
        Ok(Self { machines: Vec::new(), _controllers: controllers, cluster, images, lab: lab.to_owned() })
    }

    /// Adds a machine with a plain first network and waits until it is ready.
    pub fn add(&mut self, release: Release) -> anyhow::Result<&mut Machine> {
        let number = u8::try_from(self.machines.len() + 1)?;
        let mut machine = Machine::create(&self.cluster, number, &self.lab, release)?;
        machine.place().write(&format!("{CONF_DIR}/10-first.conflist"), &machine.first_network().to_string())?;
        machine.start_runtime()?;
        machine.import(&self.images)?;
        machine.start_kubelet()?;
        self.machines.push(machine);
        let machine = self.machines.last().context("just added")?;
        self.ready(machine.name()).with_context(|| machine.logs(40))?;
        self.machines.last_mut().context("just added")
    }

    /// Waits until a machine takes pods.
    pub fn ready(&self, machine: &str) -> anyhow::Result<()> {
        let path = format!("/api/v1/nodes/{machine}");
        patiently("a ready node", SOON, || self.cluster.get(&path), |node| is(node, "Ready")).map(drop)
    }

    /// The API server.
    pub const fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The same, to stop and start it.
    pub const fn cluster_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    /// A machine, by its place in the order of [`Mesh::add`].
    pub fn machine(&self, at: usize) -> anyhow::Result<&Machine> {
        self.machines.get(at).with_context(|| format!("no machine {at}"))
    }

    /// The same, to stop and start its programs.
    pub fn machine_mut(&mut self, at: usize) -> anyhow::Result<&mut Machine> {
        self.machines.get_mut(at).with_context(|| format!("no machine {at}"))
    }

    /// How many machines there are.
    pub fn len(&self) -> usize {
        self.machines.len()
    }

    /// Whether there is no machine.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// `kubectl`, as an administrator; its standard output.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = command(&nsm_peers::tools::tool("kubectl")?);
        command.env("KUBECONFIG", self.cluster.file("admin.conf")).args(args);
        let output = self.cluster.namespace().run(|| command.output())?.context("kubectl")?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), error.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `kubectl apply` of an object, of any kind.
    pub fn kubectl_apply(&self, object: &Value) -> anyhow::Result<String> {
        let file = self.cluster.file("apply.json");
        std::fs::write(&file, object.to_string())?;
        self.kubectl(&["apply", "-f", &file.display().to_string()])
    }

    /// A namespace in which pods can be made.
    pub fn namespace(&self, name: &str, annotations: &Value) -> anyhow::Result<()> {
        let metadata = json!({ "name": name, "annotations": annotations });
        self.create(&json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata }))?;
        let account = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        patiently("an account for pods", SOON, || self.cluster.get(&account), Value::is_object).map(drop)
    }

    /// Creates an object.
    pub fn create(&self, object: &Value) -> anyhow::Result<Value> {
        self.cluster.create(object)?.map_err(anyhow::Error::msg)
    }

    /// A pod as it is.
    pub fn pod(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        self.cluster.get(&path(namespace, name))
    }

    /// All pods of a namespace.
    pub fn pods(&self, namespace: &str) -> anyhow::Result<Vec<Value>> {
        self.cluster.items(&format!("/api/v1/namespaces/{namespace}/pods"))
    }

    /// Waits until a pod is ready.
    pub fn running(&self, namespace: &str, name: &str) -> anyhow::Result<Value> {
        let what = format!("pod {namespace}/{name} ready");
        let ready = patiently(&what, SOON, || self.pod(namespace, name), |pod| is(pod, "Ready"));
        ready.with_context(|| self.events(namespace, name).unwrap_or_default().join("\n"))
    }

    /// Deletes pods at once, without waiting for them.
    pub fn delete(&self, namespace: &str, names: &[&str]) -> anyhow::Result<()> {
        names.iter().try_for_each(|name| {
            let path = format!("{}?gracePeriodSeconds=1", path(namespace, name));
            self.cluster.call("DELETE", &path, &Value::Null)?.map(drop).map_err(anyhow::Error::msg)
        })
    }

    /// Waits until a namespace has no pod of these.
    pub fn gone(&self, namespace: &str, names: &[&str]) -> anyhow::Result<()> {
        let left = || {
            let pods = self.pods(namespace)?;
            let names =
                pods.iter().filter_map(|pod| pod["metadata"]["name"].as_str()).filter(|pod| names.contains(pod));
            Ok(names.map(str::to_owned).collect::<Vec<_>>())
        };
        patiently("pods gone", SOON, left, Vec::is_empty).map(drop)
    }

    /// Deletes every pod and every namespace but the cluster's own.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        let names = |list: Vec<Value>| -> Vec<String> {
            list.iter().filter_map(|item| item["metadata"]["name"].as_str().map(str::to_owned)).collect()
        };
        let made = || {
            let mut namespaces = names(self.cluster.items("/api/v1/namespaces")?);
            namespaces.retain(|name| !KEPT.contains(&name.as_str()));
            Ok(namespaces)
        };
        for namespace in made()? {
            for pod in names(self.pods(&namespace)?) {
                self.delete(&namespace, &[&pod]).ok();
            }
            self.cluster.delete(&format!("/api/v1/namespaces/{namespace}")).ok();
        }
        patiently("namespaces of the scenario gone", SOON, made, Vec::is_empty).map(drop)
    }

    /// The ends of all programs' logs.
    pub(crate) fn logs(&self) -> String {
        self.machines.iter().map(|machine| machine.logs(25)).collect()
    }

    /// `reason: message` of a pod's events.
    pub fn events(&self, namespace: &str, name: &str) -> anyhow::Result<Vec<String>> {
        let events = self.cluster.items(&format!("/api/v1/namespaces/{namespace}/events"))?;
        let of = |event: &&Value| event["involvedObject"]["name"] == name || event["regarding"]["name"] == name;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let line = |event: &Value| {
            let note = if event["message"].is_null() { &event["note"] } else { &event["message"] };
            format!("{}: {}", text(&event["reason"]), text(note))
        };
        Ok(events.iter().filter(of).map(line).collect())
    }

    /// The network of a running pod of a machine.
    pub fn network_of(&self, machine: &Machine, namespace: &str, name: &str) -> anyhow::Result<Namespace> {
        Namespace::of_process(name, self.process_of(machine, namespace, name)?)
    }

    /// The process that holds a pod's sandbox.
    pub fn process_of(&self, machine: &Machine, namespace: &str, name: &str) -> anyhow::Result<u32> {
        Ok(sandbox_of(machine, namespace, name)?.1)
    }
}

/// The container id of a pod's running sandbox, and its process.
pub fn sandbox_of(machine: &Machine, namespace: &str, name: &str) -> anyhow::Result<(String, u32)> {
    let label = |key: &str, value: &str| format!("labels.\"{key}\"=={value}");
    let filter = [
        label("io.cri-containerd.kind", "sandbox"),
        label("io.kubernetes.pod.name", name),
        label("io.kubernetes.pod.namespace", namespace),
    ]
    .join(",");
    // Those of earlier attempts stay for a while.
    let made = machine.ctr(&["containers", "ls", "-q", &filter])?;
    let tasks = machine.ctr(&["tasks", "ls"])?;
    let running = tasks.lines().filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, pid, "RUNNING"] = words[..] else { return None };
        made.split_whitespace().any(|made| made == id).then_some((id, pid))
    });
    match running.collect::<Vec<_>>()[..] {
        [(id, pid)] => Ok((id.to_owned(), pid.parse()?)),
        _ => bail!("expected one running sandbox of {namespace}/{name}, of {made:?}:\n{tasks}"),
    }
}

/// A pod of one busybox that idles on a machine until it is told to end.
pub fn idle(namespace: &str, name: &str, machine: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "nodeName": machine, "terminationGracePeriodSeconds": 1, "automountServiceAccountToken": false,
            "containers": [{ "name": "main", "image": images::BUSYBOX, "imagePullPolicy": "Never" }],
        },
    })
}

/// Whether a pod or node has a condition.
pub fn is(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().any(|of| of["type"] == condition && of["status"] == "True")
}

fn path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}
