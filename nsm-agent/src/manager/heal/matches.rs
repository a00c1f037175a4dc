//! Attachments whose service has other matches than when their endpoint was chosen.
//!
//! Guarantees: only a change of the matches makes anybody look: endpoints that come, go or change their labels move nobody. Who
//! still has an endpoint that the matches choose stays; who does not stays until another one can be had. Matches that changed
//! while no agent ran count from the next change on.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::StreamExt;
use nsm_proto::registry::NetworkService;

use super::Healer;
use crate::{
    registry::{Change, Party},
    state::{Attachment, Connected, ConnectionId, Owner, Phase},
};

/// Connections that were made by other matches than there are, and do not fit these.
#[derive(Default)]
pub(super) struct Matches(Mutex<HashSet<ConnectionId>>);

/// Each service as it was last seen.
#[derive(Default)]
struct Seen(HashMap<String, Arc<NetworkService>>);

impl Healer {
    /// Looks at each service that changes.
    pub(super) async fn watch_matches(self) {
        let mut services = match self.manager.endpoints.directory().watch_services(NetworkService::default()) {
            Ok(services) => services,
            Err(error) => {
                tracing::error!(%error, "network services cannot be watched: their clients do not follow their matches");
                return;
            }
        };
        let mut seen = Seen::default();
        loop {
            let change = tokio::select! {
                () = self.stop.cancelled() => return,
                change = services.next() => match change { Some(change) => change, None => return },
            };
            if let Change::Current(service) = change
                && seen.is_changed(&service.message)
            {
                self.matches_changed(&service.message.name);
            }
        }
    }

    fn matches_changed(&self, service: &str) {
        let records = self.manager.wires.connections.all();
        let of_service = |record: &&Arc<Connected>| {
            record.phase == Phase::Up && self.attachment_of(record).is_some_and(|one| one.network_service == service)
        };
        let made: Vec<&Arc<Connected>> = records.iter().filter(of_service).collect();
        tracing::info!(service, connections = made.len(), "the matches of a network service have changed");
        self.matches.lock().extend(made.iter().map(|record| record.id.clone()));
        for record in made {
            if let Some(trouble) = self.endpoint_trouble(record) {
                self.lost(record, trouble);
            }
        }
    }

    /// Forgets connections that are well or no more.
    pub(super) fn settle_matches(&self) {
        let misfit = |id: &ConnectionId| self.standing(id).is_some_and(|record| !self.fits(&record));
        self.matches.lock().retain(misfit);
    }

    /// Whether the matches of its service send an attachment's connection to somebody else, who is there.
    pub(super) fn is_sent_elsewhere(&self, record: &Connected) -> bool {
        let unsettled = self.matches.lock().contains(&record.id);
        let Owner::Attachment(key) = &record.owner else { return false };
        unsettled && !self.fits(record) && self.has_another(record, key)
    }

    /// Programs choose themselves, also whether they want one endpoint and no other.
    fn attachment_of(&self, record: &Connected) -> Option<Arc<Attachment>> {
        match &record.owner {
            Owner::Attachment(key) => self.manager.attachments.get(key),
            Owner::Pod(_) | Owner::Host { .. } => None,
        }
    }

    fn fits(&self, record: &Connected) -> bool {
        let Some(attachment) = self.attachment_of(record) else { return true };
        let client = Party::of_pod(attachment.pod.as_ref());
        let (service, labels) = (&attachment.network_service, &attachment.labels);
        self.manager.endpoints.fits(service, labels, &client, &record.endpoint)
    }
}

impl Matches {
    fn lock(&self) -> MutexGuard<'_, HashSet<ConnectionId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    /// Whether a service has other matches than when it was last seen. One that went and came back is the same one.
    fn is_changed(&mut self, service: &Arc<NetworkService>) -> bool {
        let before = self.0.insert(service.name.clone(), service.clone());
        before.is_some_and(|before| before.matches != service.matches)
    }
}

#[cfg(test)]
mod tests {
    use nsm_proto::registry::Match;

    use super::*;

    #[test]
    fn the_first_look_and_the_same_matches_are_no_change() {
        let service =
            |name: &str, matches| Arc::new(NetworkService { name: name.into(), matches, ..NetworkService::default() });
        let mut seen = Seen::default();
        assert!(!seen.is_changed(&service("s", vec![])));
        assert!(!seen.is_changed(&service("s", vec![])));
        assert!(seen.is_changed(&service("s", vec![Match::default()])));
        assert!(!seen.is_changed(&service("s", vec![Match::default()])));
        assert!(!seen.is_changed(&service("t", vec![Match::default()])));
    }
}
