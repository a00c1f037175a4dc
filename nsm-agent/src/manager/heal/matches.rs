//! Notices that the matches of a network service change.
//!
//! Guarantees: only a change of the matches makes anybody look: endpoints that come, go or change their labels move nobody. Matches that
//! changed while no agent ran count from the next change on.

use std::{collections::HashMap, sync::Arc};

use futures::StreamExt;
use nsm_proto::registry::NetworkService;

use super::Healer;
use crate::registry::Change;

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

    /// What follows is what the healer does whenever it looks, so that nobody is told twice.
    fn matches_changed(&self, service: &str) {
        let misfits = self.manager.misfits.look(service, &self.manager.wires.connections.all());
        tracing::info!(service, misfits, "the matches of a network service have changed");
        self.look.notify_one();
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
