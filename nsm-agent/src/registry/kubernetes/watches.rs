//! The three watches: services and endpoints of all namespaces, leases of the agents' own.
//!
//! Of each object is kept what `objects.rs` keeps.

use std::{collections::HashSet, sync::Arc, time::Instant};

use futures::{StreamExt, stream, stream::BoxStream};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::watcher::{Config, Event},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{Kubernetes, Registrar, Registry, State, Unsettled, api, names};
use crate::kubernetes::{Failed, watched};

/// Objects of one page.
const PAGE: u32 = 200;
/// How often names of lost nodes are looked at together.
const BATCH: usize = 256;

enum Seen {
    Service(Event<DynamicObject>),
    Endpoint(Event<DynamicObject>),
    Lease(Event<PartialObjectMeta<Lease>>),
    Failed(Failed),
}

/// Follows the cluster until the end.
pub(super) async fn run(cluster: Arc<Kubernetes>, registrar: Registrar, mut names: UnboundedReceiver<Unsettled>) {
    let objects = |kind: &ApiResource| -> Api<DynamicObject> { Api::all_with(cluster.server.client.clone(), kind) };
    let services = watched("networkservices", objects(&cluster.server.services), Config::default(), PAGE);
    let endpoints = watched("networkserviceendpoints", objects(&cluster.server.endpoints), Config::default(), PAGE);
    let leases: Api<PartialObjectMeta<Lease>> = Api::namespaced(cluster.server.client.clone(), &cluster.namespace);
    let of_agents = Config::default().labels(&format!("{}=true", names::AGENT));
    let leases = watched("leases", leases, of_agents, PAGE);
    let mut all = stream::select_all([
        marked(services, Seen::Service),
        marked(endpoints, Seen::Endpoint),
        marked(leases, Seen::Lease),
    ]);
    let mut listing = Listing::default();
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            Some(seen) = all.next() => {
                cluster.take(seen, &mut listing);
                if !listing.complete && listing.done == [true; 3] {
                    listing.complete = true;
                    cluster.recover(&registrar).await;
                    registrar.directory().complete();
                    tracing::info!("the registry in Kubernetes has been read");
                    cluster.state.send_replace(State::Ready);
                }
            }
            _ = names.recv_many(&mut batch, BATCH), if listing.complete => {
                let once: HashSet<Unsettled> = batch.drain(..).collect();
                for name in once {
                    cluster.settle(&registrar, &name).await;
                }
            }
        }
    }
}

fn marked<E: 'static>(events: BoxStream<'static, Result<E, Failed>>, mark: fn(E) -> Seen) -> BoxStream<'static, Seen> {
    events.map(move |event| event.map_or_else(Seen::Failed, mark)).boxed()
}

/// How far the first lists are, and what the current list of leases has.
#[derive(Default)]
struct Listing {
    done: [bool; 3],
    complete: bool,
    nodes: HashSet<String>,
}

impl Kubernetes {
    fn take(&self, event: Seen, listing: &mut Listing) {
        match event {
            Seen::Service(event) => {
                let mut seen = self.seen();
                let names = match event {
                    Event::Init => {
                        seen.services.begin();
                        Vec::new()
                    }
                    Event::InitApply(object) | Event::Apply(object) => seen.services.put(api::service(&object)),
                    Event::InitDone => {
                        listing.done[0] = true;
                        seen.services.end()
                    }
                    Event::Delete(object) => {
                        let uid = object.uid().unwrap_or_default();
                        seen.services.remove(&api::key(&object), &uid).into_iter().collect()
                    }
                };
                drop(seen);
                names.into_iter().map(Unsettled::Service).for_each(|name| self.unsettle(name));
            }
            Seen::Endpoint(event) => {
                let mut seen = self.seen();
                let names = match event {
                    Event::Init => {
                        seen.endpoints.begin();
                        Vec::new()
                    }
                    Event::InitApply(object) | Event::Apply(object) => seen.endpoints.put(api::endpoint(&object)),
                    Event::InitDone => {
                        listing.done[1] = true;
                        seen.endpoints.end()
                    }
                    Event::Delete(object) => {
                        let uid = object.uid().unwrap_or_default();
                        seen.endpoints.remove(&api::key(&object), &uid).into_iter().collect()
                    }
                };
                drop(seen);
                names.into_iter().map(Unsettled::Endpoint).for_each(|name| self.unsettle(name));
            }
            Seen::Lease(event) => self.take_lease(event, listing),
            Seen::Failed(Failed { why, to_be_told, .. }) => {
                if to_be_told {
                    tracing::warn!(
                        error = why,
                        "the Kubernetes API server cannot be watched: what was seen last is served"
                    );
                }
                self.state.send_if_modified(|state| match state {
                    State::Reading(last) => {
                        *last = why;
                        true
                    }
                    State::Ready => false,
                });
            }
        }
    }

    /// Says when this node's lease is renewed by another agent.
    fn look_for_rivals(&self, lease: &PartialObjectMeta<Lease>) {
        let Some(holder) = lease.annotations().get(names::HOLDER) else { return };
        let version = lease.resource_version().unwrap_or_default();
        if self.settings.rivals.observed(holder, &version, Instant::now()) {
            tracing::error!(
                node = %self.settings.node,
                holder,
                "another agent has this node's name, and each takes the other's endpoints away: give one of them another --node-name"
            );
        }
    }

    fn take_lease(&self, event: Event<PartialObjectMeta<Lease>>, listing: &mut Listing) {
        let node = |lease: &PartialObjectMeta<Lease>| lease.annotations().get(names::NODE).cloned();
        let mut seen = self.seen();
        let changed = match event {
            Event::Init => {
                listing.nodes.clear();
                Vec::new()
            }
            Event::InitApply(lease) | Event::Apply(lease) => {
                let Some(node) = node(&lease) else { return };
                if self.is_of_this_node(Some(&node)) {
                    self.look_for_rivals(&lease);
                }
                let changed = seen.nodes.observed(&node, &lease.resource_version().unwrap_or_default(), Instant::now());
                listing.nodes.insert(node);
                changed
            }
            Event::InitDone => {
                listing.done[2] = true;
                let absent = seen.nodes.absent(&listing.nodes);
                absent.iter().filter_map(|node| seen.nodes.deleted(node)).collect()
            }
            Event::Delete(lease) => node(&lease).and_then(|node| seen.nodes.deleted(&node)).into_iter().collect(),
        };
        for node in &changed {
            let lives = seen.nodes.lives(node);
            if listing.complete {
                tracing::info!(%node, lives, "the lease of a node tells whether its endpoints count");
            }
        }
        if changed.is_empty() {
            return;
        }
        let is_changed = |node: &Option<Arc<str>>| node.as_ref().is_some_and(|node| changed.contains(node));
        let endpoints = seen.endpoints.all().filter(|found| is_changed(&found.node));
        let services = seen.services.all().filter(|found| is_changed(&found.node));
        let names: Vec<_> = endpoints
            .map(|found| Unsettled::Endpoint(found.name.clone()))
            .chain(services.map(|found| Unsettled::Service(found.name.clone())))
            .collect();
        drop(seen);
        for name in names {
            self.unsettle(name);
        }
    }
}
