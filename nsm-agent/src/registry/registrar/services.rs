//! Writes of network services.
//!
//! Guarantee: peers neither change nor remove a service of an operator's, nor one that says who may use or serve it, nor one of another
//! namespace, also while nobody offers it.

use std::sync::Arc;

use nsm_objects::Access;
use nsm_proto::registry::NetworkService;

use super::Inner;
use crate::registry::{Error, Outcome, Owner, Party, Registered, Service};

impl Inner {
    pub(super) async fn register_service(
        &self,
        service: NetworkService,
        payload_given: bool,
        by: Owner,
    ) -> Result<Registered<Service>, Error> {
        let _gate = self.gate(&service.name).await;
        self.hear(by);
        let party = Party::of_owner(by, &*self.pods).await;
        let Some(old) = self.directory.service(&service.name) else {
            self.directory.state().room_for_service(by, &service, None)?;
            let namespace = party.namespace().cloned();
            let service = Service { message: service.into(), owner: by, access: Access::default(), namespace };
            return self.write_service(service).await;
        };
        let same = service.matches == old.message.matches && (service.payload == old.message.payload || !payload_given);
        if same || service.matches.is_empty() {
            return Ok(Registered { object: old, outcome: Outcome::Unchanged });
        }
        if !by.may_change(old.owner) && !self.is_abandoned(&old, &party) {
            return Err(Error::Taken { what: "network service", name: service.name, owner: old.owner });
        }
        self.directory.state().room_for_service(by, &service, Some(&old))?;
        // Who may use and serve it is an operator's to say.
        let (access, namespace) = (old.access.clone(), old.namespace.clone());
        self.write_service(Service { message: service.into(), owner: by, access, namespace }).await
    }

    /// A peer's service that it offers no more, for others of the service's namespace: pods come back with another network namespace, and
    /// must find their service free.
    fn is_abandoned(&self, service: &Service, party: &Party) -> bool {
        if !self.is_at_home(service, party) {
            return false;
        }
        let state = self.directory.state();
        let Some(offers) = state.offers(&service.message.name) else { return service.owner != Owner::Operator };
        match service.owner {
            Owner::Operator => false,
            // Others of its namespace may offer it still.
            Owner::Departed => !offers.all().any(|entry| self.is_at_home(service, &entry.party)),
            owner @ (Owner::Peer { .. } | Owner::PodOfHost(_) | Owner::Elsewhere) => {
                offers.all().all(|entry| entry.owner != owner)
            }
        }
    }

    /// Whether somebody is of the service's namespace. Everybody is of one's that has none: the pod of who registered it is not known.
    fn is_at_home(&self, service: &Service, party: &Party) -> bool {
        let home = party.namespace().or_else(|| self.backing.home_of_unknown());
        service.namespace.is_none() || service.namespace.as_ref() == home
    }

    pub(super) async fn write_service(&self, service: Service) -> Result<Registered<Service>, Error> {
        let name = service.message.name.clone();
        let old = self.directory.service(&name);
        if let Some(old) = &old
            && **old == service
        {
            return Ok(Registered { object: old.clone(), outcome: Outcome::Unchanged });
        }
        self.backing.put_service(&service, old.as_deref()).await?;
        let object = Arc::new(service);
        self.directory.put_service(&object);
        let outcome = if old.is_some() { Outcome::Changed } else { Outcome::Created };
        tracing::info!(service = name, owner = %object.owner, ?outcome, "network service registered");
        Ok(Registered { object, outcome })
    }

    pub(super) async fn unregister_service(&self, name: &str, by: Owner) -> Result<bool, Error> {
        let _gate = self.gate(name).await;
        let Some(old) = self.directory.service(name) else { return Ok(false) };
        let party = Party::of_owner(by, &*self.pods).await;
        if !by.may_change(old.owner) && !self.is_abandoned(&old, &party) {
            return Err(Error::NotYours { what: "network service", name: name.to_owned(), owner: old.owner });
        }
        self.backing.remove_service(&old).await?;
        self.directory.take_service(name);
        tracing::info!(service = name, %by, "network service unregistered");
        Ok(true)
    }
}
