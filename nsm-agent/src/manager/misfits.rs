//! Connections whose endpoint the matches of their network service do not choose any more, since the matches have changed.
//!
//! Guarantees: who still has an endpoint that the matches choose stays; who does not stays until another one can be had. A client that
//! asked for one endpoint and no other keeps it. An attachment of the CNI plugin is moved by the healer; the client of any
//! other connection is told, and whatever it asks next for that connection ([`Moves`]) is answered by an endpoint that is chosen now: a Go
//! client whose pings are answered asks for a connection that is DOWN as it was.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use nsm_proto::connection::{Connection, State};
use nsm_sdk::{Close, Element, Error, Next, Request};

use super::{Clients, Endpoints, Wires, wires::callers_netns};
use crate::state::{Attachment, ChosenBy, Connected, ConnectionId, Owner, Phase, Records};

/// Tells whom the matches send elsewhere. Clones share what is known.
#[derive(Clone)]
pub(super) struct Misfits {
    endpoints: Endpoints,
    clients: Clients,
    attachments: Records<Attachment>,
    /// Connections that were made by other matches than there are, and do not fit these.
    unsettled: Arc<Mutex<HashSet<ConnectionId>>>,
}

/// What a client asked for, by which its endpoint was chosen.
struct Asked {
    service: String,
    labels: BTreeMap<String, String>,
}

impl Misfits {
    /// Nobody is known yet.
    pub(super) fn new(endpoints: Endpoints, clients: Clients, attachments: Records<Attachment>) -> Self {
        Self { endpoints, clients, attachments, unsettled: Arc::default() }
    }

    /// The matches of this service have changed: its connections among these that they do not choose.
    pub(super) fn look(&self, service: &str, records: &[Arc<Connected>]) -> usize {
        let asks = |record: &&Arc<Connected>| {
            record.phase == Phase::Up
                && self.asked(record).is_some_and(|asked| asked.service == service && !self.fits(&asked, record))
        };
        let misfits: Vec<ConnectionId> = records.iter().filter(asks).map(|record| record.id.clone()).collect();
        let count = misfits.len();
        self.lock().extend(misfits);
        count
    }

    /// Forgets connections that are well or no more; `standing`: the record of one that is up.
    pub(super) fn settle(&self, standing: impl Fn(&str) -> Option<Arc<Connected>>) {
        let is_misfit = |id: &ConnectionId| {
            standing(id).is_some_and(|record| self.asked(&record).is_some_and(|asked| !self.fits(&asked, &record)))
        };
        self.lock().retain(is_misfit);
    }

    /// Whether the matches of its service send a connection to somebody else, who is there.
    pub(super) async fn is_sent_elsewhere(&self, record: &Connected) -> bool {
        if !self.lock().contains(&record.id) {
            return false;
        }
        let Some(asked) = self.asked(record) else { return false };
        !self.fits(&asked, record) && self.is_there_another(&asked, record).await
    }

    /// Whether another endpoint can be had for a connection than the one that it has.
    pub(super) async fn has_another(&self, record: &Connected) -> bool {
        match self.asked(record) {
            Some(asked) => self.is_there_another(&asked, record).await,
            None => false,
        }
    }

    async fn is_there_another(&self, asked: &Asked, record: &Connected) -> bool {
        let client = self.clients.of(&record.owner).await;
        let foreseen = self.endpoints.foreseen(&asked.service, &asked.labels, &client);
        foreseen.is_ok_and(|entries| entries.iter().any(|entry| entry.message.name != record.endpoint))
    }

    fn fits(&self, asked: &Asked, record: &Connected) -> bool {
        self.endpoints.fits(&asked.service, &asked.labels, &record.endpoint)
    }

    /// None: no matches chose for it.
    fn asked(&self, record: &Connected) -> Option<Asked> {
        match (&record.owner, record.chosen_by) {
            (Owner::Attachment(key), _) => {
                let attachment = self.attachments.get(key)?;
                Some(Asked { service: attachment.network_service.clone(), labels: attachment.labels.clone() })
            }
            (Owner::Pod(_) | Owner::Host { .. }, ChosenBy::Matches) => {
                let Connection { network_service, labels, .. } = record.client_side.decoded();
                Some(Asked { service: network_service, labels })
            }
            (Owner::Pod(_) | Owner::Host { .. }, ChosenBy::Client) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The element that makes a Request for a misfit one for another endpoint.
pub(super) struct Moves {
    /// Who they are.
    pub(super) misfits: Misfits,
    /// The connections of this node.
    pub(super) wires: Arc<Wires>,
}

#[async_trait]
impl Element for Moves {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let asked = &mut request.connection;
        if asked.state() != State::ReselectRequested
            && let Some(known) = self.wires.connections.get(&asked.id)
            && !matches!(known.owner, Owner::Attachment(_))
            && self.misfits.is_sent_elsewhere(&known).await
        {
            tracing::info!(
                connection = asked.id,
                endpoint = known.endpoint,
                "moved: its matches choose another endpoint"
            );
            // As the client would: Close, and a Request from anybody.
            self.wires.end(&known.id, callers_netns(&request.call)).await?;
            asked.set_state(State::ReselectRequested);
            asked.network_service_endpoint_name.clear();
            if !request.preferences.is_empty() {
                asked.mechanism = None;
            }
        }
        next.request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        next.close(close).await
    }
}
