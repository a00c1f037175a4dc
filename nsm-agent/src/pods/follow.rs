//! Running pods are given what their annotations ask for, and no more.
//!
//! Guarantees:
//! - At most one task works for a pod, and at most [`AT_ONCE`] attachments are made at the same time, half of them in one
//!   namespace. Whatever happens to the task, another one can come after it.
//! - What is done is done in the pod's turn: never during its ADD or DEL. A pod that is being deleted gets nothing, and neither
//!   does one whose ADD may still be to come.
//! - A pod whose namespace was not known when it was made has of it what the namespace asks for when it is known first.
//! - Attachments that are as the annotations want them are not touched. Annotations that cannot be followed change nothing.
//! - What failed is tried again, with pauses that grow, and at once when the annotations or the registry change.

mod converge;
mod marks;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use nsm_sdk::Error;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use marks::{Busy, Running};

use super::{
    Pods,
    seen::{Found, Key},
};
use crate::{
    annotations::Annotations,
    attach::{Engine, PodSpec},
    kubernetes::jitter,
    netns::PodsNetns,
    sandboxes::Sandbox,
    state::{AttachmentKey, Source, blocking},
};

/// Most attachments that are made at the same time.
const AT_ONCE: usize = 8;
/// The longest ADD: a sandbox this old has had its own.
const ADDING: Duration = Duration::from_mins(2);
/// First pause after a failure.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(30);
/// Shortest wait where the registry changes all the time.
const FLOOR: Duration = Duration::from_millis(100);

/// Something that a pod asks for and does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) service: String,
    pub(super) interface: String,
    pub(super) why: String,
}

/// What is made for running pods.
pub(super) struct Follower {
    pods: Arc<Pods>,
    engine: Engine,
    tasks: TaskTracker,
    stop: CancellationToken,
    places: Semaphore,
    state: Mutex<State>,
    /// Moves with what pods miss, and when the work at a pod ends.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Pods that a task works for, and how to wake it.
    running: HashMap<Key, Arc<Notify>>,
    /// Pods whose annotations have been followed, until they or the sandbox change.
    settled: HashMap<Key, Settled>,
    /// What pods miss.
    missing: HashMap<Key, Vec<Missing>>,
    /// Pods that are being changed.
    busy: BTreeSet<Key>,
    /// Sandboxes whose ADD has ended.
    added: HashSet<AttachmentKey>,
    /// Places of the pods of one namespace.
    shares: HashMap<Arc<str>, Arc<Semaphore>>,
    /// Pods whose namespace was not known when they were made, and is by now.
    late: HashSet<Key>,
}

/// What was followed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settled {
    uid: Box<str>,
    sandbox: AttachmentKey,
    annotations: Annotations,
}

/// How the work at a pod went.
enum Outcome {
    /// There is nothing more to do until something changes.
    Done,
    /// Not now, but by then.
    At(Instant),
    /// The pod's call is under way or over: in a moment.
    Soon,
    /// Something is missing.
    Failed,
}

impl Follower {
    pub(super) fn new(pods: Arc<Pods>, engine: Engine, tasks: TaskTracker, stop: CancellationToken) -> Arc<Self> {
        let (places, changes) = (Semaphore::new(AT_ONCE), watch::Sender::new(0));
        Arc::new(Self { pods, engine, tasks, stop, places, state: Mutex::default(), changes })
    }

    /// A number that moves with what pods miss, and when the work at a pod ends.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A number that moves when a pod's sandbox comes or goes.
    pub(super) fn sandboxes(&self) -> watch::Receiver<u64> {
        self.engine.sandboxes().changes()
    }

    /// What a pod asks for and does not have.
    pub(super) fn missing(&self, key: &Key) -> Vec<Missing> {
        self.state().missing.get(key).cloned().unwrap_or_default()
    }

    /// Pods that do not have all that they ask for.
    pub(super) fn all_missing(&self) -> BTreeSet<Key> {
        self.state().missing.keys().cloned().collect()
    }

    /// Whether a pod is being changed: what it has in the middle of it is nobody's business.
    pub(super) fn is_busy(&self, key: &Key) -> bool {
        self.state().busy.contains(key)
    }

    /// A pod's ADD has ended well.
    pub(super) fn added(self: &Arc<Self>, key: &Key, call: &AttachmentKey) {
        self.state().added.insert(call.clone());
        self.look_into(key, call);
    }

    /// Looks at a pod that has this sandbox now.
    fn look_into(self: &Arc<Self>, key: &Key, call: &AttachmentKey) {
        let mut state = self.state();
        if state.settled.get(key).is_some_and(|settled| settled.sandbox != *call) {
            state.settled.remove(key);
        }
        drop(state);
        self.look(key);
    }

    /// Looks at every pod whose sandbox is another one than before.
    pub(super) async fn look_at_sandboxes(self: &Arc<Self>) {
        let sandboxes = self.engine.sandboxes().clone();
        let Ok(mut all) = blocking(move || sandboxes.all()).await else { return };
        self.engine.forget_ended().await;
        self.state().added.retain(|call| all.iter().any(|one| one.record.is_of(&call.container_id, &call.ifname)));
        all.sort_by_key(|sandbox| sandbox.since);
        // Of each pod the newest: an earlier one may still be there.
        let newest: HashMap<Key, Arc<Sandbox>> =
            all.into_iter().map(|sandbox| (super::key(&sandbox.pod()), sandbox)).collect();
        let late = newest.iter().filter(|(_, sandbox)| self.inherits_late(sandbox)).map(|(key, _)| key.clone());
        let late: HashSet<Key> = late.collect();
        let mut state = self.state();
        state.settled.retain(|key, _| !late.contains(key));
        state.late = late;
        drop(state);
        for (key, sandbox) in newest {
            if self.pods.seen().pod(&key).is_some_and(|found| found.is(&sandbox.pod())) {
                self.look_into(&key, &sandbox.call());
            }
        }
    }

    /// Whether what the pod's namespace asks for is known, and was not when the pod was made.
    fn inherits_late(&self, sandbox: &Sandbox) -> bool {
        sandbox.record.namespace_unknown
            && self.engine.inherited(&sandbox.call()).is_none()
            && self.pods.seen().read.namespaces
    }

    /// Records what the pod's namespace asks for, if it was not known before, for whoever has the pod's turn.
    async fn inherit_late(&self, found: &Found, sandbox: &Sandbox) -> Result<(), Error> {
        if self.inherits_late(sandbox) {
            let asks = self.pods.seen().namespace(&found.key.namespace).cloned().unwrap_or_default();
            self.engine.inherit(&sandbox.call(), asks).await?;
        }
        self.state().late.remove(&found.key);
        Ok(())
    }

    /// Looks at a pod, which may have changed.
    pub(super) fn look(self: &Arc<Self>, key: &Key) {
        // A pod whose ADD has ended may not have been seen yet: what is known of it stays.
        let Some(found) = self.pods.seen().pod(key).cloned() else { return self.wake(key) };
        if found.ending || found.host_network {
            return self.forget(key);
        }
        let mut state = self.state();
        if let Some(running) = state.running.get(key) {
            running.notify_one();
            return;
        }
        let same = |settled: &Settled| settled.uid == found.uid && settled.annotations == found.annotations;
        let settled = state.settled.get(key).is_some_and(same);
        let has_had = || state.settled.contains_key(key) || state.late.contains(key) || self.has_some(&found);
        if settled || (found.annotations.is_empty() && !has_had()) {
            return;
        }
        let wake = Arc::new(Notify::new());
        state.running.insert(key.clone(), wake.clone());
        drop(state);
        let (follower, key) = (self.clone(), key.clone());
        let work = async move { follower.work(key, &wake).await };
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(work));
    }

    /// Has the task that works for a pod look again.
    fn wake(&self, key: &Key) {
        if let Some(running) = self.state().running.get(key) {
            running.notify_one();
        }
    }

    /// The pod has gone, or ends.
    pub(super) fn forget(&self, key: &Key) {
        self.wake(key);
        let mut state = self.state();
        state.settled.remove(key);
        state.missing.remove(key);
    }

    /// Whether annotations have given the pod something.
    fn has_some(&self, found: &Found) -> bool {
        let attachments = &self.engine.manager().attachments;
        let asked = |source: &Source| matches!(source, Source::Annotation { .. });
        attachments.find(|one| asked(&one.source) && one.pod.as_ref().is_some_and(|pod| found.is(pod))).is_some()
    }

    /// Works for one pod until there is nothing to do.
    async fn work(self: Arc<Self>, key: Key, wake: &Notify) {
        let _running = Running { follower: &self, key: &key, wake };
        let (mut pause, mut soon) = (FIRST, FLOOR);
        let mut last = Annotations::default();
        loop {
            let found = self.pods.seen().pod(&key).cloned();
            let Some(found) = found.filter(|found| !found.ending && !found.host_network) else {
                if self.leave(&key, None, wake) {
                    return;
                }
                continue;
            };
            if found.annotations != last {
                (last, pause) = (found.annotations.clone(), FIRST);
            }
            let mut registry = self.engine.manager().endpoints.directory().changes();
            registry.borrow_and_update();
            let outcome = self.once(&found).await;
            self.moved();
            match outcome {
                Outcome::Done => {
                    if self.leave(&key, Some(&found), wake) {
                        return;
                    }
                }
                Outcome::At(time) => {
                    let _ = tokio::time::timeout_at(time, wake.notified()).await;
                }
                Outcome::Soon => {
                    let _ = tokio::time::timeout(soon, wake.notified()).await;
                    soon = (soon * 2).min(LONGEST);
                }
                Outcome::Failed => {
                    let floor = Instant::now() + FLOOR;
                    tokio::select! {
                        () = wake.notified() => {}
                        _ = registry.changed() => tokio::time::sleep_until(floor).await,
                        () = tokio::time::sleep(jitter(pause)) => {}
                    }
                    pause = (pause * 2).min(LONGEST);
                }
            }
        }
    }

    /// Ends the work at a pod, unless it is another one than `found` by now, or somebody asked to look again.
    fn leave(&self, key: &Key, found: Option<&Arc<Found>>, wake: &Notify) -> bool {
        let seen = self.pods.seen();
        let mut state = self.state();
        let now = seen.pod(key).filter(|found| !found.ending && !found.host_network);
        let as_asked = |found: &Arc<Found>| (found.uid.clone(), found.annotations.clone());
        if now.map(as_asked) != found.map(as_asked) || wake.notified().now_or_never().is_some() {
            return false;
        }
        state.running.remove(key);
        true
    }

    /// Brings a pod to what its annotations ask for.
    async fn once(&self, found: &Arc<Found>) -> Outcome {
        let Some(sandbox) = self.sandbox(found).await else {
            self.state().missing.remove(&found.key);
            return Outcome::Done;
        };
        let spec = PodSpec::of(&sandbox);
        let slot = self.engine.manager().turns.at(&spec.key);
        let called_off = slot.called_off();
        let _turn = tokio::select! {
            turn = slot.turn() => turn,
            () = called_off.cancelled() => return Outcome::Soon,
        };
        let (sandboxes, of) = (self.engine.sandboxes().clone(), sandbox.clone());
        let age = blocking(move || sandboxes.age(&of)).await;
        // Recorded before the last DEL: it had its own.
        let is_over = |age: Duration| self.engine.ended(&spec.key).is_some_and(|ended| ended.elapsed() <= age);
        let Some(age) = age.filter(|age| !is_over(*age)) else { return Outcome::Soon };
        if let Some(time) = self.add_is_to_come(&sandbox, age) {
            return Outcome::At(time);
        }
        let (path, recorded) = (spec.netns_path.clone(), sandbox.netns);
        let netns = match blocking(move || PodsNetns::find(&path, recorded)).await {
            PodsNetns::Here(netns) => netns,
            // The pod has ended; another sandbox of it is seen when it is there.
            PodsNetns::Gone | PodsNetns::Unseen(_) => return Outcome::Done,
        };
        if let Err(error) = self.inherit_late(found, &sandbox).await {
            tracing::warn!(pod = %found.key, %error, "what a pod has of its namespace cannot be recorded yet");
            return Outcome::Failed;
        }
        let busy = Busy::at(self, &found.key);
        let missing = self.converge(found, &spec, &netns, &called_off).await;
        drop(busy);
        let mut state = self.state();
        let Some(missing) = missing else { return Outcome::Soon };
        if missing.is_empty() {
            state.missing.remove(&found.key);
            let (uid, annotations) = (found.uid.clone(), found.annotations.clone());
            state.settled.insert(found.key.clone(), Settled { uid, sandbox: spec.key, annotations });
            return Outcome::Done;
        }
        state.missing.insert(found.key.clone(), missing);
        Outcome::Failed
    }

    /// The pod's sandbox, which is the pod's by its name as well.
    pub(super) async fn sandbox(&self, found: &Arc<Found>) -> Option<Arc<Sandbox>> {
        let (sandboxes, found) = (self.engine.sandboxes().clone(), found.clone());
        blocking(move || sandboxes.newest(|pod| found.is(pod))).await
    }

    /// When the pod's own ADD has come, if that may still be under way: the plugin records a sandbox before it asks.
    fn add_is_to_come(&self, sandbox: &Sandbox, age: Duration) -> Option<Instant> {
        let call = sandbox.call();
        let ended = self.state().added.contains(&call);
        if !sandbox.record.asked || ended || !self.engine.of_pod(&call).is_empty() {
            return None;
        }
        ADDING.checked_sub(age).filter(|left| !left.is_zero()).map(|left| Instant::now() + left)
    }

    fn moved(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
