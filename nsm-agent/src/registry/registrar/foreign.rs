//! Objects that others have registered where several agents share what is kept: the backing brings them.
//!
//! Assumption: the caller holds the gate of the name.

use std::sync::Arc;

use nsm_proto::registry::NetworkServiceEndpoint;
use tokio::{sync::MutexGuard, time::Instant};

use super::Registrar;
use crate::registry::{Entry, Owner, Party, Reach, Service};

/// An endpoint of another node or program.
#[derive(Debug)]
pub(in crate::registry) struct Foreign {
    pub(in crate::registry) message: Arc<NetworkServiceEndpoint>,
    pub(in crate::registry) owner: Owner,
    pub(in crate::registry) reach: Reach,
    pub(in crate::registry) party: Party,
    pub(in crate::registry) deadline: Option<Instant>,
}

impl Registrar {
    /// Where writers of that name wait for each other.
    pub(in crate::registry) async fn gate(&self, name: &str) -> MutexGuard<'_, ()> {
        self.0.gate(name).await
    }

    /// A service as it is now.
    pub(in crate::registry) fn put_service(&self, service: Service) {
        let service = service.with_its_owner();
        let known = self.0.directory.service(&service.message.name);
        if known.is_none_or(|known| *known != service) {
            self.0.directory.put_service(&Arc::new(service));
        }
    }

    /// The service is gone.
    pub(in crate::registry) fn take_service(&self, name: &str) {
        if self.0.directory.service(name).is_some() {
            self.0.directory.take_service(name);
        }
    }

    /// Another's endpoint as it is now.
    pub(in crate::registry) fn put_foreign(&self, foreign: Foreign) {
        let Foreign { message, owner, reach, party, deadline } = foreign;
        let old = self.0.directory.state().stored_endpoint(&message.name).cloned();
        let timeless =
            |message: &NetworkServiceEndpoint| NetworkServiceEndpoint { expiration_time: None, ..message.clone() };
        let same =
            old.as_ref().is_some_and(|old| old.owner == owner && old.reach.is_like(&reach) && old.party == party);
        let renewal = same && old.as_ref().is_some_and(|old| timeless(&old.message) == timeless(&message));
        if renewal && old.as_ref().is_some_and(|old| old.message.expiration_time == message.expiration_time) {
            return;
        }
        let place = if let Some(old) = old.filter(|_| same) {
            old.place
        } else {
            self.0.forget(&message.name);
            self.0.directory.state().next_place()
        };
        let entry = Arc::new(Entry { message, owner, reach, party, netns: None, process: None, place, deadline });
        if renewal {
            self.0.directory.renew_endpoint(&entry);
        } else {
            self.0.directory.put_endpoint(&entry);
        }
        self.0.sooner.notify_one();
    }

    /// Another's endpoint is gone.
    pub(in crate::registry) fn drop_foreign(&self, name: &str) {
        let stored = self.0.directory.state().stored_endpoint(name).is_some();
        if stored {
            self.0.forget(name);
        }
    }

    /// An endpoint of this node is kept no more, though nobody here asked for it: its process lives, and may register again.
    pub(in crate::registry) fn drop_endpoint(&self, name: &str) {
        let stored = self.0.directory.state().stored_endpoint(name).is_some();
        if stored {
            self.0.await_return(name);
            tracing::info!(endpoint = name, "endpoint is registered no more");
        }
    }

    /// Somebody has edited what an endpoint of this node offers; who it is, and how it is reached, stays.
    pub(in crate::registry) fn edit_endpoint(&self, edited: &NetworkServiceEndpoint) {
        let found = self.0.directory.state().stored_endpoint(&edited.name).cloned();
        let Some(old) = found else { return };
        let message = NetworkServiceEndpoint {
            url: old.message.url.clone(),
            expiration_time: old.message.expiration_time,
            initial_registration_time: old.message.initial_registration_time,
            ..edited.clone()
        };
        let entry = Entry {
            message: message.into(),
            owner: old.owner,
            reach: old.reach.clone(),
            party: old.party.clone(),
            netns: old.netns.clone(),
            process: old.process,
            place: old.place,
            deadline: old.deadline,
        };
        self.0.directory.put_endpoint(&Arc::new(entry));
    }
}
