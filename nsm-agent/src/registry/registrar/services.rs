//! Writes of network services.
//!
//! Guarantee: peers neither change nor remove a service of an operator's, nor one that says who may use or serve it.

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
        let Some(old) = self.directory.service(&service.name) else {
            self.directory.state().room_for_service(by, &service, None)?;
            let namespace = Party::of_owner(by, &*self.pods).await.namespace().cloned();
            let service = Service { message: service.into(), owner: by, access: Access::default(), namespace };
            return self.write_service(service).await;
        };
        let same = service.matches == old.message.matches && (service.payload == old.message.payload || !payload_given);
        if same || service.matches.is_empty() {
            return Ok(Registered { object: old, outcome: Outcome::Unchanged });
        }
        if !by.may_change(old.owner) && !self.is_abandoned(&old) {
            return Err(Error::Taken { what: "network service", name: service.name, owner: old.owner });
        }
        self.directory.state().room_for_service(by, &service, Some(&old))?;
        // Who may use and serve it is an operator's to say.
        let (access, namespace) = (old.access.clone(), old.namespace.clone());
        self.write_service(Service { message: service.into(), owner: by, access, namespace }).await
    }

    /// A peer's service that it offers no more: pods come back with another namespace, and must find their service free.
    fn is_abandoned(&self, service: &Service) -> bool {
        let state = self.directory.state();
        let Some(offers) = state.offers(&service.message.name) else { return service.owner != Owner::Operator };
        match service.owner {
            Owner::Operator => false,
            // Others may offer it still.
            Owner::Departed => offers.all().next().is_none(),
            owner @ (Owner::Peer { .. } | Owner::PodOfHost(_) | Owner::Elsewhere) => {
                offers.all().all(|entry| entry.owner != owner)
            }
        }
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
        if !by.may_change(old.owner) && !self.is_abandoned(&old) {
            return Err(Error::NotYours { what: "network service", name: name.to_owned(), owner: old.owner });
        }
        self.backing.remove_service(&old).await?;
        self.directory.take_service(name);
        tracing::info!(service = name, %by, "network service unregistered");
        Ok(true)
    }
}
