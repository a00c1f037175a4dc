//! Heal: a connection whose endpoint or wire is gone is made again, or its client is told.
//!
//! Guarantees: the end of an endpoint is noticed when the registry withdraws it, the end of an interface by the kernel's
//! notification; nobody polls. Events only say that it is time to look: what counts is what is found then
//! (`Healer::trouble`), so that an event that comes late moves nothing and none that comes early is lost. A connection
//! of the CNI plugin is moved to another endpoint, with pauses that grow, until it works or ends; the client of any other one
//! gets an UPDATE with state DOWN and decides itself. A connection whose pod has gone without DEL is closed. A wire that could not
//! be taken away is tried again until it is gone.

mod places;
mod refreshes;
mod watch;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use nsm_proto::connection::State;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::places::Places;
pub(super) use self::{refreshes::Refreshes, watch::Told};
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
/// The healer. Clones share it.
#[derive(Clone)]
pub struct Healer {
    manager: Manager,
    metrics: Metrics,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Connections that are being healed; true: something was heard of them meanwhile.
    healing: Arc<Mutex<HashMap<ConnectionId, bool>>>,
    places: Arc<Places>,
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
            Self::NeverRemade => "it could not be made again yet",
        }
    }
}

impl Healer {
    pub(super) fn new(manager: Manager, metrics: Metrics, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let old = manager.wires.connections.all().into_iter().map(|record| record.id.clone());
        let places = Arc::new(Places::before(old));
        Self { manager, metrics, tasks, stop, healing: Arc::default(), places }
    }

    /// Whether a connection is being healed.
    pub fn heals(&self, id: &str) -> bool {
        self.healing().contains_key(id)
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
        if self.manager.attachments.get(key).is_none() || self.is_healing(connection) {
            return;
        }
        tracing::warn!(connection, endpoint, why = trouble.text(), "connection lost: healing");
        self.tasks.spawn(self.clone().heal(connection.to_owned(), key.clone(), trouble));
    }

    /// Whether somebody heals it already, who then looks again; otherwise it is the caller's to heal.
    fn is_healing(&self, id: &str) -> bool {
        let mut healing = self.healing();
        let known = healing.get_mut(id).map(|heard| *heard = true).is_some();
        if !known {
            healing.insert(id.to_owned(), false);
        }
        known
    }

    async fn heal(self, id: ConnectionId, key: AttachmentKey, first: Trouble) {
        let started = Instant::now();
        let mut changes = self.manager.endpoints.directory().changes();
        let mut pause = FIRST;
        let mut tried = false;
        let mut trouble = Some(first);
        loop {
            if trouble.is_none() {
                if self.is_over(&id) {
                    return;
                }
                trouble = self.trouble(&id).await;
                continue;
            }
            changes.borrow_and_update();
            if tried {
                // A success that did not hold is no reason to hurry either.
                let waiting = async {
                    tokio::time::sleep(FIRST).await;
                    let _ = tokio::time::timeout(pause.saturating_sub(FIRST), changes.changed()).await;
                };
                tokio::select! {
                    () = self.stop.cancelled() => break,
                    () = waiting => pause = (pause * 2).min(LONGEST),
                }
                // Somebody else may have made it again meanwhile: a refresh.
                trouble = self.trouble(&id).await;
                if trouble.is_none() {
                    continue;
                }
            }
            tried = true;
            let reselected = match self.manager.attached.events(&key.client_id()) {
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
                Ok(None) => trouble = None,
                Err(error) => {
                    tracing::warn!(connection = id, %error, "connection not healed yet");
                    // Its end is what the next look finds.
                    self.pod_is_gone(&key).await;
                }
            }
        }
        self.healing().remove(&id);
    }

    /// Ends the healing of a connection, unless something was heard of it since it was last looked at.
    fn is_over(&self, id: &str) -> bool {
        let mut healing = self.healing();
        match healing.get_mut(id) {
            Some(heard) if *heard => *heard = false,
            _ => drop(healing.remove(id)),
        }
        !healing.contains_key(id)
    }

    /// What is wrong with a connection of the CNI plugin, as far as can be seen.
    async fn trouble(&self, id: &str) -> Option<Trouble> {
        let Some(record) = self.standing(id) else { return Some(Trouble::NeverRemade) };
        if let Some(trouble) = self.endpoint_trouble(&record) {
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

    fn endpoint_trouble(&self, record: &Connected) -> Option<Trouble> {
        let Some(now) = self.manager.endpoints.place(&record.endpoint) else { return Some(Trouble::EndpointGone) };
        let then = record.place.or_else(|| self.places.of(&record.id));
        then.filter(|then| *then != now).map(|_| Trouble::EndpointAnew)
    }

    fn healing(&self) -> MutexGuard<'_, HashMap<ConnectionId, bool>> {
        self.healing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
