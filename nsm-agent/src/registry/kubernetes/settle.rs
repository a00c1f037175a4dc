//! What a name stands for: from the objects that were seen to the directory.
//!
//! Guarantee: a name is looked at under the gate of its writers, so that what a registration has just written is known.

use std::{sync::Arc, time::Duration};

use kube::api::ApiResource;
use nsm_proto::registry::NetworkServiceEndpoint;
use tokio::time::Instant;

use super::{
    Kubernetes, ORPHANED, Ours, Seen, Unsettled, names,
    objects::{Found, Key, Told},
    told, withdrawals,
};
use crate::{
    kubernetes::jitter,
    registry::{
        Owner, Party, Reach, Registry, Role, Service,
        offers::Offers,
        registrar::{Foreign, Registrar, left_until},
    },
};

/// Longest wait before something is said about a service.
const SPEAK: Duration = Duration::from_secs(2);

impl Kubernetes {
    /// Looks at a name.
    pub(super) async fn settle(self: &Arc<Self>, registrar: &Registrar, name: &Unsettled) {
        match name {
            Unsettled::Service(name) => self.settle_service(registrar, name).await,
            Unsettled::Endpoint(name) => self.settle_endpoint(registrar, name).await,
        }
    }

    async fn settle_service(self: &Arc<Self>, registrar: &Registrar, name: &str) {
        let _gate = registrar.gate(name).await;
        let first = self.seen().services.named(name).find(|found| found.message.is_ok()).cloned();
        let before = registrar.directory().service(name);
        let described = first.as_ref().and_then(|found| Some((found, found.message.as_ref().ok()?)));
        match described {
            Some((found, described)) => registrar.put_service(Service {
                message: described.message.clone().into(),
                owner: self.owner(found),
                access: described.access.clone(),
                namespace: Some(found.key.namespace.clone()),
            }),
            None => registrar.take_service(name),
        }
        self.speak(name);
        // Who may serve it is another question now, perhaps: those that offer it are told.
        let now = registrar.directory().service(name);
        let same = before.zip(now).is_some_and(|(before, now)| before.is_as_open_as(&now));
        if !same {
            let state = registrar.directory().state();
            let offering = state.offers(name).into_iter().flat_map(Offers::all);
            offering
                .map(|entry| entry.message.name.as_str().into())
                .for_each(|name| self.unsettle(Unsettled::Endpoint(name)));
        }
    }

    /// Who registered an object: nobody's registration is an operator's word.
    fn owner(&self, service: &Found<nsm_objects::Service>) -> Owner {
        let Some(registrant) = &service.registrant else { return Owner::Operator };
        match service.node.as_deref() {
            // Another registry's.
            None => Owner::Elsewhere,
            Some(node) if self.is_of_this_node(Some(node)) => {
                names::owner(&self.settings.boot_id, registrant).unwrap_or(Owner::Departed)
            }
            Some(node) if self.seen().nodes.lives(node) => Owner::Elsewhere,
            Some(_) => Owner::Departed,
        }
    }

    /// Has said what is to be said about the services of a name, if nobody else does.
    fn speak(self: &Arc<Self>, name: &str) {
        let keys: Vec<_> = self.seen().services.named(name).map(|found| found.key.clone()).collect();
        for key in keys {
            let (name, of) = (name.to_owned(), key.clone());
            let outstanding = move |cluster: &Self| outstanding(&cluster.seen(), &name, &of);
            self.say_soon(nsm_objects::SERVICE, key, self.server.services.clone(), outstanding);
        }
    }

    /// The same about the endpoints of a name, as far as they are for this agent to tell.
    fn speak_of_endpoints(self: &Arc<Self>, registrar: &Registrar, name: &str) {
        let keys: Vec<_> = self.seen().endpoints.named(name).map(|found| found.key.clone()).collect();
        for key in keys {
            let (registrar, name, of) = (registrar.clone(), name.to_owned(), key.clone());
            let outstanding = move |cluster: &Self| cluster.outstanding_of_endpoint(&registrar, &name, &of);
            self.say_soon(nsm_objects::ENDPOINT, key, self.server.endpoints.clone(), outstanding);
        }
    }

    /// Says what is outstanding after a moment, until nothing is.
    fn say_soon<M: Send + Sync + 'static>(
        self: &Arc<Self>,
        what: &'static str,
        key: Key,
        kind: ApiResource,
        outstanding: impl Fn(&Self) -> Option<(Arc<Found<M>>, Told)> + Send + 'static,
    ) {
        if outstanding(self).is_none() || !self.seen().speaking.insert((what, key.clone())) {
            return;
        }
        let cluster = self.clone();
        self.spawn(async move {
            loop {
                tokio::time::sleep(SPEAK.mul_f64(f64::from(uuid::Uuid::new_v4().as_bytes()[0]) / 256.0)).await;
                let Some((found, told)) = outstanding(&cluster) else { break };
                match told::say(&cluster.server, &kind, &found, &told).await {
                    Ok(()) => break,
                    Err(error) => {
                        tracing::debug!(object = %key, ?error, "nothing can be said about it yet");
                        tokio::time::sleep(jitter(Duration::from_secs(30))).await;
                    }
                }
            }
            cluster.seen().speaking.remove(&(what, key));
        });
    }

    /// What is still to be said about the endpoint of that key: that it does not count, or that it does again. Of another node's, that
    /// node's agent speaks.
    fn outstanding_of_endpoint(
        &self,
        registrar: &Registrar,
        name: &str,
        key: &Key,
    ) -> Option<(Arc<Found<NetworkServiceEndpoint>>, Told)> {
        let seen = self.seen();
        let found = seen.endpoints.get(key)?.clone();
        if found.node.is_some() && !self.is_of_this_node(found.node.as_deref()) {
            return None;
        }
        let ours = seen.ours.get(name).map(|ours| &ours.key);
        // As on other nodes: of this node's, what its agent has not registered is about to go.
        let counts = |found: &&Arc<Found<NetworkServiceEndpoint>>| {
            let mine = self.is_of_this_node(found.node.as_deref());
            found.message.is_ok() && if mine { ours == Some(&found.key) } else { lives(&seen, found) }
        };
        let served_here = (ours == Some(key)).then_some(&*self.settings.node);
        let first = seen.endpoints.named(name).find(counts);
        let refused = found.message.as_ref().ok().and_then(|message| {
            let (party, state) = (self.party(&found), registrar.directory().state());
            let mut refused = message.network_service_names.iter();
            refused.find_map(|service| state.may(service, Role::Endpoint, &party).err())
        });
        let (first, refused) = (first.map(|first| &**first), refused.map(|why| why.to_string()));
        let told = told::verdict_of_endpoint(&found, first, served_here, refused);
        let news = if told.accepted { found.told.is_some() } else { true };
        (news && found.told.as_ref() != Some(&told)).then_some((found, told))
    }

    async fn settle_endpoint(self: &Arc<Self>, registrar: &Registrar, name: &str) {
        let _gate = registrar.gate(name).await;
        self.count_endpoint(registrar, name);
        self.speak_of_endpoints(registrar, name);
    }

    fn count_endpoint(&self, registrar: &Registrar, name: &str) {
        let (ours, first, orphans) = {
            let seen = self.seen();
            let ours = seen.ours.get(name).cloned();
            let is_ours =
                |found: &Arc<Found<NetworkServiceEndpoint>>| ours.as_ref().is_some_and(|ours| ours.key == found.key);
            let mine = |found: &Arc<Found<_>>| self.is_of_this_node(found.node.as_deref());
            // Whoever writes objects of another namespace can give an old one any name: that ends nothing that lives here.
            let rivals = |found: &Arc<Found<NetworkServiceEndpoint>>| {
                let elsewhere = |ours: &Ours| ours.key.namespace != found.key.namespace;
                lives(&seen, found) && !ours.as_ref().is_some_and(elsewhere)
            };
            let first =
                seen.endpoints.named(name).find(|found| if mine(found) { is_ours(found) } else { rivals(found) });
            let orphans = seen.endpoints.named(name).filter(|found| mine(found) && !is_ours(found));
            (ours.clone(), first.cloned(), orphans.map(|found| found.key.clone()).collect::<Vec<_>>())
        };
        for key in orphans {
            self.withdrawals.push(key, ORPHANED);
        }
        match (ours, first) {
            (Some(ours), Some(first)) if first.key == ours.key => {
                if first.generation > ours.generation
                    && let Ok(message) = &first.message
                {
                    registrar.edit_endpoint(message);
                    let known = Ours { key: ours.key, generation: first.generation };
                    self.seen().ours.insert(name.into(), known);
                }
            }
            (Some(ours), first) => {
                let there = self.seen().endpoints.get(&ours.key).is_some();
                self.seen().ours.remove(name);
                if there {
                    tracing::warn!(endpoint = name, object = %ours.key, "an older endpoint has this name: this one is withdrawn");
                    self.withdrawals.push(ours.key, Duration::ZERO);
                }
                registrar.drop_endpoint(name);
                self.put_foreign(registrar, first.as_deref());
            }
            (None, Some(first)) => self.put_foreign(registrar, Some(&first)),
            (None, None) => registrar.drop_foreign(name),
        }
    }

    /// Shows another's endpoint, if there is one.
    fn put_foreign(&self, registrar: &Registrar, found: Option<&Found<NetworkServiceEndpoint>>) {
        let Some(found) = found else { return };
        let Ok(message) = &found.message else { return };
        let reach = match &found.node {
            Some(node) => Reach::Elsewhere(node.clone()),
            // Whoever may write objects must not choose sockets of this node.
            None if message.url.starts_with("unix://") || message.url.is_empty() => Reach::Elsewhere("".into()),
            None => Reach::Url,
        };
        let owner = if found.node.is_some() || found.registrant.is_some() { Owner::Elsewhere } else { Owner::Operator };
        let deadline = found.node.is_none().then(|| deadline(message)).flatten();
        let party = self.party(found);
        registrar.put_foreign(Foreign { message: message.clone(), owner, reach, party, deadline });
    }

    /// Whose an object of others is: its namespace says it. In the agents' own are an operator's, and those of processes whose pod their
    /// node's agent did not know.
    fn party(&self, found: &Found<NetworkServiceEndpoint>) -> Party {
        let namespace = &found.key.namespace;
        match &found.registrant {
            _ if *namespace != self.namespace => Party::Namespace(namespace.clone()),
            Some(registrant) if !names::is_operator(registrant) => Party::Unknown,
            Some(_) | None => Party::Operator,
        }
    }

    /// The first look: endpoints of this node's earlier agent have their time to come back, others of it go.
    pub(super) async fn recover(self: &Arc<Self>, registrar: &Registrar) {
        let found: Vec<_> = self.seen().endpoints.all().cloned().collect();
        for found in found.into_iter().filter(|found| self.is_of_this_node(found.node.as_deref())) {
            let owner = found.registrant.as_deref().and_then(|text| names::owner(&self.settings.boot_id, text));
            match (owner, &found.message) {
                (Some(owner), Ok(message)) if !self.seen().ours.contains_key(&found.name) => {
                    let ours = Ours { key: found.key.clone(), generation: found.generation };
                    self.seen().ours.insert(found.name.clone(), ours);
                    let left = Some(registrar.max_life());
                    registrar.restore_endpoint((**message).clone(), owner, Reach::Lost, left).await;
                }
                _ => self.withdrawals.push(found.key.clone(), Duration::ZERO),
            }
        }
        let names: Vec<_> = {
            let seen = self.seen();
            let services = seen.services.names().into_iter().map(Unsettled::Service);
            services.chain(seen.endpoints.names().into_iter().map(Unsettled::Endpoint)).collect()
        };
        for name in names {
            self.settle(registrar, &name).await;
        }
    }
}

/// Whether somebody keeps another's endpoint alive.
fn lives(seen: &Seen, found: &Found<NetworkServiceEndpoint>) -> bool {
    let Ok(message) = &found.message else { return false };
    match &found.node {
        Some(node) => seen.nodes.lives(node),
        None => deadline(message).is_none_or(|deadline| deadline > Instant::now()),
    }
}

/// What is still to be said about the service of that key.
fn outstanding(seen: &Seen, name: &str, key: &Key) -> Option<(Arc<Found<nsm_objects::Service>>, Told)> {
    let found = seen.services.get(key)?;
    let first = seen.services.named(name).find(|found| found.message.is_ok());
    let told = told::verdict(found, first.map(|first| &**first));
    (found.told.as_ref() != Some(&told)).then(|| (found.clone(), told))
}

fn deadline(message: &NetworkServiceEndpoint) -> Option<Instant> {
    let left = left_until(message.expiration_time?);
    // A thousand years are enough, and can be added to any time.
    Some(Instant::now() + Duration::from_secs_f64(left.clamp(0.0, 3e10)))
}

/// Deletes what is to be withdrawn, one at a time.
pub(super) async fn withdraw(cluster: Arc<Kubernetes>, registrar: Registrar) {
    loop {
        let key = cluster.withdrawals.next().await;
        let found = cluster.seen().endpoints.get(&key).cloned();
        let name = found.as_ref().map(|found| found.name.clone());
        let _gate = registrar.gate(name.as_deref().unwrap_or(&key.name)).await;
        let taken = cluster.seen().ours.values().any(|ours| ours.key == key);
        if taken {
            continue;
        }
        let uid = found.as_ref().map(|found| &*found.uid);
        match cluster.server.delete(&cluster.server.endpoints, &key, uid).await {
            Ok(()) => {
                if let Some(uid) = uid {
                    cluster.seen().endpoints.remove(&key, uid);
                }
            }
            Err(error) => {
                tracing::debug!(object = %key, %error, "not withdrawn yet");
                cluster.withdrawals.push(key, jitter(withdrawals::AGAIN));
            }
        }
    }
}
