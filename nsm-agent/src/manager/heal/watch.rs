//! What the healer listens to: the registry, endpoints, refreshes, the kernel. Each says that it is time to look at a connection.

use std::{
    collections::HashMap,
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use nsm_netlink::{LinkEvent, Netlink};
use nsm_proto::connection::State;
use nsm_sdk::heal::Change;
use tokio::sync::mpsc;

use super::{Healer, LONGEST, Trouble, mailbox::Mailbox, refreshes::NotRefreshed};
use crate::{
    manager::Found,
    state::{Connected, ConnectionId, Owner, Phase},
};

/// A DELETE may be a step of a move that we asked for ourselves: the UPDATE follows it within this time.
const SETTLE: Duration = Duration::from_millis(50);

/// What the healer hears from chains.
pub(in crate::manager) struct Told {
    /// What endpoints say of their connections.
    pub(in crate::manager) by_endpoints: Arc<Mailbox>,
    /// Refreshes that failed.
    pub(in crate::manager) by_refreshes: mpsc::UnboundedReceiver<NotRefreshed>,
}

/// What the kernel's events say.
enum Lost {
    /// An interface of this connection has gone.
    One(ConnectionId),
    /// Some may have: events were lost.
    Unknown,
}

impl Healer {
    /// Listens from now on.
    pub(in crate::manager) fn start(&self, netlink: &Netlink, told: Told) {
        self.tasks.spawn(self.clone().watch_registry());
        self.tasks.spawn(self.clone().watch_matches());
        self.tasks.spawn(self.clone().watch_endpoints(told.by_endpoints));
        self.tasks.spawn(self.clone().watch_refreshes(told.by_refreshes));
        self.tasks.spawn(self.clone().watch_leftovers());
        let (tell, told) = mpsc::unbounded_channel();
        let wires = self.manager.wires.clone();
        netlink.subscribe(move |event| {
            let lost = match event {
                LinkEvent::Deleted { mac: Some(mac), .. } => wires.owner_of(*mac).map(Lost::One),
                // The other ends of its pairs vanish as well, and have events of their own.
                LinkEvent::Deleted { mac: None, .. } | LinkEvent::NetnsGone { .. } => None,
                LinkEvent::Overrun => Some(Lost::Unknown),
            };
            match lost.map(|lost| tell.send(lost)) {
                Some(Err(_)) => ControlFlow::Break(()),
                Some(Ok(())) | None => ControlFlow::Continue(()),
            }
        });
        self.tasks.spawn(self.clone().watch_links(told));
    }

    /// Connections whose endpoint was withdrawn, has registered anew and knows nothing of them, or is not the one to choose any more.
    async fn watch_registry(self) {
        let mut changes = self.manager.endpoints.directory().changes();
        // What was said already of connections whose clients decide themselves.
        let mut troubled: HashMap<ConnectionId, (Trouble, SystemTime)> = HashMap::new();
        loop {
            self.manager.owed.deliver();
            let records = self.manager.wires.connections.all();
            self.resume(&records);
            self.manager.misfits.settle(|id| self.standing(id));
            let mut still = HashMap::new();
            for record in records.iter().filter(|record| record.phase == Phase::Up) {
                if let Some(trouble) = self.endpoint_trouble(record).await {
                    // One that was made again meanwhile is another one.
                    let told = (trouble, record.since);
                    if troubled.get(&record.id) != Some(&told) {
                        self.lost(record, trouble);
                    }
                    still.insert(record.id.clone(), told);
                }
            }
            troubled = still;
            self.places.retain(|id| self.manager.wires.connections.get(&id.to_owned()).is_some());
            tokio::select! {
                () = self.stop.cancelled() => return,
                more = changes.changed() => if more.is_err() { return },
                () = self.look.notified() => {}
            }
        }
    }

    /// Connections from before a restart whose endpoint is back: it is asked which of them it still has.
    fn resume(&self, records: &[Arc<Connected>]) {
        let mut returned: HashMap<&str, Vec<&Connected>> = HashMap::new();
        for record in records.iter().filter(|record| self.places.awaits(&record.id)) {
            returned.entry(&record.endpoint).or_default().push(record);
        }
        for (endpoint, records) in returned {
            let candidate = match self.manager.endpoints.endpoint(endpoint) {
                Found::Ready(candidate) => candidate,
                Found::Gone | Found::Unreachable(_) => continue,
            };
            // A refresh may have come first; then the endpoint has spoken for itself.
            let of_before = records.into_iter().filter(|record| self.places.resumed(&record.id, candidate.place));
            let connections: Vec<_> = of_before.map(|record| record.endpoint_side.decoded()).collect();
            self.manager.wires.hops.resume(&connections, &candidate.target);
        }
    }

    /// What endpoints say of their connections.
    async fn watch_endpoints(self, told: Arc<Mailbox>) {
        loop {
            let words = tokio::select! {
                () = self.stop.cancelled() => return,
                words = told.take() => words,
            };
            for (id, change) in words {
                let Some(record) = self.standing(&id) else { continue };
                match change {
                    Change::Down => self.lost(&record, Trouble::SaidDown),
                    Change::Deleted => drop(self.tasks.spawn(self.clone().deleted(record))),
                    Change::Lost => self.lost(&record, Trouble::Silent),
                    Change::RefreshRequested => self.refresh(&record),
                }
            }
        }
    }

    async fn deleted(self, record: Arc<Connected>) {
        tokio::time::sleep(SETTLE).await;
        if self.manager.wires.hops.is_up(&record.id) == Some(false)
            && let Some(record) = self.standing(&record.id)
        {
            self.lost(&record, Trouble::SaidDeleted);
        }
    }

    fn refresh(&self, record: &Arc<Connected>) {
        let events = match &record.owner {
            Owner::Attachment(key) => self.manager.events_of(key),
            Owner::Pod(_) | Owner::Host { .. } => {
                self.manager.monitor.announce(&record.id, State::RefreshRequested);
                None
            }
        };
        // One at a time, however often it asks.
        if let Some(events) = events
            && self.refreshing().insert(record.id.clone())
        {
            let (id, healer) = (record.id.clone(), self.clone());
            self.tasks.spawn(async move {
                if let Err(error) = events.request(|_| true).await {
                    tracing::warn!(connection = id, %error, "a refresh that the endpoint asked for failed");
                }
                healer.refreshing().remove(&id);
            });
        }
    }

    /// Connections of the CNI plugin that their endpoint does not refresh: it hangs, or says no.
    async fn watch_refreshes(self, mut told: mpsc::UnboundedReceiver<NotRefreshed>) {
        loop {
            let NotRefreshed { attachment } = tokio::select! {
                () = self.stop.cancelled() => return,
                failed = told.recv() => match failed { Some(failed) => failed, None => return },
            };
            let Some(known) = self.manager.attachments.get(&attachment) else { continue };
            let owner = Owner::Attachment(attachment.clone());
            let id = self.manager.wires.ids.id_of(&owner, &known.client_id);
            match self.standing(&id) {
                // While it has time left the wire works on; with nobody else to go to, to the end of its time.
                Some(record) => {
                    if self.is_running_out(&record) && self.manager.misfits.has_another(&record).await {
                        self.lost(&record, Trouble::NotRefreshed);
                    }
                }
                None => self.heal_attachment(&id, &attachment, "", Trouble::NeverRemade),
            }
        }
    }

    /// Wires that could not be taken away.
    async fn watch_leftovers(self) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.manager.wires.clear_leftovers(LONGEST) => {}
            }
        }
    }

    fn is_running_out(&self, record: &Connected) -> bool {
        let connection = record.client_side.decoded();
        let segments = connection.path.into_iter().flat_map(|path| path.path_segments);
        let ends = segments.filter_map(|segment| SystemTime::try_from(segment.expires?).ok()).min();
        let left = |end: SystemTime| end.duration_since(SystemTime::now()).unwrap_or_default();
        ends.is_some_and(|end| left(end) < self.manager.owed.life() / 3)
    }

    async fn watch_links(self, mut told: mpsc::UnboundedReceiver<Lost>) {
        loop {
            let lost = tokio::select! {
                () = self.stop.cancelled() => return,
                lost = told.recv() => match lost { Some(lost) => lost, None => return },
            };
            let suspects = match lost {
                Lost::One(connection) => vec![connection],
                Lost::Unknown => {
                    let all = self.manager.wires.connections.all();
                    tracing::warn!(connections = all.len(), "the kernel's events were lost: looking at all interfaces");
                    all.iter().map(|record| record.id.clone()).collect()
                }
            };
            for record in suspects.iter().filter_map(|connection| self.standing(connection)) {
                self.tasks.spawn(self.clone().link_lost(record));
            }
        }
    }

    /// An interface of ours went without us: with its pod, or by somebody's hand.
    async fn link_lost(self, record: Arc<Connected>) {
        if !self.link_is_gone(&record).await {
            return;
        }
        match &record.owner {
            Owner::Attachment(key) => {
                if self.ends.if_pod_is_gone(key).await {
                    return;
                }
                if let Some(record) = self.standing(&record.id) {
                    self.lost(&record, Trouble::LinkGone);
                }
            }
            Owner::Pod(_) | Owner::Host { .. } => {
                tracing::info!(connection = record.id, "an interface has gone without Close: closed");
                if let Some(events) = self.manager.begin.events(&record.id)
                    && let Err(error) = events.close(|_| true).await
                {
                    tracing::warn!(connection = record.id, %error, "not closed yet");
                }
            }
        }
    }
}
