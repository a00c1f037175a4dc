//! The API server and its etcd.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
use nsm_lab::{Namespace, Program, eventually};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::audit::{self, Asked};
use crate::relay::Relay;

/// Of an API server without machines.
const PORT: u16 = 6443;
/// For etcd and the API server, on a busy machine.
const READY: Duration = Duration::from_secs(90);
/// For what the API server does behind an answer: definitions established, rights known.
const SOON: Duration = Duration::from_secs(20);
/// Objects that are created at the same time.
const TOGETHER: usize = 32;
/// For one call.
const CALL: Duration = Duration::from_secs(10);

/// Who an agent is in Kubernetes.
const AGENT: &str = "system:serviceaccount:nsm-system:nsm-agent";

/// Whom an API server serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Tests and agents.
    Tests,
    /// Kubelets and controllers as well, and pods under the address of its service.
    Machines,
}

/// The address of the API server's own service, the first of the range.
pub(crate) const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 232, 0, 1);
/// What the API server's namespace is called by machines.
pub(crate) const UPLINK: Ipv4Addr = Ipv4Addr::new(10, 231, 0, 254);
/// Names of the machines that there can be.
pub(crate) const MACHINES: [&str; 2] = ["node-a", "node-b"];

impl Audience {
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Tests => PORT,
            // The service's, as nothing forwards from one port to another.
            Self::Machines => 443,
        }
    }
}

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

const GROUPS: [&str; 3] = ["system:serviceaccounts", "system:serviceaccounts:nsm-system", "system:authenticated"];

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

fn kubeconfig(dir: &Path, user: &str) -> PathBuf {
    dir.join(format!("{user}.conf"))
}

/// A way to the API server with a token.
fn config(dir: &Path, address: Ipv4Addr, audience: Audience, name: &str, token: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lab",
        "clusters": [{ "name": "lab", "cluster": {
            "server": format!("https://{address}:{}", audience.port()), "certificate-authority": dir.join("tls.crt"),
        } }],
        "users": [{ "name": name, "user": { "token": token } }],
        "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": name } }],
    })
}

/// Who may call, with which groups, by the token `NAME-token`.
fn users(audience: Audience) -> Vec<(String, String, String)> {
    let user = |name: &str, user: &str, groups: &str| (name.to_owned(), user.to_owned(), groups.to_owned());
    let mut users = vec![user("admin", "admin", "system:masters"), user("agent", AGENT, &GROUPS.join(","))];
    if audience == Audience::Machines {
        users.push(user("manager", "system:kube-controller-manager", ""));
        users.push(user("scheduler", "system:kube-scheduler", ""));
        users.extend(MACHINES.map(|name| user(name, &format!("system:node:{name}"), "system:nodes")));
    }
    users
}

/// Certificates, keys, tokens and who may read what with them.
fn prepare(dir: &Path, audience: Audience) -> anyhow::Result<()> {
    let names = ["127.0.0.1".to_owned(), SERVICE.to_string(), UPLINK.to_string(), "localhost".to_owned()];
    let own = rcgen::generate_simple_self_signed(names)?;
    fs::write(dir.join("tls.crt"), own.cert.pem())?;
    fs::write(dir.join("tls.key"), own.signing_key.serialize_pem())?;
    let accounts = rcgen::KeyPair::generate()?;
    fs::write(dir.join("accounts.key"), accounts.serialize_pem())?;
    fs::write(dir.join("accounts.pub"), accounts.public_key_pem())?;
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived, ResponseStarted]\nrules: [{level: Metadata}]\n";
    fs::write(dir.join("audit.yaml"), policy)?;
    let mut tokens = String::new();
    for (at, (name, user, groups)) in users(audience).iter().enumerate() {
        let _ = writeln!(tokens, "{name}-token,{user},{at},\"{groups}\"");
        let address = if MACHINES.contains(&name.as_str()) { SERVICE } else { Ipv4Addr::LOCALHOST };
        let config = config(dir, address, audience, name, &format!("{name}-token"));
        fs::write(kubeconfig(dir, name), config.to_string())?;
    }
    fs::write(dir.join("tokens.csv"), tokens)?;
    Ok(())
}

fn etcd(dir: &Path) -> Command {
    let mut command = command(Path::new("etcd"));
    command.arg("--data-dir").arg(dir.join("etcd")).args([
        "--listen-client-urls=http://127.0.0.1:2379",
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
        "--initial-advertise-peer-urls=http://127.0.0.1:2380",
        "--initial-cluster=default=http://127.0.0.1:2380",
    ]);
    command
}

fn start_apiserver(dir: &Path, namespace: &Namespace, audience: Audience) -> anyhow::Result<Program> {
    let mut command = command(&nsm_peers::tools::tool("kube-apiserver")?);
    let file = |flag: &str, name: &str| format!("--{flag}={}", dir.join(name).display());
    command.args([
        file("tls-cert-file", "tls.crt"),
        file("tls-private-key-file", "tls.key"),
        file("token-auth-file", "tokens.csv"),
        file("service-account-key-file", "accounts.pub"),
        file("service-account-signing-key-file", "accounts.key"),
        file("audit-policy-file", "audit.yaml"),
        file("audit-log-path", "audit.log"),
        file("cert-dir", ""),
        format!("--secure-port={}", audience.port()),
    ]);
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.232.0.0/16",
        "--endpoint-reconciler-type=none",
        // Nobody but the test connects, and it waits for nobody.
        "--shutdown-delay-duration=0s",
        "--audit-log-mode=blocking",
    ]);
    match audience {
        Audience::Tests => command.args([
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--authorization-mode=RBAC",
            // Nobody makes accounts for the pods of the tests.
            "--disable-admission-plugins=ServiceAccount",
        ]),
        Audience::Machines => command.args([
            "--bind-address=0.0.0.0",
            &format!("--advertise-address={UPLINK}"),
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            // No name server knows a machine by its name.
            "--kubelet-preferred-address-types=InternalIP",
        ]),
    };
    Program::start("kube-apiserver", &mut command, namespace, &dir.join("apiserver.log"))
}

pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin").env("HOME", "/nonexistent");
    command
}
