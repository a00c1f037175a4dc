//! What became of a pod's network services, on the pod: in an annotation of ours and among the interfaces that CNI meta-plugins
//! write down.
//!
//! Guarantees: no ADD, DEL or edit waits for it. What a pod has in the middle of one is not written: an ADD is one patch. A patch
//! names the version that it is about, so that what others write stays; it is tried again a few times, and when something
//! changes. Nothing is written about attachments that network configurations asked for, nor about a pod that ends.

use std::{
    collections::{BTreeSet, HashMap, hash_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kube::{
    Api,
    api::{Patch, PatchParams},
};
use nsm_cni_types::pods::{NETWORK_STATUS, STATUS};
use serde_json::{Value, json};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Pods,
    entries::{Entry, Joined, State, joined},
    events::{About, Reason},
    follow::Follower,
    seen::{Found, Key},
    watches::{self, Trimmed},
};
use crate::{
    attach::Engine,
    forwarder::Wire,
    kubernetes::{Failure, Way, bounded, jitter},
    manager::Healer,
    networks::Settled,
    state::{Attachment, ConnectionId, Owner, Phase, Records, Source},
};

/// Changes that come together are looked at together.
const TOGETHER: Duration = Duration::from_millis(5);
/// A sandbox that is made again comes within this time.
const REMADE: Duration = Duration::from_millis(300);
/// Most patches at the same time.
const AT_ONCE: usize = 8;
/// How often a patch is tried.
const TRIES: u32 = 6;
/// First pause after a failure; each is twice the one before.
const AGAIN: Duration = Duration::from_secs(1);

/// Longest pause after the API server did not take a status.
const LONGEST: Duration = Duration::from_mins(5);
/// Most reasons that are told in the log.
const REASONS: usize = 32;

/// What the status follows.
pub(super) struct Status {
    pub(super) pods: Arc<Pods>,
    pub(super) follower: Arc<Follower>,
    pub(super) engine: Engine,
    pub(super) healer: Healer,
    pub(super) settled: Records<Settled>,
    pub(super) way: Way,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
}

/// The writer of all status.
struct Writer {
    of: Status,
    places: Semaphore,
    state: Mutex<Written>,
}

#[derive(Default)]
struct Written {
    /// Pods that are being written, each by one task.
    running: HashMap<Key, After>,
    /// Failures to heal that have been told, by connection.
    told: HashMap<ConnectionId, u32>,
    /// Pods that have all that is to be said of them, by the object's version and what that was.
    judged: HashMap<Key, (Box<str>, Said)>,
    /// Pods whose status the API server did not take.
    refused: HashMap<Key, Refused>,
    /// Why it did not, as far as the log has it.
    reasons: BTreeSet<String>,
}

/// What comes when a pod has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    /// Nothing.
    Rest,
    /// It is written anew: something has changed meanwhile.
    Again,
}

/// A pod is the holder's to write: however that ends, another one can come after it.
struct Writing {
    writer: Arc<Writer>,
    key: Key,
}

impl Drop for Writing {
    fn drop(&mut self) {
        let after = self.writer.state().running.remove(&self.key);
        if after == Some(After::Again) {
            self.writer.start(self.key.clone());
        }
    }
}

/// All that is to be said of a pod.
#[derive(Debug, Clone, Default, PartialEq)]
struct Said {
    services: Vec<Entry>,
    /// None: the pod's networks are not this project's.
    networks: Option<Vec<Value>>,
}

/// When a pod is tried again.
struct Refused {
    until: Instant,
    times: u32,
}

/// What a pod is to have.
struct Wanted {
    status: Option<String>,
    network_status: Option<String>,
}

/// Writes until the end.
pub(super) async fn run(of: Status) {
    let manager = of.engine.manager();
    let (mut attachments, mut connections) = (manager.attachments.changes(), manager.wires.connections.changes());
    let (mut adds, mut health) = (of.engine.pod_adds().changes(), of.healer.changes());
    let (mut followed, mut seen) = (of.follower.changes(), of.pods.changes.subscribe());
    let mut settled = of.settled.changes();
    let writer = Arc::new(Writer { of, places: Semaphore::new(AT_ONCE), state: Mutex::default() });
    loop {
        writer.look();
        let moved = tokio::select! {
            moved = attachments.changed() => moved,
            moved = connections.changed() => moved,
            moved = adds.changed() => moved,
            moved = health.changed() => moved,
            moved = followed.changed() => moved,
            moved = seen.changed() => moved,
            moved = settled.changed() => moved,
            () = writer.again() => Ok(()),
        };
        if moved.is_err() {
            return;
        }
        tokio::time::sleep(TOGETHER).await;
        let all = [&mut attachments, &mut connections, &mut adds, &mut health, &mut followed, &mut seen, &mut settled];
        for changes in all {
            changes.mark_unchanged();
        }
    }
}

impl Writer {
    /// Waits until a pod whose status was not taken is to be tried again.
    async fn again(&self) {
        let next = self.state().refused.values().map(|refused| refused.until).min();
        match next {
            Some(until) => tokio::time::sleep_until(until.max(Instant::now() + AGAIN)).await,
            None => std::future::pending().await,
        }
    }

    /// Looks at every pod that has, or had, something.
    fn look(self: &Arc<Self>) {
        let attached = self.attached();
        let settled: BTreeSet<Key> = self.of.settled.all().iter().map(|one| super::key(&one.pod)).collect();
        let found: Vec<Arc<Found>> = {
            let seen = self.of.pods.seen();
            let has = |key: &Key| attached.contains_key(key) || settled.contains(key);
            let theirs = |found: &&Arc<Found>| found.status.is_some() || has(&found.key);
            seen.pods().filter(theirs).cloned().collect()
        };
        let mut ailing = BTreeSet::new();
        let mut all: BTreeSet<Key> = self.of.follower.all_missing();
        for found in &found {
            let of_pod = attached.get(&found.key).map(Vec::as_slice).unwrap_or_default();
            self.tell_losses(found, of_pod, &mut ailing);
            all.insert(found.key.clone());
        }
        let mut state = self.state();
        state.told.retain(|id, _| ailing.contains(id));
        state.judged.retain(|key, _| all.contains(key));
        state.refused.retain(|key, _| all.contains(key));
        let now = Instant::now();
        all.retain(|key| state.refused.get(key).is_none_or(|refused| refused.until <= now));
        drop(state);
        for key in all {
            let attached = attached.get(&key).map(Vec::as_slice).unwrap_or_default();
            if self.outstanding(&key, attached).is_some() {
                self.start(key);
            }
        }
    }

    /// The attachments that annotations asked for, by pod.
    fn attached(&self) -> HashMap<Key, Vec<Arc<Attachment>>> {
        let mut all: HashMap<Key, Vec<Arc<Attachment>>> = HashMap::new();
        for attachment in self.of.engine.manager().attachments.all() {
            if let (Source::Annotation { .. }, Some(pod)) = (&attachment.source, &attachment.pod) {
                let key = Key { namespace: pod.namespace.as_str().into(), name: pod.name.as_str().into() };
                all.entry(key).or_default().push(attachment);
            }
        }
        all
    }

    /// The pod, and what is to be written on it.
    fn outstanding(&self, key: &Key, attached: &[Arc<Attachment>]) -> Option<(Arc<Found>, Wanted)> {
        let found = self.of.pods.seen().pod(key).cloned()?;
        let adding =
            |one: &Arc<Attachment>| one.pod_key().is_some_and(|key| self.of.engine.pod_adds().get(&key).is_some());
        if found.ending || self.of.follower.is_busy(key) || attached.iter().any(adding) {
            return None;
        }
        let is = |one: &&Arc<Attachment>| one.pod.as_ref().is_some_and(|pod| found.is(pod));
        let mut entries: Vec<Entry> = attached.iter().filter(is).map(|one| self.entry(one)).collect();
        for missing in self.of.follower.missing(key) {
            entries.retain(|entry| entry.interface != missing.interface);
            entries.push(Entry::missing(missing));
        }
        entries.sort_by(|a, b| a.interface.cmp(&b.interface));
        let said = Said { services: entries, networks: self.networks(&found) };
        // What others wrote may be long: it is read once.
        let as_judged = |(version, judged): &(Box<str>, Said)| *version == found.version && *judged == said;
        if self.state().judged.get(key).is_some_and(as_judged) {
            return None;
        }
        let Said { services, networks } = &said;
        let status = (!services.is_empty()).then(|| serde_json::to_string(services).unwrap_or_default());
        let there = found.network_status.as_deref();
        let (unchanged, network_status) = match joined(there, networks.as_deref(), services) {
            Joined::AsItIs => (true, found.network_status.as_deref().map(str::to_owned)),
            Joined::Nothing => (false, None),
            Joined::Text(text) => (false, Some(text)),
        };
        let same = unchanged && status.as_deref() == found.status.as_deref();
        if same {
            self.judge(key, &found, said);
            return None;
        }
        Some((found, Wanted { status, network_status }))
    }

    /// Nothing is to be written until the pod, or what it has, is another one.
    fn judge(&self, key: &Key, found: &Found, said: Said) {
        self.state().judged.insert(key.clone(), (found.version.clone(), said));
    }

    /// What the meta-plugin has made for a pod.
    fn networks(&self, found: &Found) -> Option<Vec<Value>> {
        let settled = self.of.settled.find(|one| found.is(&one.pod) && one.is_told())?;
        Some(settled.entries().map(|entry| json!(entry)).collect())
    }

    fn entry(&self, attachment: &Attachment) -> Entry {
        let id = self.connection(attachment);
        let connected = self.of.engine.manager().wires.connections.get(&id);
        let ailment = self.of.healer.ailment(&id);
        let mut entry = Entry {
            service: attachment.network_service.clone(),
            interface: attachment.interface.to_string(),
            state: match &connected {
                _ if ailment.is_some() => State::Healing,
                Some(connected) if connected.phase == Phase::Up => State::Up,
                Some(_) | None => State::Connecting,
            },
            message: ailment.map(|ailment| ailment.why),
            ..Entry::default()
        };
        if let Some(connected) = connected {
            entry.endpoint.clone_from(&connected.endpoint);
            if let Some(Wire::Kernel(wire)) = &connected.wire {
                let side = &wire.client;
                entry.mac = side.mac.to_string();
                entry.mtu = side.config.mtu.map(nsm_netlink::Mtu::get);
                entry.ips = side.config.addresses.iter().map(ToString::to_string).collect();
            }
        }
        entry
    }

    fn connection(&self, attachment: &Attachment) -> ConnectionId {
        let owner = Owner::Attachment(attachment.key.clone());
        self.of.engine.manager().wires.ids.id_of(&owner, &attachment.client_id)
    }

    /// Tells of connections that fail to be healed, each failure once.
    fn tell_losses(&self, found: &Found, attached: &[Arc<Attachment>], ailing: &mut BTreeSet<ConnectionId>) {
        for attachment in attached {
            let id = self.connection(attachment);
            let Some(ailment) = self.of.healer.ailment(&id) else { continue };
            let told = self.state().told.insert(id.clone(), ailment.failures);
            ailing.insert(id);
            if told != Some(ailment.failures) && !found.ending {
                let (service, interface) = (&attachment.network_service, &attachment.interface);
                let why = format!(
                    "network service {service:?}, interface {interface}, is lost and not healed yet: {}",
                    ailment.why
                );
                self.of.pods.events.tell(About::from(found), Reason::Lost, &why);
            }
        }
    }

    /// Has a pod written, by one task.
    fn start(self: &Arc<Self>, key: Key) {
        match self.state().running.entry(key.clone()) {
            hash_map::Entry::Occupied(mut running) => {
                running.insert(After::Again);
                return;
            }
            hash_map::Entry::Vacant(nobody) => nobody.insert(After::Rest),
        };
        let writing = Writing { writer: self.clone(), key };
        let work = async move { writing.writer.write(&writing.key).await };
        self.of.tasks.spawn(self.of.stop.clone().run_until_cancelled_owned(work));
    }

    /// Writes until a pod is as it is to be, or it cannot be.
    async fn write(&self, key: &Key) {
        let api: Api<Trimmed> = Api::namespaced_with(self.of.way.client.clone(), &key.namespace, &watches::kind());
        let mut calm = false;
        for tries in 0..TRIES {
            let attached = self.attached().remove(key).unwrap_or_default();
            let Some((found, wanted)) = self.outstanding(key, &attached) else { return };
            if wanted.status.is_none() && !calm && self.networks(&found).is_none() {
                // Between two sandboxes a pod has nothing, and so has one that is about to be deleted.
                tokio::time::sleep(REMADE).await;
                if !self.has_sandbox(&found).await {
                    self.judge(key, &found, Said::default());
                    return;
                }
                calm = true;
                continue;
            }
            let written = {
                let Ok(_place) = self.places.acquire().await else { return };
                let change = json!({ "metadata": {
                    "uid": found.uid, "resourceVersion": found.version,
                    "annotations": { STATUS: wanted.status, NETWORK_STATUS: wanted.network_status },
                } });
                match bounded(api.patch_status(&key.name, &PatchParams::default(), &Patch::Merge(change))).await {
                    // Somebody wrote meanwhile, as the kubelet does all the time.
                    Err(Failure::Conflict(_)) => bounded(api.get(&key.name)).await.map(|pod| (pod, false)),
                    done => done.map(|pod| (pod, true)),
                }
            };
            match written {
                Ok((pod, done)) => {
                    self.of.pods.seen().renew_pod(watches::found(&pod));
                    if done {
                        self.state().refused.remove(key);
                        return;
                    }
                }
                Err(Failure::Away(error)) => {
                    tracing::debug!(pod = %key, error, "the status of a pod is not written yet");
                    tokio::time::sleep(jitter(AGAIN * 2_u32.pow(tries))).await;
                }
                Err(Failure::Missing(_)) => {
                    self.of.pods.seen().remove_pod(key, &found.uid);
                    self.of.pods.moved(vec![key.clone()]);
                    return;
                }
                Err(error) => {
                    self.refused(key, &error.to_string());
                    return;
                }
            }
        }
        tracing::warn!(pod = %key, "the status of a pod is not written: when something changes it is tried again");
    }

    /// The API server does not take it: neither this pod nor the log is to be filled with trying.
    fn refused(&self, key: &Key, why: &str) {
        let mut state = self.state();
        let times = state.refused.get(key).map_or(0, |refused| refused.times);
        let until = Instant::now() + jitter((AGAIN * 2_u32.pow(times.min(16))).min(LONGEST));
        state.refused.insert(key.clone(), Refused { until, times: times + 1 });
        if state.reasons.len() < REASONS && state.reasons.insert(why.to_owned()) {
            tracing::warn!(pod = %key, error = why, "the status of a pod cannot be written, and neither may that of others: it is tried again");
        } else {
            tracing::debug!(pod = %key, error = why, "the status of a pod cannot be written");
        }
    }

    async fn has_sandbox(&self, found: &Arc<Found>) -> bool {
        self.of.follower.sandbox(found).await.is_some()
    }

    fn state(&self) -> MutexGuard<'_, Written> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
