//! The API server and its etcd.

mod programs;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nsm_lab::{Namespace, Program, eventually};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::audit::{self, Asked};
use crate::relay::Relay;
use programs::{AGENT, GROUPS, config, etcd, kubeconfig, prepare, start_apiserver};

pub(crate) use programs::{Audience, MACHINES, SERVICE, UPLINK, command};

/// For etcd and the API server, on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// For what the API server does behind an answer: definitions established, rights known.
const SOON: Duration = Duration::from_mins(1);
/// Objects that are created at the same time.
const TOGETHER: usize = 32;
/// For one call.
const CALL: Duration = Duration::from_secs(10);

/// An API server, etcd, our definitions and our rights.
pub struct Cluster {
    // Before the rest: end first.
    apiserver: Option<Program>,
    _etcd: Program,
    audience: Audience,
    dir: PathBuf,
    namespace: Arc<Namespace>,
    runtime: Runtime,
    client: kube::Client,
}

impl Cluster {
    /// With the definitions of `deploy/crds.yaml`.
    pub fn start() -> anyhow::Result<Self> {
        let cluster = Self::bare()?;
        cluster.apply(&deployed("crds.yaml")?)?;
        cluster.established()?;
        Ok(cluster)
    }

    /// With the rights of `deploy/rbac.yaml` and the policy of `deploy/admission.yaml` alone.
    pub fn bare() -> anyhow::Result<Self> {
        let cluster = Self::empty(Audience::Tests)?;
        cluster.apply(&deployed("rbac.yaml")?)?;
        cluster.apply(&deployed("admission.yaml")?)?;
        cluster.await_account()?;
        let leases = "/apis/coordination.k8s.io/v1/namespaces/nsm-system/leases?dryRun=All";
        let lease =
            json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": "nsm-nobody" } });
        // The policy of leases is the last of the file.
        let tried = || Ok(cluster.call_as("agent-token", "POST", leases, &lease)?.err().unwrap_or_default());
        eventually("the admission policy", SOON, tried, |refusal| refusal.contains("names no node"))?;
        Ok(cluster)
    }

    /// Waits for the agents' service account to be usable.
    fn await_account(&self) -> anyhow::Result<()> {
        let account = "/api/v1/namespaces/nsm-system/serviceaccounts/nsm-agent";
        eventually("the service account", SOON, || self.get(account), Value::is_object).map(drop)
    }

    /// With nothing of ours.
    pub(crate) fn empty(audience: Audience) -> anyhow::Result<Self> {
        let dir = PathBuf::from("/run/lab/cluster");
        fs::create_dir_all(dir.join("etcd"))?;
        let namespace = Arc::new(Namespace::create("cluster")?);
        prepare(&dir, audience)?;
        let etcd = Program::start("etcd", &mut etcd(&dir), &namespace, &dir.join("etcd.log"))?;
        let apiserver = start_apiserver(&dir, &namespace, audience)?;
        Relay::start(None, &namespace, audience.port())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(client(&kubeconfig(&dir, "admin")))?;
        let cluster = Self { apiserver: Some(apiserver), _etcd: etcd, audience, dir, namespace, runtime, client };
        cluster.ready()?;
        Ok(cluster)
    }

    /// Where the API server is.
    pub(crate) const fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Its port there.
    pub(crate) const fn port(&self) -> u16 {
        self.audience.port()
    }

    /// A file of somebody's way to it, with a token.
    pub(crate) fn way_with(&self, name: &str, token: &str) -> anyhow::Result<PathBuf> {
        let file = kubeconfig(&self.dir, name);
        fs::write(&file, config(&self.dir, Ipv4Addr::LOCALHOST, self.audience, name, token).to_string())?;
        Ok(file)
    }

    /// A file of the cluster's.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn ready(&self) -> anyhow::Result<()> {
        let look = || Ok(self.text("/readyz").unwrap_or_else(|error| format!("{error:#}")));
        eventually("readiness of the API server", READY, look, |answer| answer == "ok").map(drop)
    }

    fn text(&self, path: &str) -> anyhow::Result<String> {
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.runtime.block_on(async { tokio::time::timeout(CALL, self.client.request_text(request)).await })??)
    }

    /// Our definitions can be used.
    pub fn established(&self) -> anyhow::Result<()> {
        for path in ["networkservices", "networkserviceendpoints"] {
            let path = format!("/apis/networkservicemesh.io/v1/{path}");
            eventually("definitions", SOON, || self.get(&path), |list| list["items"].is_array())?;
        }
        Ok(())
    }

    /// SIGTERM, and gone on return.
    pub fn stop_apiserver(&mut self) -> anyhow::Result<()> {
        self.apiserver.take().context("no API server runs")?.kill()
    }

    /// Starts it again and waits until it answers.
    pub fn start_apiserver(&mut self) -> anyhow::Result<()> {
        self.apiserver = Some(start_apiserver(&self.dir, &self.namespace, self.audience)?);
        self.ready()
    }

    /// One call as administrator; of a refusal the API server's message.
    pub fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Result<Value, String>> {
        self.answer(&self.client, method, path, body)
    }

    /// The same with another's token.
    pub fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Result<Value, String>> {
        let client = self.runtime.block_on(client(&self.way_with("other", token)?))?;
        self.answer(&client, method, path, body)
    }

    fn answer(
        &self,
        client: &kube::Client,
        method: &str,
        path: &str,
        body: &Value,
    ) -> anyhow::Result<Result<Value, String>> {
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(body)? };
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind).body(body)?;
        let call = async { tokio::time::timeout(CALL, client.request::<Value>(request)).await };
        match self.runtime.block_on(call)? {
            Ok(answer) => Ok(Ok(answer)),
            Err(kube::Error::Api(status)) => Ok(Err(status.message)),
            Err(error) => Err(error.into()),
        }
    }

    /// What is at a path; null when there is nothing.
    pub fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.call("GET", path, &Value::Null)?.unwrap_or_default())
    }

    /// Deletes what is at a path.
    pub fn delete(&self, path: &str) -> anyhow::Result<()> {
        self.call("DELETE", path, &Value::Null)?.map(drop).map_err(anyhow::Error::msg)
    }

    /// Changes what is at a path.
    pub fn patch(&self, path: &str, change: &Value) -> anyhow::Result<Value> {
        self.call("PATCH", path, change)?.map_err(anyhow::Error::msg)
    }

    /// Creates an object as kubectl does, which has unknown fields refused.
    pub fn create(&self, object: &Value) -> anyhow::Result<Result<Value, String>> {
        self.call("POST", &format!("{}?fieldValidation=Strict", collection(object)?), object)
    }

    /// Creates many objects, some at the same time.
    pub fn create_all(&self, objects: impl IntoIterator<Item = Value>) -> anyhow::Result<()> {
        let mut objects = objects.into_iter().peekable();
        while objects.peek().is_some() {
            let some: Vec<Value> = objects.by_ref().take(TOGETHER).collect();
            let calls = some.iter().map(|object| {
                let body = serde_json::to_vec(object).map_err(anyhow::Error::from);
                let path = collection(object);
                async {
                    let request = http::Request::post(path?).header("content-type", "application/json").body(body?)?;
                    let made = tokio::time::timeout(CALL, self.client.request::<Value>(request)).await?;
                    made.map(drop).map_err(anyhow::Error::from)
                }
            });
            self.runtime.block_on(futures::future::try_join_all(calls))?;
        }
        Ok(())
    }

    /// Creates all objects of a text.
    pub fn apply(&self, text: &str) -> anyhow::Result<()> {
        for object in serde_saphyr::from_multiple::<Value>(text)?.iter().filter(|object| !object.is_null()) {
            self.create(object)?.map_err(|why| anyhow::anyhow!("{}: {why}", object["metadata"]["name"]))?;
        }
        Ok(())
    }

    /// A namespace for objects.
    pub fn make_namespace(&self, name: &str) -> anyhow::Result<()> {
        self.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}"))
    }

    /// A pod that nobody runs. Answers its uid.
    pub fn make_pod(&self, namespace: &str, name: &str, node: &str) -> anyhow::Result<String> {
        self.make_pod_of(namespace, name, node, "default")
    }

    /// The same of a service account.
    pub(crate) fn make_pod_of(&self, namespace: &str, name: &str, node: &str, account: &str) -> anyhow::Result<String> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": namespace },
            "spec": {
                "nodeName": node, "serviceAccountName": account, "containers": [{ "name": "c", "image": "none" }],
            },
        });
        let made = self.create(&pod)?.map_err(anyhow::Error::msg)?;
        Ok(made["metadata"]["uid"].as_str().context("no uid")?.to_owned())
    }

    /// All endpoint objects.
    pub fn endpoints(&self) -> anyhow::Result<Vec<Value>> {
        self.items("/apis/networkservicemesh.io/v1/networkserviceendpoints")
    }

    /// All objects of services.
    pub fn services(&self) -> anyhow::Result<Vec<Value>> {
        self.items("/apis/networkservicemesh.io/v1/networkservices")
    }

    /// The items of a list.
    pub fn items(&self, path: &str) -> anyhow::Result<Vec<Value>> {
        Ok(self.get(path)?["items"].as_array().cloned().unwrap_or_default())
    }

    /// An administrator's way to the API server.
    pub fn admin(&self) -> PathBuf {
        kubeconfig(&self.dir, "admin")
    }

    /// What agents have asked so far.
    pub fn asked(&self) -> anyhow::Result<Vec<Asked>> {
        let mut asked = audit::read(&self.dir.join("audit.log"))?;
        asked.retain(|asked| asked.user == AGENT);
        Ok(asked)
    }

    /// Whether an agent would be allowed that.
    pub fn may(&self, verb: &str, group: &str, resource: &str, namespace: &str) -> anyhow::Result<bool> {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": { "user": AGENT, "groups": GROUPS, "resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": namespace,
            } },
        });
        let answer = self.call("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)?;
        Ok(answer.map_err(anyhow::Error::msg)?["status"]["allowed"] == true)
    }
}

/// A file of `deploy/`.
pub fn deployed(name: &str) -> anyhow::Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// Where objects of that kind are created.
fn collection(object: &Value) -> anyhow::Result<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let namespace = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/namespaces/{namespace}"),
        None => String::new(),
    };
    if kind.is_empty() {
        bail!("no kind: {object}");
    }
    let api = if version == "v1" { "/api/v1".to_owned() } else { format!("/apis/{version}") };
    let plural = match kind.to_lowercase() {
        kind if kind == "networkattachmentdefinition" => "network-attachment-definitions".to_owned(),
        kind if kind.ends_with('y') => format!("{}ies", kind.trim_end_matches('y')),
        kind => format!("{kind}s"),
    };
    Ok(format!("{api}{namespace}/{plural}"))
}

async fn client(kubeconfig: &Path) -> anyhow::Result<kube::Client> {
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(kube::Client::try_from(config)?)
}
