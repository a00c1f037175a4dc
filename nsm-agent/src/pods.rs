//! What the agent knows of its node's pods from the Kubernetes API: what they and their namespaces ask for.
//!
//! Guarantees:
//! - Nothing is asked of the API server but by two watches; what was seen last counts while it is away.
//! - Of a pod is kept what decides, a few hundred bytes.
//! - The plugin finds the namespaces that ask as files (`namespaces.rs`), so that pods that ask nothing need no agent.

mod events;
mod namespaces;
mod seen;
mod settle;
mod watches;

use std::{
    collections::HashSet,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use events::Events;
pub use events::Reason;
pub use seen::{ANNOTATION, ANNOTATION_2019, Annotations};
use seen::{Asking, Key, Seen};

use crate::{kubernetes::Way, state::Pod};

/// The node's pods.
#[derive(Default)]
pub struct Pods {
    seen: Mutex<Seen>,
    /// Moves with everything that is seen.
    changes: watch::Sender<u64>,
    /// The namespaces that ask, once all have been read.
    asking: watch::Sender<Option<Asking>>,
    /// Pods that nobody has looked at since they changed.
    unsettled: Mutex<HashSet<Key>>,
    more: Notify,
    events: Events,
}

impl Pods {
    /// Starts to read; what there is comes when it has been read.
    pub fn watch(
        way: Way,
        node: String,
        cni_socket: &Path,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let pods = Arc::new(Self::default());
        let files = namespaces::keep(namespaces::folder(cni_socket), pods.asking.subscribe());
        tasks.spawn(stop.clone().run_until_cancelled_owned(files));
        tasks.spawn(stop.clone().run_until_cancelled_owned(settle::run(pods.clone())));
        let (telling, client) = (pods.clone(), way.client.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(async move { telling.events.run(client).await }));
        tasks.spawn(stop.clone().run_until_cancelled_owned(watches::run(pods.clone(), way, node)));
        pods
    }

    /// What a pod asks for by itself; waits until the pod has been seen. None: it has not been seen in time.
    pub async fn annotations(&self, pod: &Pod, deadline: Instant) -> Option<Annotations> {
        let key = Key { namespace: pod.namespace.as_str().into(), name: pod.name.as_str().into() };
        let found =
            |seen: &Seen| seen.pod(&key).filter(|found| found.is(&pod.uid)).map(|found| found.annotations.clone());
        self.wait(found, deadline).await
    }

    /// What a namespace asks for its pods; waits until the namespace has been seen. None: it has not been seen in time.
    pub async fn of_namespace(&self, namespace: &str, deadline: Instant) -> Option<Annotations> {
        self.wait(|seen| seen.namespace(namespace).cloned(), deadline).await
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

    /// Pods that have changed since nobody looked; waits for the first.
    async fn unsettled(&self) -> HashSet<Key> {
        loop {
            let keys = std::mem::take(&mut *self.unsettled.lock().unwrap_or_else(PoisonError::into_inner));
            if !keys.is_empty() {
                return keys;
            }
            self.more.notified().await;
        }
    }

    /// These pods are others than before.
    fn moved(&self, keys: Vec<Key>) {
        self.changes.send_modify(|count| *count += 1);
        if !keys.is_empty() {
            self.unsettled.lock().unwrap_or_else(PoisonError::into_inner).extend(keys);
            self.more.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{seen::tests::found, *};

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
