//! Events on pods: what whoever wrote an annotation must know and cannot see otherwise.
//!
//! Guarantees: nobody waits for the API server to tell something. Of one reason a pod has one event, whose count grows and whose
//! message is the last one: what is repeated is written at most once in [`REPEATED`], another message at most once a second.
//! A write is tried again, a few times. At most [`MOST`] pods and reasons are remembered; what is said beyond that is counted.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    jiff,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::{sync::Notify, time::Instant};

use super::seen::{Found, Key};
use crate::{
    kubernetes::{Failure, REPORTER, bounded, jitter, reporting_instance},
    metrics::Metrics,
};

/// Shortest time between two writes that say the same.
const REPEATED: Duration = Duration::from_mins(1);
/// Shortest time between two writes.
const CALM: Duration = Duration::from_secs(1);
/// First pause after a failure; each is twice the one before.
const AGAIN: Duration = Duration::from_secs(1);
/// How often a write is tried.
const TRIES: u32 = 6;
/// After this the API server has forgotten an event as well.
const FORGOTTEN: Duration = Duration::from_hours(1);
/// Most pods and reasons.
const MOST: usize = 4096;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// What an annotation asks for was not, or not yet, made.
    Refused,
    /// A connection that there was is lost, and is not healed yet.
    Lost,
    /// The pod has no network of its own.
    HostNetwork,
    /// The meta-plugin has attached the pod's networks.
    AddedInterface,
    /// A network that the pod asks for is not defined.
    NoNetworkFound,
    /// Networks that the pod asks for cannot be attached.
    NetworkRefused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::Lost,
        Self::HostNetwork,
        Self::AddedInterface,
        Self::NoNetworkFound,
        Self::NetworkRefused,
    ];

    /// The event's type.
    fn kind(self) -> &'static str {
        match self {
            Self::AddedInterface => "Normal",
            Self::Refused | Self::Lost | Self::HostNetwork | Self::NoNetworkFound | Self::NetworkRefused => "Warning",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "NetworkServiceRefused",
            Self::Lost => "NetworkServiceLost",
            Self::HostNetwork => "NetworkServiceHostNetwork",
            // As Multus calls them.
            Self::AddedInterface => "AddedInterface",
            Self::NoNetworkFound => "NoNetworkFound",
            Self::NetworkRefused => "NetworkRefused",
        })
    }
}

/// The pod that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct About {
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    pub(super) uid: Box<str>,
}

impl From<&Found> for About {
    fn from(found: &Found) -> Self {
        let Key { namespace, name } = &found.key;
        Self { namespace: (&**namespace).into(), name: (&**name).into(), uid: found.uid.clone() }
    }
}

/// What is to be told, and was.
#[derive(Default)]
pub(super) struct Events {
    all: Mutex<HashMap<(About, Reason), Told>>,
    more: Notify,
    metrics: Metrics,
}

#[derive(Debug)]
struct Told {
    message: String,
    /// How often, of which nothing is written yet.
    unwritten: i32,
    /// What the object counts, as far as this process wrote it.
    count: Option<i32>,
    written: Option<Instant>,
    due: Option<Instant>,
    tries: u32,
}

impl Events {
    /// Counts what is dropped there.
    pub(super) fn counted(metrics: Metrics) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Has it told, or counted if it was told already.
    pub(super) fn tell(&self, about: About, reason: Reason, message: &str) {
        let now = Instant::now();
        let mut all = self.lock();
        let about = (about, reason);
        if all.len() >= MOST && !all.contains_key(&about) {
            all.retain(|_, told| {
                told.due.is_some() || told.written.is_some_and(|written| written.elapsed() < FORGOTTEN)
            });
            if all.len() >= MOST {
                drop(all);
                return self.dropped(&about.0.namespace, &about.0.name, reason);
            }
        }
        let told = all.entry(about).or_insert_with(|| Told {
            message: message.to_owned(),
            unwritten: 0,
            count: None,
            written: None,
            due: Some(now),
            tries: 0,
        });
        let repeated = told.message == message;
        // It is a fact about the pod, not something that happens again.
        if repeated && reason == Reason::HostNetwork && told.written.is_some() {
            return;
        }
        told.unwritten = told.unwritten.saturating_add(1);
        let pause = if repeated { REPEATED } else { CALM };
        let due = told.written.map_or(now, |written| (written + pause).max(now));
        told.due = Some(told.due.map_or(due, |known| known.min(due)));
        if !repeated {
            message.clone_into(&mut told.message);
            told.tries = 0;
        }
        drop(all);
        self.more.notify_one();
    }

    /// It is not told: too much is to be told already.
    pub(super) fn dropped(&self, namespace: &str, pod: &str, reason: Reason) {
        if self.metrics.event_dropped() == 0 {
            tracing::warn!(namespace, pod, %reason, "{MOST} pods and reasons wait for their events to be written: what is more is not told, and counted (nsm_events_dropped_total)");
        }
    }

    /// The pod has gone: nothing more is to be said about it.
    pub(super) fn forget(&self, pod: &Key) {
        self.lock().retain(|(about, _), _| (&*about.namespace, &*about.name) != (&*pod.namespace, &*pod.name));
    }

    /// Writes what is to be told, one after another.
    pub(super) async fn run(&self, client: Client, node: &str) {
        loop {
            let (about, reason) = self.next().await;
            let Some((message, unwritten, count)) = self.taken(&about, reason) else { continue };
            let of_kind = event(&about, reason, node);
            let written = write(&client, of_kind, &message, unwritten, count).await;
            let mut all = self.lock();
            let Some(told) = all.get_mut(&(about.clone(), reason)) else { continue };
            match written {
                Ok(count) => {
                    told.count = Some(count);
                    told.tries = 0;
                }
                Err(Failure::Away(_) | Failure::Conflict(_)) if told.tries < TRIES => {
                    told.unwritten = told.unwritten.saturating_add(unwritten);
                    told.due = Some(Instant::now() + jitter(AGAIN * 2_u32.pow(told.tries)));
                    told.tries += 1;
                }
                Err(error) => {
                    let (namespace, pod) = (&about.namespace, &about.name);
                    tracing::warn!(%namespace, %pod, %reason, message, %error, "an event cannot be written");
                }
            }
        }
    }

    /// Waits for the next one that is due.
    pub(super) async fn next(&self) -> (About, Reason) {
        loop {
            let more = self.more.notified();
            let first = {
                let all = self.lock();
                let due = all.iter().filter_map(|(about, told)| Some((told.due?, about)));
                due.min_by_key(|(due, _)| *due).map(|(due, about)| (due, about.clone()))
            };
            match first {
                Some((due, about)) if due <= Instant::now() => return about,
                Some((due, _)) => {
                    let _ = tokio::time::timeout_at(due, more).await;
                }
                None => more.await,
            }
        }
    }

    fn taken(&self, about: &About, reason: Reason) -> Option<(String, i32, Option<i32>)> {
        let mut all = self.lock();
        let told = all.get_mut(&(about.clone(), reason))?;
        told.due = None;
        told.written = Some(Instant::now());
        Some((told.message.clone(), std::mem::take(&mut told.unwritten), told.count))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(About, Reason), Told>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes it with that message; answers what the object counts.
async fn write(client: &Client, event: Event, message: &str, more: i32, count: Option<i32>) -> Result<i32, Failure> {
    let (name, namespace) = (event.metadata.name.clone(), event.metadata.namespace.clone());
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace.unwrap_or_default());
    let (name, now) = (name.unwrap_or_default(), Time(jiff::Timestamp::now()));
    let patch = async |count: Option<i32>| {
        let mut change = json!({ "message": message, "lastTimestamp": now });
        if let Some(count) = count {
            change["count"] = count.into();
        }
        bounded(events.patch(&name, &PatchParams::default(), &Patch::Merge(change))).await
    };
    if let Some(count) = count.map(|count| count.saturating_add(more)) {
        match patch(Some(count)).await {
            // The API server has forgotten it.
            Err(Failure::Missing(_)) => {}
            done => return done.map(|_| count),
        }
    }
    let is_fact = event.reason == Some(Reason::HostNetwork.to_string());
    let event = Event {
        message: Some(message.to_owned()),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now.clone()),
        count: Some(more),
        ..event
    };
    match bounded(events.create(&PostParams::default(), &event)).await {
        // An earlier agent's.
        Err(Failure::Conflict(_)) if is_fact => Ok(more),
        Err(Failure::Conflict(_)) => {
            let there = patch(None).await?;
            let count = there.count.unwrap_or(1).saturating_add(more);
            patch(Some(count)).await.map(|_| count)
        }
        done => done.map(|_| more),
    }
}

/// An event that says nothing yet.
fn event(about: &About, reason: Reason, node: &str) -> Event {
    let text = |text: &str| Some(text.to_owned());
    Event {
        metadata: ObjectMeta {
            name: Some(name(about, reason)),
            namespace: text(&about.namespace),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: text("v1"),
            kind: text("Pod"),
            name: text(&about.name),
            namespace: text(&about.namespace),
            uid: text(&about.uid),
            ..ObjectReference::default()
        },
        type_: text(reason.kind()),
        reason: Some(reason.to_string()),
        source: Some(EventSource { component: text("nsm-agent"), host: None }),
        reporting_component: text(REPORTER),
        reporting_instance: Some(reporting_instance(node)),
        action: text("Attach"),
        ..Event::default()
    }
}

/// The same for the same pod and reason, whichever agent says it.
fn name(about: &About, reason: Reason) -> String {
    let readable: String = about.name.chars().take(150).collect();
    let readable = readable.trim_end_matches(['-', '.']);
    format!("{readable}.{}.{}", reason.to_string().to_lowercase(), about.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about() -> About {
        About { namespace: "default".into(), name: "p".into(), uid: "u".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_repeated_is_counted_and_written_seldom() {
        let events = Events::default();
        let began = Instant::now();
        events.tell(about(), Reason::Refused, "no");
        assert_eq!(events.next().await, (about(), Reason::Refused));
        assert_eq!(events.taken(&about(), Reason::Refused), Some(("no".into(), 1, None)));
        for _ in 0..5 {
            events.tell(about(), Reason::Refused, "no");
        }
        events.next().await;
        assert_eq!(began.elapsed(), REPEATED);
        assert_eq!(events.taken(&about(), Reason::Refused), Some(("no".into(), 5, None)));
        events.tell(about(), Reason::Refused, "still no");
        events.next().await;
        assert_eq!(began.elapsed(), REPEATED + CALM);
        events.forget(&Key { namespace: "default".into(), name: "p".into() });
        assert_eq!(events.taken(&about(), Reason::Refused), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fact_is_told_once() {
        let events = Events::default();
        events.tell(about(), Reason::HostNetwork, "host");
        events.next().await;
        events.taken(&about(), Reason::HostNetwork);
        events.tell(about(), Reason::HostNetwork, "host");
        assert!(futures::poll!(Box::pin(events.next())).is_pending());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_more_than_can_wait_is_counted() {
        let metrics = Metrics::new();
        let events = Events::counted(metrics.clone());
        let of = |number: usize| About { uid: number.to_string().into(), ..about() };
        (0..MOST + 3).for_each(|number| events.tell(of(number), Reason::Refused, "no"));
        events.tell(of(0), Reason::Refused, "still no");
        assert_eq!(metrics.event_dropped(), 3);
        // What was written long ago makes room.
        events.next().await;
        events.taken(&of(0), Reason::Refused);
        tokio::time::advance(FORGOTTEN).await;
        events.tell(of(MOST), Reason::Refused, "no");
        assert_eq!(metrics.event_dropped(), 4, "nothing more was dropped");
    }

    #[test]
    fn names_are_subdomains() {
        let long = About { name: "a.".repeat(120).into(), ..about() };
        let name = name(&long, Reason::HostNetwork);
        assert!(name.len() < 253 && !name.contains(".."), "{name}");
    }
}
