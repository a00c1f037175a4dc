//! Heal: a connection whose endpoint or wire is gone is made again, or its client is told.
//!
//! Guarantees: the end of an endpoint is noticed when the registry withdraws it, the end of an interface by the kernel's
//! notification; nobody polls. Events only say that it is time to look: what counts is what is found then
//! (`Healer::trouble`), so that an event that comes late moves nothing and none that comes early is lost. A connection
//! of the CNI plugin is moved to another endpoint, with pauses that grow, until it works or ends, also when the matches of its network
//! service change and choose another one (`matches`, `misfits`); the client of any other one gets an UPDATE with state DOWN and decides itself.
//! What a pod has that has gone without DEL is ended, by whoever ends attachments ([`Ends`]). A wire that could not be taken away is tried
//! again until it is gone.

mod mailbox;
mod matches;
mod patients;
mod places;
mod refreshes;
mod watch;

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use nsm_proto::connection::State;
use tokio::sync::{Notify, watch as changes};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::patients::Ailment;
pub(super) use self::{mailbox::Mailbox, refreshes::Refreshes, watch::Told};
use self::{
    patients::{Begin, Patients, longer},
    places::Places,
};
use super::Manager;
use crate::{
    forwarder::Finding,
    metrics::Metrics,
    state::{AttachmentKey, Connected, ConnectionId, Owner, Phase, blocking},
};

/// First pause after a heal that failed.
const FIRST: Duration = Duration::from_millis(100);
/// Longest pause.
const LONGEST: Duration = Duration::from_secs(5);

/// Who ends attachments of the CNI plugin: in the turn of their pod, with all that is recorded of it.
#[async_trait]
pub trait Ends: Send + Sync {
    /// Ends all that the pod of this attachment has, if its namespace has gone; false: it has not.
    async fn if_pod_is_gone(&self, key: &AttachmentKey) -> bool;
}

/// The healer. Clones share it.
#[derive(Clone)]
pub struct Healer {
    manager: Manager,
    metrics: Metrics,
    ends: Arc<dyn Ends>,
    tasks: TaskTracker,
    stop: CancellationToken,
    healing: Arc<Patients>,
    /// Connections that their endpoints asked to refresh, until it is done.
    refreshing: Arc<Mutex<HashSet<ConnectionId>>>,
    places: Arc<Places>,
    /// It is time to look at all connections, though the registry has not changed.
    look: Arc<Notify>,
}

/// Why a connection is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    EndpointGone,
    EndpointAnew,
    SaidDown,
    SaidDeleted,
    Silent,
    LinkGone,
    NotRefreshed,
    SentElsewhere,
    NeverRemade,
}

impl Trouble {
    fn text(self) -> &'static str {
        match self {
            Self::EndpointGone => "its endpoint has gone",
            Self::EndpointAnew => "its endpoint has registered anew and knows nothing of it",
            Self::SaidDown => "its endpoint says DOWN",
            Self::SaidDeleted => "its endpoint closed it",
            Self::Silent => "its endpoint does not answer",
            Self::LinkGone => "its interface was deleted",
            Self::NotRefreshed => "its endpoint does not refresh it, and another one can be had",
            Self::SentElsewhere => "the matches of its network service choose another endpoint",
            Self::NeverRemade => "it could not be made again yet",
        }
    }
}

impl Healer {
    pub(super) fn new(
        manager: Manager,
        metrics: Metrics,
        ends: Arc<dyn Ends>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let old = manager.wires.connections.all().into_iter().map(|record| record.id.clone());
        let places = Arc::new(Places::before(old));
        Self {
            manager,
            metrics,
            ends,
            tasks,
            stop,
            healing: Arc::default(),
            refreshing: Arc::default(),
            places,
            look: Arc::default(),
        }
    }

    /// Whether a connection is being healed.
    pub fn heals(&self, id: &str) -> bool {
        self.healing.contains(id)
    }

    /// What keeps a connection from being healed, since the first attempt failed.
    pub fn ailment(&self, id: &str) -> Option<Ailment> {
        self.healing.ailment(id)
    }

    /// A number that moves when a connection fails to be healed, or is healed.
    pub fn changes(&self) -> changes::Receiver<u64> {
        self.healing.changes()
    }

    /// A connection that is up and that nobody is taking down.
    fn standing(&self, id: &str) -> Option<Arc<Connected>> {
        let wires = &self.manager.wires;
        let record = wires.connections.get(&id.to_owned()).filter(|record| record.phase == Phase::Up)?;
        (!wires.is_ending(id)).then_some(record)
    }

    fn lost(&self, record: &Arc<Connected>, trouble: Trouble) {
        match &record.owner {
            Owner::Attachment(key) => self.heal_attachment(&record.id, key, &record.endpoint, trouble),
            Owner::Pod(_) | Owner::Host { .. } => {
                let (connection, endpoint, why) = (&record.id, &record.endpoint, trouble.text());
                tracing::warn!(connection, endpoint, why, "connection lost: its client is told");
                self.manager.monitor.announce(&record.id, State::Down);
            }
        }
    }

    fn heal_attachment(&self, connection: &str, key: &AttachmentKey, endpoint: &str, trouble: Trouble) {
        if self.manager.attachments.get(key).is_none() {
            return;
        }
        let Some(begin) = self.healing.begin(connection) else { return };
        tracing::warn!(connection, endpoint, why = trouble.text(), "connection lost: healing");
        self.tasks.spawn(self.clone().heal(connection.to_owned(), key.clone(), trouble, begin));
    }

    async fn heal(self, id: ConnectionId, key: AttachmentKey, first: Trouble, begin: Begin) {
        let started = Instant::now();
        let mut changes = self.manager.endpoints.directory().changes();
        let (mut pause, mut at_once) = match begin {
            Begin::AtOnce => (FIRST, true),
            Begin::After(pause) => (pause, false),
        };
        let mut trouble = Some(first);
        loop {
            if trouble.is_none() {
                if self.healing.is_over(&id, pause) {
                    return;
                }
                trouble = self.trouble(&id).await;
                continue;
            }
            changes.borrow_and_update();
            if !at_once {
                // A change of the registry may help, but must not be what sets the pace.
                let floor = (pause / 4).max(FIRST);
                let waiting = async {
                    tokio::time::sleep(floor).await;
                    let _ = tokio::time::timeout(pause.saturating_sub(floor), changes.changed()).await;
                };
                tokio::select! {
                    () = self.stop.cancelled() => break,
                    () = waiting => pause = longer(pause),
                }
                // Somebody else may have made it again meanwhile: a refresh.
                trouble = self.trouble(&id).await;
                if trouble.is_none() {
                    continue;
                }
            }
            at_once = false;
            let reselected = match self.manager.events_of(&key) {
                Some(events) => events.reselect(|_| true).await,
                None => Ok(None),
            };
            match reselected {
                Ok(Some(connection)) => {
                    let duration_ms = crate::cni::milliseconds(started.elapsed());
                    let endpoint = connection.network_service_endpoint_name;
                    tracing::info!(connection = id, endpoint, duration_ms, "connection healed");
                    self.metrics.healed();
                    trouble = None;
                }
                // It was closed.
                Ok(None) => {
                    if self.healing.is_over(&id, FIRST) {
                        break;
                    }
                    trouble = self.trouble(&id).await;
                }
                Err(error) => {
                    tracing::warn!(connection = id, %error, "connection not healed yet");
                    self.healing.failed(&id, &error.to_string());
                    // Its end is what the next look finds.
                    self.ends.if_pod_is_gone(&key).await;
                }
            }
        }
        self.healing.forget(&id);
    }

    /// What is wrong with a connection of the CNI plugin, as far as can be seen.
    async fn trouble(&self, id: &str) -> Option<Trouble> {
        let Some(record) = self.standing(id) else { return Some(Trouble::NeverRemade) };
        if let Some(trouble) = self.endpoint_trouble(&record).await {
            return Some(trouble);
        }
        match self.manager.wires.hops.is_up(id) {
            Some(true) => {}
            Some(false) => return Some(Trouble::SaidDown),
            None if self.places.awaits(id) => {}
            None => return Some(Trouble::Silent),
        }
        self.link_is_gone(&record).await.then_some(Trouble::LinkGone)
    }

    /// Whether an interface of the connection is certainly not there.
    async fn link_is_gone(&self, record: &Connected) -> bool {
        let Some(wire) = record.wire.clone() else { return false };
        let forwarders = self.manager.wires.forwarders.clone();
        match blocking(move || forwarders.of(&wire).inspect(&wire, None)).await {
            Ok(findings) => findings.iter().any(Finding::is_gone),
            Err(error) => {
                tracing::warn!(connection = record.id, %error, "the interfaces of a connection cannot be looked at");
                false
            }
        }
    }

    async fn endpoint_trouble(&self, record: &Connected) -> Option<Trouble> {
        let Some(now) = self.manager.endpoints.place(&record.endpoint) else {
            let known = !self.manager.endpoints.directory().is_reading();
            return known.then_some(Trouble::EndpointGone);
        };
        let then = record.place.or_else(|| self.places.of(&record.id));
        if then.is_some_and(|then| then != now) {
            return Some(Trouble::EndpointAnew);
        }
        self.manager.misfits.is_sent_elsewhere(record).await.then_some(Trouble::SentElsewhere)
    }

    fn refreshing(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.refreshing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
