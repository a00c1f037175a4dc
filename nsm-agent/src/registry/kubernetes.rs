//! The registry in Kubernetes: services and endpoints are objects, seen through watches and kept by an API server.
//!
//! Guarantees:
//! - Reading never calls the API server: what was seen last is served, also while it is away. Then writes fail with
//!   [`Error::Away`], and withdrawals wait for it.
//! - Of several objects of one name the oldest that lives counts, on every node the same one; but that of a living endpoint of this node
//!   gives way to older ones of its own namespace only.
//! - An endpoint of this node is one object, written when it appears or changes and deleted when it goes, whose life is the
//!   node's lease: no write per renewal. It belongs to its pod where that is known.
//! - An endpoint of another node is gone when that node's lease is lost (`nodes.rs`), any other when its `expiration_time` is over.
//! - After a restart this node's endpoints are known again, and have their time to come back. A pod that was made again meanwhile has
//!   its endpoints' names at once, and so has everybody after a boot.
//!
//! Assumptions: one agent per node name, all with the same namespace for leases and the same lease time.

mod api;
mod lease;
mod names;
mod nodes;
mod objects;
mod rivals;
mod settle;
mod told;
mod watches;
mod withdrawals;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use nsm_proto::registry::NetworkServiceEndpoint;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Entry, Error, Owner, Pods, Reach, Registry, Service, ServiceAccess,
    registrar::{Backing, Registrar, Rules},
};
use crate::kubernetes::Way;
use api::{Server, Wanted};
use nodes::Nodes;
use objects::{Key, Objects};
pub use rivals::Rivals;
use withdrawals::Withdrawals;

/// Longest wait of a write for what there is to be read first.
const READY: Duration = Duration::from_secs(5);
/// How long an object waits that nobody is known to have registered: its registration may be under way.
const ORPHANED: Duration = Duration::from_secs(10);

/// How the registry in Kubernetes behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where leases are, and objects of no pod. None: the namespace of the pod, or of the kubeconfig's context.
    pub namespace: Option<String>,
    /// This node's name.
    pub node: Arc<str>,
    /// What tells this boot from others.
    pub boot_id: String,
    /// How long a node's endpoints outlive its agent's last sign of life.
    pub lease: Duration,
    /// Longest time that an endpoint lives without renewal.
    pub max_life: Duration,
    /// Who may use and serve services that do not say it.
    pub access: ServiceAccess,
    /// Where it is told that another agent has this node's name.
    pub rivals: Rivals,
}

/// The objects of a cluster.
pub struct Kubernetes {
    server: Server,
    settings: Settings,
    namespace: Arc<str>,
    pods: Arc<dyn Pods>,
    seen: Mutex<Seen>,
    withdrawals: Withdrawals,
    /// Names to look at again.
    unsettled: mpsc::UnboundedSender<Unsettled>,
    /// How far the first reading has come.
    state: watch::Sender<State>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// A name that stands for something else than before, perhaps.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Unsettled {
    Service(Arc<str>),
    Endpoint(Arc<str>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not everything has been read yet; what the last attempt said.
    Reading(String),
    Ready,
}

/// What was seen of the cluster.
struct Seen {
    services: Objects<nsm_objects::Service>,
    endpoints: Objects<NetworkServiceEndpoint>,
    nodes: Nodes,
    /// This node's endpoints and their objects, with the generation that says what they are here.
    ours: HashMap<Arc<str>, Ours>,
    /// Objects about which something is being said, by kind and key.
    speaking: HashSet<(&'static str, Key)>,
}

#[derive(Debug, Clone)]
struct Ours {
    key: Key,
    generation: i64,
}

impl Kubernetes {
    /// Starts to read; what there is comes when it has been read.
    pub fn open(way: Way, mut settings: Settings, pods: Arc<dyn Pods>) -> Registrar {
        let Way { client, namespace } = way;
        let namespace: Arc<str> = settings.namespace.take().unwrap_or(namespace).into();
        let (unsettled, names) = mpsc::unbounded_channel();
        let nodes = Nodes::new(settings.node.clone(), settings.lease);
        let cluster = Arc::new(Self {
            server: Server::new(client.clone(), settings.node.clone()),
            namespace: namespace.clone(),
            pods: pods.clone(),
            seen: Mutex::new(Seen {
                services: Objects::default(),
                endpoints: Objects::default(),
                nodes,
                ours: HashMap::new(),
                speaking: HashSet::new(),
            }),
            withdrawals: Withdrawals::default(),
            unsettled,
            state: watch::Sender::new(State::Reading("nothing has been read yet".into())),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            settings: settings.clone(),
        });
        let rules = Rules { max_life: settings.max_life, access: settings.access, pods };
        let registrar = Registrar::start(cluster.clone(), rules);
        registrar.directory().begin();
        let leases = Api::namespaced(client, &namespace);
        cluster.tasks.spawn(lease::keep(leases, settings, cluster.stop.clone()));
        cluster.spawn(watches::run(cluster.clone(), registrar.clone(), names));
        cluster.spawn(settle::withdraw(cluster.clone(), registrar.clone()));
        registrar
    }

    /// Runs until the end.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move { stop.run_until_cancelled(task).await });
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a name looked at again.
    fn unsettle(&self, name: Unsettled) {
        // Fails at the end only.
        let _ = self.unsettled.send(name);
    }

    fn registrant(&self, owner: Owner) -> String {
        names::registrant(&self.settings.boot_id, owner)
    }

    /// Whether the object is this node's, whoever wrote it.
    fn is_of_this_node(&self, node: Option<&str>) -> bool {
        node == Some(&*self.settings.node)
    }

    /// The namespace for objects of that owner, and the pod that they go with.
    async fn home(&self, owner: Owner) -> Result<(Arc<str>, Option<OwnerReference>), Error> {
        let Some(pod) = self.pods.pod_of_owner(owner).await else { return Ok((self.namespace.clone(), None)) };
        let reference = self.server.owner(&pod).await?;
        if reference.is_none() {
            tracing::warn!(
                pod = pod.name,
                namespace = pod.namespace,
                "the API server has no such pod: what it registers belongs to none"
            );
        }
        Ok((pod.namespace.into(), reference))
    }

    async fn write_endpoint(&self, entry: &Entry) -> Result<(), Error> {
        let name: Arc<str> = entry.message.name.as_str().into();
        let ours = is_ours(entry);
        let registrant = self.registrant(entry.owner);
        let known = {
            let seen = self.seen();
            let first = seen.endpoints.named(&name).next().map(|found| found.key.clone());
            seen.ours.get(&name).map(|ours| ours.key.clone()).or(if ours { None } else { first })
        };
        let (namespace, owner) = self.home(entry.owner).await?;
        let object = names::of_endpoint(&name, if ours { &self.settings.node } else { "" }, &registrant);
        let key = known.unwrap_or(Key { namespace, name: object.into() });
        let mut message = (*entry.message).clone();
        if ours {
            // The lease says how long, and the socket is this node's affair.
            message.expiration_time = None;
            if message.url.starts_with("inode://") || message.url.starts_with("unix://") {
                message.url.clear();
            }
        }
        let mut spec = nsm_objects::endpoint_spec(&message);
        spec.insert("name".into(), message.name.clone().into());
        let annotations = vec![
            (names::NODE, ours.then(|| self.settings.node.to_string())),
            (names::REGISTRANT, ours.then_some(registrant)),
        ];
        // Of a pod of another namespace it would be collected as garbage.
        let owner = owner.filter(|_| ours);
        let wanted = Wanted { key: key.clone(), spec, annotations, owner, kept: &[] };
        match self.server.put(&self.server.endpoints, &wanted).await {
            Ok(object) => {
                let found = api::endpoint(&object);
                let mut seen = self.seen();
                if ours {
                    seen.ours.insert(name.clone(), Ours { key, generation: found.generation });
                }
                seen.endpoints.put(found);
                drop(seen);
                self.unsettle(Unsettled::Endpoint(name));
                Ok(())
            }
            Err(error) => {
                if ours && !self.seen().ours.contains_key(&name) {
                    // It may have been made all the same.
                    self.withdrawals.push(key, ORPHANED);
                }
                Err(error)
            }
        }
    }
}

/// Whether an endpoint lives with this node, and not for itself in the cluster.
fn is_ours(entry: &Entry) -> bool {
    entry.owner != Owner::Operator || !matches!(entry.reach, Reach::Url | Reach::Elsewhere(_))
}

#[async_trait]
impl Backing for Kubernetes {
    async fn ready(&self) -> Result<(), Error> {
        let mut state = self.state.subscribe();
        let ready = tokio::time::timeout(READY, state.wait_for(|state| *state == State::Ready)).await;
        if matches!(ready, Ok(Ok(_))) {
            return Ok(());
        }
        match &*self.state.borrow() {
            State::Ready => Ok(()),
            State::Reading(why) => Err(Error::Away(why.clone())),
        }
    }

    fn home_of_unknown(&self) -> Option<&Arc<str>> {
        Some(&self.namespace)
    }

    async fn put_service(&self, service: &Service, before: Option<&Service>) -> Result<(), Error> {
        let name = &service.message.name;
        let known = self.seen().services.named(name).find(|found| found.message.is_ok()).map(|found| found.key.clone());
        let key = match known.filter(|_| before.is_some()) {
            Some(key) => key,
            None => Key { namespace: self.home(service.owner).await?.0, name: names::of_service(name).into() },
        };
        let mut spec = nsm_objects::service_spec(&service.message, &service.access);
        spec.insert("name".into(), name.as_str().into());
        let of_peer = service.owner != Owner::Operator;
        let annotations = vec![
            (names::NODE, of_peer.then(|| self.settings.node.to_string())),
            (names::REGISTRANT, of_peer.then(|| self.registrant(service.owner))),
        ];
        // What an operator has said meanwhile, and was not seen yet, stays.
        let kept = if of_peer { &nsm_objects::ACCESS_FIELDS[..] } else { &[] };
        let wanted = Wanted { key, spec, annotations, owner: None, kept };
        let object = self.server.put(&self.server.services, &wanted).await?;
        self.seen().services.put(api::service(&object));
        self.unsettle(Unsettled::Service(name.as_str().into()));
        Ok(())
    }

    async fn remove_service(&self, service: &Service) -> Result<(), Error> {
        let name = &service.message.name;
        let found = self.seen().services.named(name).find(|found| found.message.is_ok()).cloned();
        let Some(found) = found else { return Ok(()) };
        self.server.delete(&self.server.services, &found.key, Some(&found.uid)).await?;
        self.seen().services.remove(&found.key, &found.uid);
        self.unsettle(Unsettled::Service(name.as_str().into()));
        Ok(())
    }

    async fn put_endpoint(&self, entry: &Entry, _before: Option<&Entry>) -> Result<(), Error> {
        self.write_endpoint(entry).await
    }

    async fn remove_endpoint(&self, entry: &Entry) -> Result<(), Error> {
        let name: Arc<str> = entry.message.name.as_str().into();
        let found = {
            let seen = self.seen();
            let ours = seen.ours.get(&name).and_then(|ours| seen.endpoints.get(&ours.key));
            ours.or_else(|| seen.endpoints.named(&name).next()).cloned()
        };
        if let Some(found) = found {
            self.server.delete(&self.server.endpoints, &found.key, Some(&found.uid)).await?;
            self.seen().endpoints.remove(&found.key, &found.uid);
        }
        self.seen().ours.remove(&name);
        self.unsettle(Unsettled::Endpoint(name));
        Ok(())
    }

    /// By its object, which the API server has the pod's identity of. Where that cannot be asked it is not.
    async fn is_made_again(&self, name: &str, before: Owner, by: Owner) -> bool {
        let (Owner::Peer { uid: then, .. }, Owner::Peer { netns, uid: now }) = (before, by) else { return false };
        let key = self.seen().ours.get(name).map(|ours| ours.key.clone());
        let (Some(key), Some(pod)) = (key.filter(|_| then == now), self.pods.pod_of(netns).await) else { return false };
        if *key.namespace != *pod.namespace {
            return false;
        }
        let Ok(Some(reference)) = self.server.owner(&pod).await else { return false };
        let owners = self.server.owners(&self.server.endpoints, &key).await;
        owners.is_ok_and(|owners| owners.iter().any(|owner| owner.kind == "Pod" && owner.uid == reference.uid))
    }

    fn renewed(&self, _entry: &Entry) {}

    fn withdrawn(&self, entry: &Entry) {
        let name: Arc<str> = entry.message.name.as_str().into();
        if let Some(ours) = self.seen().ours.remove(&name) {
            self.withdrawals.push(ours.key, Duration::ZERO);
        }
        self.unsettle(Unsettled::Endpoint(name));
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
