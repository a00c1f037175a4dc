//! The node's pods in the Kubernetes API: what they and their namespaces ask for, and what became of it.
//!
//! Guarantees:
//! - What is read comes from two watches; what was seen last counts while the API server is away.
//! - Of a pod is kept what decides, a few hundred bytes.
//! - The plugin finds the namespaces that ask as files (`namespaces.rs`), so that pods that ask nothing need no agent.
//! - A namespace's annotations count for a pod as they were at its ADD, or when they were known first; its own as they are
//!   (`follow.rs`).
//! - No ADD waits for what is written: status (`status.rs`) and events (`events.rs`).

mod entries;
mod events;
mod follow;
mod namespaces;
mod seen;
mod settle;
mod status;
mod unseen;
mod watches;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use nsm_cni_types::pods::Annotations;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::events::Reason;
use self::{
    events::{About, Events},
    follow::Follower,
    seen::{Asking, Key, Seen},
    status::Status,
    unseen::Unseen,
};
use crate::{
    annotations::{Asked, Elsewhere},
    attach::Engine,
    kubernetes::Way,
    manager::Healer,
    metrics::Metrics,
    networks::Settled,
    processes::PodUid,
    sandboxes::Namespaces,
    state::{AttachmentKey, Pod, Records},
};

/// How long a pod that calls may take to be seen.
const SEEN: Duration = Duration::from_secs(2);

/// The node's pods.
#[derive(Default)]
pub struct Pods {
    seen: Mutex<Seen>,
    /// Moves with everything that is seen.
    changes: watch::Sender<u64>,
    /// The namespaces that ask, once all have been read.
    asking: watch::Sender<Option<Asking>>,
    unsettled: Mutex<Unsettled>,
    more: Notify,
    events: Events,
    unseen: Unseen,
}

/// Why a pod's annotations are not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unknown {
    /// Nobody has seen it.
    Unseen,
    /// There is another one of that name, with this uid.
    Another(Box<str>),
}

/// What nobody has looked at since it changed.
#[derive(Default)]
struct Unsettled {
    keys: HashSet<Key>,
    /// ADDs that have ended.
    added: Vec<(Key, AttachmentKey)>,
}

/// What running pods are followed with.
pub struct With {
    /// What makes attachments.
    pub engine: Engine,
    /// What is wrong with connections.
    pub healer: Healer,
    /// What the meta-plugin has made.
    pub settled: Records<Settled>,
    /// The API server.
    pub way: Way,
    /// Where the work is done.
    pub tasks: TaskTracker,
    /// Ends it.
    pub stop: CancellationToken,
}

impl Pods {
    /// Starts to read; what there is comes when it has been read.
    pub fn watch(
        way: Way,
        node: String,
        folder: Namespaces,
        metrics: Metrics,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let pods = Arc::new(Self { events: Events::counted(metrics), ..Self::default() });
        let files = namespaces::keep(folder, pods.asking.subscribe());
        tasks.spawn(stop.clone().run_until_cancelled_owned(files));
        let (telling, client, of_node) = (pods.clone(), way.client.clone(), node.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { telling.events.run(client, &of_node).await }));
        tasks.spawn(stop.clone().run_until_cancelled_owned(watches::run(pods.clone(), way, node)));
        pods
    }

    /// Starts to follow running pods: what they ask for is made, and what became of it is told.
    pub fn follow(self: &Arc<Self>, with: With) {
        let With { engine, healer, settled, way, tasks, stop } = with;
        let follower = Follower::new(self.clone(), engine.clone(), tasks.clone(), stop.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(settle::run(self.clone(), follower.clone())));
        let (pods, of_tasks, of_stop) = (self.clone(), tasks.clone(), stop.clone());
        let status = Status { pods, follower, engine, healer, settled, way, tasks: of_tasks, stop: of_stop };
        tasks.spawn(stop.run_until_cancelled_owned(status::run(status)));
    }

    /// What a pod asks for by itself; waits until the pod has been seen. None: it has not been seen in time.
    pub async fn annotations(&self, pod: &Pod, deadline: Instant) -> Option<Annotations> {
        let key = key(pod);
        let of_pod = |seen: &Seen| {
            let found = seen.pod(&key).filter(|found| found.may_be(pod))?;
            Some(found.annotations.clone())
        };
        self.wait(of_pod, deadline).await
    }

    /// The pod that the kubelet knows by this uid; waits a moment until it has been seen, as the kubelet may have seen it first.
    pub async fn with_uid(&self, uid: PodUid) -> Option<Pod> {
        let of_pod = |seen: &Seen| {
            let found = seen.known_by(uid)?;
            let Key { namespace, name } = &found.key;
            Some(Pod { name: name.to_string(), namespace: namespace.to_string(), uid: found.uid.to_string() })
        };
        self.wait(of_pod, Instant::now() + SEEN).await
    }

    /// Which networks a pod selects by itself; waits until the pod has been seen.
    ///
    /// # Errors
    /// It has not been seen in time.
    pub async fn networks(&self, pod: &Pod, deadline: Instant) -> Result<nsm_npwg::Annotations, Unknown> {
        let key = key(pod);
        let of_pod = |seen: &Seen| {
            let found = seen.pod(&key).filter(|found| found.may_be(pod))?;
            Some(found.networks.clone())
        };
        let found = self.wait(of_pod, deadline).await;
        found.ok_or_else(|| match self.seen().pod(&key) {
            Some(other) => Unknown::Another(other.uid.clone()),
            None => Unknown::Unseen,
        })
    }

    /// A number that moves with everything that is seen.
    pub(crate) fn moves(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Which networks a pod selects; none: it is not the pod that a runtime means, ends, or has no network of its own.
    pub(crate) fn selects(&self, pod: &Pod) -> Option<nsm_npwg::Annotations> {
        let seen = self.seen();
        let found = seen.pod(&key(pod)).filter(|found| found.is(pod) && !found.ending && !found.host_network)?;
        Some(found.networks.clone())
    }

    /// Tells something of a pod, when it has been seen.
    pub fn tell(&self, pod: &Pod, reason: Reason, message: &str) {
        let key = key(pod);
        if self.unseen.put(key.clone(), pod.clone(), (reason, message.to_owned())) {
            self.tell_if_seen(&key);
        } else {
            self.events.dropped(&pod.namespace, &pod.name, reason);
        }
    }

    async fn wait<T>(&self, find: impl Fn(&Seen) -> Option<T>, deadline: Instant) -> Option<T> {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let found = find(&self.seen());
            if found.is_some() {
                return found;
            }
            if !matches!(tokio::time::timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                return None;
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What has changed since nobody looked; waits for it.
    async fn unsettled(&self) -> Unsettled {
        loop {
            let unsettled = std::mem::take(&mut *self.changed());
            if !unsettled.keys.is_empty() || !unsettled.added.is_empty() {
                return unsettled;
            }
            self.more.notified().await;
        }
    }

    /// Tells what is to be told of a pod, if it has been seen by now.
    fn tell_if_seen(&self, key: &Key) {
        let Some(found) = self.seen().pod(key).cloned() else { return };
        if let Some((reason, message)) = self.unseen.take(key, |pod| found.may_be(pod)) {
            self.events.tell(About::from(&*found), reason, &message);
        }
    }

    /// These pods are others than before.
    fn moved(&self, keys: Vec<Key>) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        if !keys.is_empty() {
            self.changed().keys.extend(keys);
            self.more.notify_one();
        }
    }

    fn changed(&self) -> MutexGuard<'_, Unsettled> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Elsewhere for Pods {
    async fn asked(&self, pod: &Pod, deadline: Instant) -> Option<Asked> {
        let of_pod = self.annotations(pod, deadline).await?;
        let namespace = self.of_namespace(&pod.namespace, deadline).await?;
        Some(Asked { pod: of_pod, namespace })
    }

    async fn of_namespace(&self, namespace: &str, deadline: Instant) -> Option<Annotations> {
        self.wait(|seen| seen.namespace(namespace).cloned(), deadline).await
    }

    fn added(&self, pod: &Pod, call: &AttachmentKey) {
        self.changed().added.push((key(pod), call.clone()));
        self.more.notify_one();
    }

    fn refused(&self, pod: &Pod, why: &str) {
        self.tell(pod, Reason::Refused, &format!("the pod does not start: {why}"));
    }
}

fn key(pod: &Pod) -> Key {
    Key { namespace: pod.namespace.as_str().into(), name: pod.name.as_str().into() }
}

#[cfg(test)]
mod tests {
    use super::{seen::tests::found, *};

    #[tokio::test(start_paused = true)]
    async fn an_event_is_about_the_pod_as_the_api_server_knows_it() {
        let pods = Pods::default();
        let by_hash = Pod { name: "static".into(), namespace: "default".into(), uid: "hash".into() };
        pods.seen().put_pod(found("static", "before"));
        pods.refused(&by_hash, "no endpoint");
        let key = key(&by_hash);
        pods.tell_if_seen(&key);
        assert!(futures::poll!(Box::pin(pods.events.next())).is_pending(), "the pod before it had its name");
        let mut mirror = found("static", "real");
        mirror.hash = Some("hash".into());
        pods.seen().put_pod(mirror);
        pods.tell_if_seen(&key);
        assert_eq!(&*pods.events.next().await.0.uid, "real");
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_early_waits_for_the_watch() {
        let pods = Arc::new(Pods::default());
        let asked = Pod { name: "p".into(), namespace: "default".into(), uid: "2".into() };
        let deadline = Instant::now() + Duration::from_secs(5);
        let waiting = {
            let (pods, asked) = (pods.clone(), asked.clone());
            tokio::spawn(async move { pods.annotations(&asked, deadline).await })
        };
        tokio::task::yield_now().await;
        // A pod of the same name that has gone is another one.
        for uid in ["1", "2"] {
            let mut found = found("p", uid);
            found.annotations.services = Some(uid.into());
            pods.seen().put_pod(found);
            pods.moved(Vec::new());
            tokio::task::yield_now().await;
        }
        assert_eq!(waiting.await.unwrap().unwrap().services.as_deref(), Some("2"));
        let unknown = Pod { uid: "3".into(), ..asked };
        assert_eq!(pods.annotations(&unknown, deadline).await, None);
        assert_eq!(Instant::now(), deadline);
    }
}
