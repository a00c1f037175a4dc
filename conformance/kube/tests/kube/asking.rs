//! Pods as objects, and their sandboxes as the kubelet and a runtime would make them.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Call, Node, Outcome, Pod, eventually};
use serde_json::{Map, Value, json};

/// The annotation that the tests use.
pub(crate) const ANNOTATION: &str = "networkservicemesh.io";

/// A pod that may ask for network services.
pub(crate) struct Asking<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    pub(crate) sandbox: Pod,
    pub(crate) name: String,
    /// As the runtime has it.
    pub(crate) uid: String,
    namespace: &'static str,
}

/// An interface, as far as its being touched shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) received: u64,
}

impl Link {
    /// Whether it can be the one of before: packets are counted on.
    pub(crate) fn continues(&self, before: &Self) -> bool {
        self.index == before.index && self.received >= before.received
    }
}

impl<'a> Asking<'a> {
    /// The object, and a network namespace without any call of the plugin yet.
    pub(crate) fn create(
        cluster: &'a Cluster,
        node: &'a Node,
        namespace: &'static str,
        name: &str,
        asks: Option<&str>,
    ) -> anyhow::Result<Self> {
        let annotations: Map<String, Value> =
            asks.map(|asks| (ANNOTATION.to_owned(), asks.into())).into_iter().collect();
        Self::annotated(cluster, node, namespace, name, &annotations)
    }

    /// The same with all annotations.
    pub(crate) fn annotated(
        cluster: &'a Cluster,
        node: &'a Node,
        namespace: &'static str,
        name: &str,
        annotations: &Map<String, Value>,
    ) -> anyhow::Result<Self> {
        let hash = annotations.get("kubernetes.io/config.hash").and_then(Value::as_str).map(str::to_owned);
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "annotations": annotations },
            "spec": { "nodeName": node.name(), "containers": [{ "name": "c", "image": "none" }] },
        });
        let made = cluster.create(&object)?.map_err(anyhow::Error::msg)?;
        let uid = made["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        let (name, uid) = (name.to_owned(), hash.unwrap_or(uid));
        Ok(Self { cluster, node, sandbox: node.pod(&name)?, name, uid, namespace })
    }

    /// A pod that there is, with its sandbox.
    pub(crate) fn again(
        cluster: &'a Cluster,
        node: &'a Node,
        namespace: &'static str,
        name: &str,
        sandbox: Pod,
    ) -> anyhow::Result<Self> {
        let object = cluster.get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))?;
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        Ok(Self { cluster, node, sandbox, name: name.to_owned(), uid, namespace })
    }

    fn conf(&self, annotations: Option<&Value>) -> Value {
        let mut conf = json!({
            "cniVersion": "1.0.0", "name": "cluster", "type": "nsm-cni", "cniSocket": self.node.cni_socket(),
            "capabilities": { "io.kubernetes.cri.pod-annotations": true },
            "prevResult": { "cniVersion": "1.0.0", "interfaces": [], "ips": [] },
        });
        if let Some(annotations) = annotations {
            conf["runtimeConfig"] = json!({ "io.kubernetes.cri.pod-annotations": annotations });
        }
        conf
    }

    fn call(&self, command: &'static str, conf: &Value) -> anyhow::Result<Outcome> {
        let (namespace, name, uid) = (self.namespace, &self.name, &self.uid);
        let args = format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_UID={uid}");
        let netns = Some(self.sandbox.namespace().path().to_owned());
        let (container, stdin) = (self.sandbox.container(), conf.to_string());
        self.node.cni().call(&Call { command, container, netns, ifname: "eth0", args: &args, stdin })
    }

    /// ADD by a runtime that gives the annotations of the pod as they are.
    pub(crate) fn add(&self) -> anyhow::Result<Outcome> {
        self.add_with(&self.object()?["metadata"]["annotations"])
    }

    /// ADD by a runtime that gives these annotations.
    pub(crate) fn add_with(&self, annotations: &Value) -> anyhow::Result<Outcome> {
        self.call("ADD", &self.conf(Some(annotations)))
    }

    /// ADD by a runtime that gives none.
    pub(crate) fn add_without_word(&self) -> anyhow::Result<Outcome> {
        self.call("ADD", &self.conf(None))
    }

    /// DEL.
    pub(crate) fn del(&self) -> anyhow::Result<Outcome> {
        self.call("DEL", &self.conf(Some(&Value::Null)))
    }

    /// Where the object is.
    pub(crate) fn path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods/{}", self.namespace, self.name)
    }

    /// The object.
    pub(crate) fn object(&self) -> anyhow::Result<Value> {
        self.cluster.get(&self.path())
    }

    /// Edits the annotation.
    pub(crate) fn edit(&self, asks: Option<&str>) -> anyhow::Result<()> {
        self.cluster.patch(&self.path(), &json!({ "metadata": { "annotations": { ANNOTATION: asks } } })).map(drop)
    }

    /// What an annotation holds, read as JSON; null when there is none.
    pub(crate) fn told(&self, annotation: &str) -> anyhow::Result<Value> {
        match self.object()?["metadata"]["annotations"][annotation].as_str() {
            Some(text) => Ok(serde_json::from_str(text)?),
            None => Ok(Value::Null),
        }
    }

    /// Interfaces and states of the status, in order.
    pub(crate) fn status(&self) -> anyhow::Result<Vec<String>> {
        let status = self.told("networkservicemesh.io/status")?;
        let one = |one: &Value| {
            let text = |key: &str| one[key].as_str().unwrap_or_default();
            format!("{} {} {}", text("interface"), text("service"), text("state"))
        };
        Ok(status.as_array().map(|all| all.iter().map(one).collect()).unwrap_or_default())
    }

    /// Whether the sandbox has an interface.
    pub(crate) fn has(&self, interface: &str) -> anyhow::Result<bool> {
        Ok(self.link(interface)?.is_some())
    }

    /// An interface of the sandbox.
    pub(crate) fn link(&self, interface: &str) -> anyhow::Result<Option<Link>> {
        // This thread's, wherever /sys was mounted from.
        let counters = self.sandbox.namespace().run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
        let line = counters.lines().find_map(|line| line.trim_start().strip_prefix(&format!("{interface}:")));
        let Some(line) = line else { return Ok(None) };
        let received = line.split_whitespace().nth(1).context("packets")?.parse()?;
        let name = std::ffi::CString::new(interface)?;
        let index = self.sandbox.namespace().run(move || nix::net::if_::if_nametoindex(name.as_c_str()))??;
        Ok(Some(Link { index, received }))
    }

    /// Whether an interface is still the one of before.
    pub(crate) fn kept(&self, interface: &str, before: &Link) -> anyhow::Result<bool> {
        Ok(self.link(interface)?.is_some_and(|link| link.continues(before)))
    }

    /// Waits for the interfaces of the sandbox to be there, or not; answers how long it took.
    pub(crate) fn waits_for(&self, interface: &str, there: bool, bound: Duration) -> anyhow::Result<Duration> {
        let began = Instant::now();
        eventually(&format!("{interface} of {}", self.name), bound, || self.has(interface), |has| *has == there)?;
        Ok(began.elapsed())
    }
}

/// A word of the last resort in failures: what the agent said.
pub(crate) fn with_log<T>(node: &Node, done: anyhow::Result<T>) -> anyhow::Result<T> {
    done.with_context(|| format!("agent of {}: {}", node.name(), tail(&node.agent_log())))
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// The lowest value that at least this share of them do not exceed.
pub(crate) fn percentile(times: &mut [Duration], share: f64) -> anyhow::Result<Duration> {
    ensure!(!times.is_empty());
    times.sort();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few hundred values"
    )]
    let place = ((times.len() as f64 * share).ceil() as usize).clamp(1, times.len());
    Ok(times[place - 1])
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.split_whitespace().next().context("KiB")?.parse()?)
}
