//! Running pods are given the networks that their annotation selects, and no more, by the host's `nsm-cni`.
//!
//! Guarantees: at most one task works for a pod; what is as wanted is not touched, and neither is what no annotation gave. The plugin
//! works under the lock and on the record of the pod's own ADD, so that its DEL ends what came later too, and nothing is given to a pod
//! whose ADD is under way or whose DEL has come. What is about to be changed is recorded before it is, so that an agent that is killed
//! leaves nothing that the next one does not know; one that is stopped lets a call that runs come to its end. An annotation that cannot
//! be read changes nothing, nor does one that is taken back before it was carried out. What failed is tried again, with pauses that grow,
//! and told on the pod.

mod calls;
mod difference;
mod planned;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nsm_cni_types::pods::MetaCall;
use nsm_npwg::{Annotations, Selection};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    calls::Unchanged,
    difference::{Difference, difference},
};
use super::{Networks, Settled, newest};
use crate::{
    host::Door,
    kubernetes::jitter,
    pods::{Pods, Reason},
    sandboxes::{Sandbox, Sandboxes},
    state::{AttachmentKey, Pod, blocking},
};

/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(5);
/// The plugin asks for a plan within this time after it has recorded a sandbox, if it does.
const ASKED: Duration = Duration::from_secs(1);
/// The longest ADD.
const ADDING: Duration = Duration::from_mins(2);
/// Longest wait for one network.
const ATTACHING: Duration = Duration::from_mins(1);
/// Who fails after so long has waited for something that does not come.
const HANGING: Duration = Duration::from_secs(10);
/// First and longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// What changes running pods.
pub(super) struct Running {
    pub(super) networks: Arc<Networks>,
    pub(super) pods: Arc<Pods>,
    pub(super) sandboxes: Sandboxes,
    pub(super) door: Door,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    state: Mutex<State>,
    /// Moves when the work at a pod ends, however it does.
    ended: watch::Sender<u64>,
}

/// A pod is the holder's to work for.
struct Busy {
    running: Arc<Running>,
    key: AttachmentKey,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.running.state().running.remove(&self.key);
        // An edit that found it here is looked at again.
        self.running.ended.send_modify(|count| *count = count.wrapping_add(1));
    }
}

#[derive(Default)]
struct State {
    /// Sandboxes that a task works for.
    running: HashSet<AttachmentKey>,
    /// What was looked at last and is to stay as it is: an annotation that cannot be read.
    left: HashMap<AttachmentKey, Annotations>,
}

/// A pod of the meta-plugin's, as it was made.
#[derive(Clone)]
struct Place {
    key: AttachmentKey,
    pod: Pod,
    call: MetaCall,
    sandbox: Arc<Sandbox>,
}

/// How the work at a pod went.
enum Outcome {
    Done,
    /// Not now, but in that time.
    After(Duration),
    Failed,
}

impl Running {
    pub(super) fn new(
        networks: Arc<Networks>,
        pods: Arc<Pods>,
        sandboxes: Sandboxes,
        door: Door,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let (state, ended) = (Mutex::default(), watch::Sender::new(0));
        Arc::new(Self { networks, pods, sandboxes, door, tasks, stop, state, ended })
    }

    /// Follows edits until the end.
    pub(super) async fn run(self: Arc<Self>) {
        let (mut pods, mut sandboxes) = (self.pods.moves(), self.sandboxes.changes());
        let (mut settled, mut ended) = (self.networks.settled.changes(), self.ended.subscribe());
        loop {
            let moved = tokio::select! {
                moved = pods.changed() => moved,
                moved = sandboxes.changed() => moved,
                moved = settled.changed() => moved,
                moved = ended.changed() => moved,
            };
            if moved.is_err() {
                return;
            }
            tokio::time::sleep(TOGETHER).await;
            for changes in [&mut pods, &mut sandboxes, &mut settled, &mut ended] {
                changes.mark_unchanged();
            }
            self.look().await;
        }
    }

    /// Starts to work for each pod that has not what it selects.
    async fn look(self: &Arc<Self>) {
        let places = self.places().await;
        self.state().left.retain(|key, _| places.iter().any(|place| place.key == *key));
        for place in places {
            if self.wanted(&place).is_some() && self.state().running.insert(place.key.clone()) {
                let running = self.clone();
                // It ends by itself at a stop: a call of the plugin that is under way comes to its end.
                self.tasks.spawn(async move { running.work(place).await });
            }
        }
    }

    /// The newest sandbox of each pod that has the meta-plugin's networks.
    async fn places(&self) -> Vec<Place> {
        let sandboxes = self.sandboxes.clone();
        let Ok(mut all) = blocking(move || sandboxes.all()).await else { return Vec::new() };
        all.retain(|sandbox| sandbox.record.meta.is_some());
        let place = |sandbox: Arc<Sandbox>| {
            let (key, pod, call) = (sandbox.call(), sandbox.pod(), sandbox.record.meta.clone()?);
            Some(Place { key, pod, call, sandbox })
        };
        newest(all).into_iter().filter_map(place).collect()
    }

    /// The pod's annotations, if there may be something to change.
    fn wanted(&self, place: &Place) -> Option<Annotations> {
        let asked = self.pods.selects(&place.pod)?;
        if self.state().left.get(&place.key) == Some(&asked) {
            return None;
        }
        let made = self.networks.settled.get(&place.key);
        let made = made.as_deref().map(|settled| settled.networks.as_slice()).unwrap_or_default();
        match asked.added() {
            Ok(selections) => {
                let difference = difference(made, &qualified(selections, &place.pod));
                (!difference.is_empty()).then_some(asked)
            }
            Err(_) => Some(asked),
        }
    }

    async fn work(self: Arc<Self>, place: Place) {
        let _busy = Busy { running: self.clone(), key: place.key.clone() };
        let mut pause = PAUSES.0;
        while let Some(asked) = self.wanted(&place).filter(|_| !self.stop.is_cancelled()) {
            let began = Instant::now();
            match self.once(&place, &asked).await {
                Outcome::Done => {}
                Outcome::After(time) => {
                    let _ = self.stop.run_until_cancelled(tokio::time::sleep(time)).await;
                }
                Outcome::Failed => {
                    pause = pause.max(least_pause(began.elapsed()));
                    // An edit is followed at once.
                    let edited = tokio::time::timeout(jitter(pause), self.edited(&place, &asked));
                    match self.stop.run_until_cancelled(edited).await {
                        Some(Ok(())) => pause = PAUSES.0,
                        Some(Err(_)) => pause = (pause * 2).min(PAUSES.1),
                        None => return,
                    }
                }
            }
            if !self.is_there(&place).await {
                break;
            }
        }
    }

    /// Waits until the pod's annotations are others.
    async fn edited(&self, place: &Place, asked: &Annotations) {
        let mut moves = self.pods.moves();
        while self.pods.selects(&place.pod).as_ref() == Some(asked) && moves.changed().await.is_ok() {}
    }

    async fn is_there(&self, place: &Place) -> bool {
        let (sandboxes, sandbox) = (self.sandboxes.clone(), place.sandbox.clone());
        blocking(move || sandboxes.age(&sandbox)).await.is_some()
    }

    /// Brings a pod to what its annotation selects.
    async fn once(&self, place: &Place, asked: &Annotations) -> Outcome {
        let settled = self.networks.settled.get(&place.key);
        if let Some(time) = self.add_is_to_come(place, settled.as_deref()) {
            return Outcome::After(time);
        }
        let selections = match asked.added() {
            Ok(selections) => qualified(selections, &place.pod),
            Err(error) => {
                self.state().left.insert(place.key.clone(), asked.clone());
                self.tell(place, Reason::NetworkRefused, &format!("no network is changed: {error}"));
                return Outcome::Done;
            }
        };
        let made = settled.as_deref().map(|settled| settled.networks.clone()).unwrap_or_default();
        let Difference { detach, attach } = difference(&made, &selections);
        let mut failed = false;
        for ifname in detach {
            match self.detach(place, asked, &ifname).await {
                Ok(()) => {}
                Err(Unchanged::Overtaken) => return Outcome::Done,
                Err(Unchanged::Failed(why)) => {
                    failed = true;
                    self.tell(place, Reason::NetworkRefused, &format!("interface {ifname} is not detached yet: {why}"));
                }
            }
        }
        // What was detached leaves its name to others.
        let settled = self.networks.settled.get(&place.key);
        let planned = self.planned(place, asked, settled.as_deref(), attach);
        for (selection, planned) in self.stop.run_until_cancelled(planned).await.unwrap_or_default() {
            let (reason, why) = match planned {
                Err(refusal) => (refusal.reason(), refusal.to_string()),
                Ok(attach) => match self.attach(place, asked, selection.clone(), attach).await {
                    Ok(()) => continue,
                    Err(Unchanged::Overtaken) => return Outcome::Done,
                    Err(Unchanged::Failed(why)) => (Reason::NetworkRefused, why),
                },
            };
            failed = true;
            let namespace = selection.namespace.as_deref().unwrap_or_default();
            self.tell(place, reason, &format!("network \"{namespace}/{}\" is not attached yet: {why}", selection.name));
        }
        if failed { Outcome::Failed } else { Outcome::Done }
    }

    /// How long to wait for the end of the pod's own ADD, if that may be to come.
    fn add_is_to_come(&self, place: &Place, settled: Option<&Settled>) -> Option<Duration> {
        if settled.is_some() {
            return None;
        }
        let age = place.sandbox.since.elapsed().unwrap_or_default();
        let (since, longest) = match self.networks.plans().get(&place.key) {
            Some(began) => (began.elapsed(), ADDING),
            // Who was away sees the plugin's next try.
            None => (age.min(self.networks.since.elapsed()), ASKED),
        };
        longest.checked_sub(since).filter(|left| !left.is_zero()).map(|left| left.min(ASKED))
    }

    fn tell(&self, place: &Place, reason: Reason, message: &str) {
        if reason != Reason::AddedInterface {
            let (pod, namespace) = (&place.pod.name, &place.pod.namespace);
            tracing::warn!(pod, namespace, message, "networks of a running pod are not as its annotation selects them");
        }
        self.pods.tell(&place.pod, reason, message);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after a failure that took so long: a plugin that hangs has a place of the door each time, and is tried again rarely.
fn least_pause(took: Duration) -> Duration {
    if took < HANGING { PAUSES.0 } else { PAUSES.1 }
}

/// With the namespace that each means.
pub(super) fn qualified(selections: Vec<Selection>, pod: &Pod) -> Vec<Selection> {
    let with = |one: Selection| {
        let namespace = one.namespace.clone().or_else(|| Some(pod.namespace.clone()));
        Selection { namespace, ..one }
    };
    selections.into_iter().map(with).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_tried_again_rarely() {
        assert_eq!([0, 2].map(Duration::from_secs).map(least_pause), [PAUSES.0; 2]);
        // The plugin gives up by itself before the agent does.
        assert_eq!([35, 50, 60].map(Duration::from_secs).map(least_pause), [PAUSES.1; 3]);
    }
}
