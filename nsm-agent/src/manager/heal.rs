//! Heal: a connection whose endpoint or wire is gone is made again, or its client is told.
//!
//! Guarantees: the end of an endpoint is noticed when the registry withdraws it, the end of an interface by the kernel's
//! notification; nobody polls. A connection of the CNI plugin is moved to another endpoint, with pauses that grow, until it
//! works or ends; the client of any other one gets an UPDATE with state DOWN and decides itself. A connection whose pod has
//! gone without DEL is closed.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nsm_netlink::{LinkEvent, Netlink};
use nsm_proto::connection::State;
use nsm_sdk::heal::{Change, HopEvent};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Manager, wires::LinkOf};
use crate::{
    cni::lives,
    metrics::Metrics,
    state::{Connected, Owner, Phase},
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
    healing: Arc<Mutex<HashSet<String>>>,
}

impl Healer {
    pub(super) fn new(manager: Manager, metrics: Metrics, tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { manager, metrics, tasks, stop, healing: Arc::default() }
    }

    /// Whether a connection is being healed.
    pub fn heals(&self, id: &str) -> bool {
        self.healing().contains(id)
    }

    pub(super) fn start(&self, netlink: &Netlink, endpoints: Option<mpsc::UnboundedReceiver<HopEvent>>) {
        self.tasks.spawn(self.clone().watch_registry());
        if let Some(told) = endpoints {
            self.tasks.spawn(self.clone().watch_endpoints(told));
        }
        let (tell, told) = mpsc::unbounded_channel();
        let known = self.manager.wires.clone();
        netlink.subscribe(move |event| {
            let ours = match event {
                LinkEvent::Deleted { nsid: Some(nsid), index, .. } => known.link(*nsid, *index),
                _ => None,
            };
            if let Some(link) = ours
                && tell.send(link).is_err()
            {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        self.tasks.spawn(self.clone().watch_links(told));
    }

    /// Connections whose endpoint was withdrawn, or has registered anew and knows nothing of them.
    async fn watch_registry(self) {
        let mut changes = self.manager.endpoints.directory().changes();
        let mut places: HashMap<String, u64> = HashMap::new();
        loop {
            self.manager.owed.deliver();
            let mut present: HashMap<String, Option<u64>> = HashMap::new();
            for record in self.manager.wires.connections.all() {
                if record.phase != Phase::Up {
                    continue;
                }
                let endpoints = &self.manager.endpoints;
                let place = *present.entry(record.endpoint.clone()).or_insert_with_key(|name| endpoints.place(name));
                let lost = match (place, places.get(&record.endpoint)) {
                    (None, _) => true,
                    (Some(now), Some(before)) => now != *before,
                    (Some(_), None) => false,
                };
                if lost {
                    self.lost(&record, "its endpoint has gone");
                }
            }
            places.retain(|name, _| present.contains_key(name));
            places.extend(present.into_iter().filter_map(|(name, place)| Some((name, place?))));
            tokio::select! {
                () = self.stop.cancelled() => return,
                more = changes.changed() => if more.is_err() { return },
            }
        }
    }

    /// What endpoints say of their connections.
    async fn watch_endpoints(self, mut told: mpsc::UnboundedReceiver<HopEvent>) {
        loop {
            let event = tokio::select! {
                () = self.stop.cancelled() => return,
                event = told.recv() => match event { Some(event) => event, None => return },
            };
            let Some(record) = self.manager.wires.connections.get(&event.id).filter(|record| record.phase == Phase::Up)
            else {
                continue;
            };
            if self.manager.wires.is_ending(&record.id) {
                continue;
            }
            match event.change {
                Change::Down => self.lost(&record, "its endpoint says DOWN"),
                Change::Deleted => self.lost(&record, "its endpoint closed it"),
                Change::Lost => self.lost(&record, "its endpoint does not answer"),
                Change::RefreshRequested => self.refresh(&record),
            }
        }
    }

    fn refresh(&self, record: &Arc<Connected>) {
        let events = match &record.owner {
            Owner::Attachment(key) => {
                let attachment = self.manager.wires.attachments.get(key);
                attachment.and_then(|attachment| self.manager.attached.events(&attachment.client_id))
            }
            Owner::Pod(_) | Owner::Host { .. } => {
                self.manager.monitor.announce(&record.id, State::RefreshRequested);
                None
            }
        };
        if let Some(events) = events {
            let id = record.id.clone();
            self.tasks.spawn(async move {
                if let Err(error) = events.request(|_| true).await {
                    tracing::warn!(connection = id, %error, "a refresh that the endpoint asked for failed");
                }
            });
        }
    }

    async fn watch_links(self, mut told: mpsc::UnboundedReceiver<LinkOf>) {
        loop {
            let link = tokio::select! {
                () = self.stop.cancelled() => return,
                link = told.recv() => match link { Some(link) => link, None => return },
            };
            if let Some(record) = self.manager.wires.connections.get(&link.connection)
                && record.phase == Phase::Up
                && !self.manager.wires.is_ending(&record.id)
            {
                self.tasks.spawn(self.clone().link_lost(record));
            }
        }
    }

    /// An interface of ours went without us: with its pod, or by somebody's hand.
    async fn link_lost(self, record: Arc<Connected>) {
        match &record.owner {
            Owner::Attachment(key) => match self.manager.wires.attachments.get(key) {
                Some(attachment) if !lives(&attachment).await => {
                    tracing::info!(
                        connection = record.id,
                        container = key.container_id,
                        "the pod's namespace has gone without DEL: closed"
                    );
                    if let Some(events) = self.manager.attached.events(&attachment.client_id) {
                        let _ = events.close(|_| true).await;
                    }
                    let _ = self.manager.wires.attachments.remove(key).await;
                }
                Some(_) => self.lost(&record, "its interface was deleted"),
                None => {}
            },
            Owner::Pod(_) | Owner::Host { .. } => {
                tracing::info!(connection = record.id, "an interface has gone without Close: closed");
                if let Some(events) = self.manager.begin.events(&record.id) {
                    let _ = events.close(|_| true).await;
                }
            }
        }
    }

    fn lost(&self, record: &Arc<Connected>, why: &'static str) {
        match &record.owner {
            Owner::Attachment(key) => {
                let Some(attachment) = self.manager.wires.attachments.get(key) else { return };
                if self.healing().insert(record.id.clone()) {
                    tracing::warn!(connection = record.id, endpoint = record.endpoint, why, "connection lost: healing");
                    self.tasks.spawn(self.clone().heal(record.id.clone(), attachment.client_id.clone()));
                }
            }
            Owner::Pod(_) | Owner::Host { .. } => {
                tracing::warn!(
                    connection = record.id,
                    endpoint = record.endpoint,
                    why,
                    "connection lost: its client is told"
                );
                self.manager.monitor.announce(&record.id, State::Down);
            }
        }
    }

    async fn heal(self, id: String, client_id: String) {
        let mut pause = FIRST;
        let started = std::time::Instant::now();
        let mut changes = self.manager.endpoints.directory().changes();
        loop {
            changes.borrow_and_update();
            let Some(events) = self.manager.attached.events(&client_id) else { break };
            match events.reselect(|_| true).await {
                Ok(Some(connection)) => {
                    let duration_ms = crate::cni::milliseconds(started.elapsed());
                    let endpoint = connection.network_service_endpoint_name;
                    tracing::info!(connection = id, endpoint, duration_ms, "connection healed");
                    self.metrics.healed();
                    break;
                }
                Ok(None) => break,
                Err(error) => tracing::warn!(connection = id, %error, "connection not healed yet"),
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST),
                _ = changes.changed() => {}
            }
        }
        self.healing().remove(&id);
    }

    fn healing(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.healing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
