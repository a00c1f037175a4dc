//! What is registered, in memory: by name, by service, by label.
//!
//! Guarantees: one lock, held for lookups only, never across a wait; no lookup of a named object or of one service looks at
//! the others. What has expired is not found, even before it is removed.

mod absence;
mod usage;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    ops::Bound::{Excluded, Unbounded},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use nsm_objects::Access;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use tokio::{sync::watch, time::Instant};

pub(super) use absence::ABSENCE;
pub(super) use usage::{Account, Size};

use self::{absence::Absent, usage::Usage};
use super::{
    Entry, Error, Owner, Party, Refusal, Role, ServiceAccess, Watch, check, offers::Offers, template, watch::Watchers,
};
use crate::candidates::Turn;

/// A registered network service.
#[derive(Debug, PartialEq)]
pub struct Service {
    /// As on the wire.
    pub message: Arc<NetworkService>,
    /// Who may change it.
    pub owner: Owner,
    /// Who may use and serve it, as far as it says so.
    pub access: Access,
    /// The namespace that it belongs to.
    pub namespace: Option<Arc<str>>,
}

/// Everything that is registered.
pub struct Directory {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

/// What the lock holds.
#[derive(Default)]
pub struct State {
    services: BTreeMap<String, Arc<Service>>,
    endpoints: BTreeMap<String, Arc<Entry>>,
    offers: HashMap<String, Offers>,
    turns: HashMap<String, Vec<Turn>>,
    expiry: BTreeSet<(Instant, String)>,
    usage: Usage,
    absent: Absent,
    next_place: u64,
    pub(super) service_watchers: Watchers<Service>,
    pub(super) endpoint_watchers: Watchers<Entry>,
    pub(super) closed: bool,
    /// What is registered is not all known yet.
    reading: bool,
    /// Who may use and serve a service that does not say it.
    access: ServiceAccess,
}

impl fmt::Debug for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (services, endpoints, watches) = self.counts();
        write!(f, "Directory({services} services, {endpoints} endpoints, {watches} watches)")
    }
}

impl Directory {
    /// An empty directory, for a backend to fill.
    pub fn new(access: ServiceAccess) -> Arc<Self> {
        let state = State { access, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), changes: watch::Sender::new(0) })
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The service of that name.
    pub fn service(&self, name: &str) -> Option<Arc<Service>> {
        self.state().service(name).cloned()
    }

    /// The endpoint of that name.
    pub fn endpoint(&self, name: &str) -> Option<Arc<Entry>> {
        self.state().endpoint(name).cloned()
    }

    /// All services that a template asks for.
    pub fn find_services(&self, template: &NetworkService) -> Result<Vec<Arc<Service>>, Error> {
        check::own_domain([&template.name])?;
        Ok(self.state().find_services(template))
    }

    /// All endpoints that a template asks for.
    pub fn find_endpoints(&self, template: &NetworkServiceEndpoint) -> Result<Vec<Arc<Entry>>, Error> {
        check::own_domain(template.network_service_names.iter().chain([&template.name]))?;
        Ok(self.state().find_endpoints(template))
    }

    /// Watches the services that a template asks for.
    pub fn watch_services(self: &Arc<Self>, template: NetworkService) -> Result<Watch<Service>, Error> {
        check::own_domain([&template.name])?;
        Ok(Watch::new(self, template))
    }

    /// Watches the endpoints that a template asks for.
    pub fn watch_endpoints(self: &Arc<Self>, template: NetworkServiceEndpoint) -> Result<Watch<Entry>, Error> {
        check::own_domain(template.network_service_names.iter().chain([&template.name]))?;
        Ok(Watch::new(self, template))
    }

    /// A number that moves whenever something but an expiry time has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// How many services, endpoints and watches there are.
    pub fn counts(&self) -> (usize, usize, usize) {
        let state = self.state();
        (state.services.len(), state.endpoints.len(), state.service_watchers.len() + state.endpoint_watchers.len())
    }

    pub(super) fn put_service(&self, service: &Arc<Service>) {
        self.state().put_service(service);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn take_service(&self, name: &str) {
        self.state().take_service(name);
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn put_endpoint(&self, entry: &Arc<Entry>) {
        self.state().put_endpoint(entry);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Of an endpoint that is there already, nothing but the expiry moves: no change to those who wait for one.
    pub(super) fn renew_endpoint(&self, entry: &Arc<Entry>) {
        self.state().put_endpoint(entry);
    }

    pub(super) fn take_endpoint(&self, name: &str) -> Option<Arc<Entry>> {
        let taken = self.state().take_endpoint(name);
        self.changes.send_modify(|count| *count += 1);
        taken
    }

    /// Remembers that an endpoint has gone whose process may live: it may register again.
    pub(super) fn may_come_back(&self, gone: &Entry) {
        self.state().absent.add(gone);
    }

    /// An endpoint that has gone does not come back: its process has ended.
    pub(super) fn has_ended(&self, name: &str, process: i64) {
        self.settled(|state| state.absent.ended(name, process));
    }

    /// The same: its owner says so.
    pub(super) fn has_unregistered(&self, name: &str, by: Owner) {
        self.settled(|state| state.absent.unregistered(name, by));
    }

    /// Who waits for its return is told.
    fn settled(&self, was_awaited: impl FnOnce(&mut State) -> bool) {
        let was_awaited = was_awaited(&mut self.state());
        if was_awaited {
            self.changes.send_modify(|count| *count += 1);
        }
    }

    /// Whether an endpoint that is not registered may know of its connections still.
    pub fn may_return(&self, name: &str) -> bool {
        let state = self.state();
        state.reading || state.absent.contains(name)
    }

    /// What is registered has yet to be read: until [`Directory::complete`], what is missing is not known to be gone.
    pub(super) fn begin(&self) {
        self.state().reading = true;
    }

    /// Everything has been read.
    pub(super) fn complete(&self) {
        self.state().reading = false;
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether what is not found may be registered all the same.
    pub fn is_reading(&self) -> bool {
        self.state().reading
    }

    /// Ends all watches.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.service_watchers.wake();
        state.endpoint_watchers.wake();
        drop(state);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Whether the registry has ended.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }
}

impl State {
    pub(crate) fn service(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.get(name)
    }

    pub(crate) fn endpoint(&self, name: &str) -> Option<&Arc<Entry>> {
        self.endpoints.get(name).filter(|entry| entry.lives(Instant::now()))
    }

    /// Whether what is not found may be registered all the same.
    pub(crate) fn is_reading(&self) -> bool {
        self.reading
    }

    /// Expired ones too.
    pub(super) fn stored_endpoint(&self, name: &str) -> Option<&Arc<Entry>> {
        self.endpoints.get(name)
    }

    /// Whether somebody may use or serve a service. What does not exist is for everybody.
    pub(crate) fn may(&self, service: &str, role: Role, party: &Party) -> Result<(), Refusal> {
        self.services.get(service).map_or(Ok(()), |service| service.allows(role, party, self.access))
    }

    pub(crate) fn offers(&self, service: &str) -> Option<&Offers> {
        self.offers.get(service)
    }

    /// Whose turn it is at each match of a service, and who offers the service.
    pub(crate) fn turn(&mut self, service: &str, at: usize) -> (Option<&Offers>, &mut Turn) {
        let turns = self.turns.entry(service.to_owned()).or_default();
        if turns.len() <= at {
            turns.resize_with(at + 1, Turn::default);
        }
        (self.offers.get(service), &mut turns[at])
    }

    pub(super) fn find_services(&self, wanted: &NetworkService) -> Vec<Arc<Service>> {
        let fits = |service: &&Arc<Service>| template::service(wanted, &service.message);
        match wanted.name.as_str() {
            "" => self.services.values().filter(fits).cloned().collect(),
            name => self.service(name).filter(fits).cloned().into_iter().collect(),
        }
    }

    pub(super) fn find_endpoints(&self, wanted: &NetworkServiceEndpoint) -> Vec<Arc<Entry>> {
        let now = Instant::now();
        let fits = |entry: &&Arc<Entry>| entry.lives(now) && template::endpoint(wanted, &entry.message);
        if !wanted.name.is_empty() {
            return self.endpoints.get(&wanted.name).filter(fits).cloned().into_iter().collect();
        }
        match self.rarest(&wanted.network_service_names) {
            Some(rarest) => self.offers(rarest).into_iter().flat_map(Offers::all).filter(fits).cloned().collect(),
            None => self.endpoints.values().filter(fits).cloned().collect(),
        }
    }

    /// Of these services the one that fewest offer.
    pub(super) fn rarest<'a>(&self, services: &'a [String]) -> Option<&'a String> {
        services.iter().min_by_key(|service| self.offers(service).map_or(0, Offers::len))
    }

    /// The service that follows this name.
    pub(super) fn service_after(&self, name: &str) -> Option<&Arc<Service>> {
        self.services.range::<str, _>((Excluded(name), Unbounded)).next().map(|(_, service)| service)
    }

    /// The endpoint that follows this name, also one that has expired.
    pub(super) fn endpoint_after(&self, name: &str) -> Option<&Arc<Entry>> {
        self.endpoints.range::<str, _>((Excluded(name), Unbounded)).next().map(|(_, entry)| entry)
    }

    pub(super) fn next_place(&mut self) -> u64 {
        self.next_place += 1;
        self.next_place
    }

    /// When the next endpoint expires.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.expiry.first().map(|(at, _)| *at)
    }

    /// An endpoint whose time is over.
    pub(super) fn expired(&self, now: Instant) -> Option<String> {
        self.expiry.first().filter(|(at, _)| *at <= now).map(|(_, name)| name.clone())
    }

    /// Whether the owner may keep this service, in the place of another.
    pub(super) fn room_for_service(
        &self,
        owner: Owner,
        service: &NetworkService,
        old: Option<&Service>,
    ) -> Result<(), Error> {
        let before = old.map(|old| (old.owner, Size::of_service(&old.message)));
        self.usage.check(owner, Size::of_service(service), before)
    }

    /// Whether the owner may keep an endpoint of that size, in the place of another.
    pub(super) fn room_for_endpoint(&self, owner: Owner, size: Size, old: Option<&Entry>) -> Result<(), Error> {
        self.usage.check(owner, size, old.map(|old| (old.owner, Size::of_endpoint(old))))
    }

    /// Who of the peers has registered something, in terms of what they may have.
    pub(super) fn account(&self, owner: Owner) -> Option<Account> {
        self.usage.account(owner)
    }

    /// Services of peers that nobody offers.
    pub(super) fn idle_services(&self) -> Vec<Arc<Service>> {
        self.services.values().filter(|service| self.is_idle(service)).cloned().collect()
    }

    /// Whether it is a peer's, and nobody offers it.
    pub(super) fn is_idle(&self, service: &Service) -> bool {
        let of_peer = match service.owner {
            Owner::Peer { .. } | Owner::PodOfHost(_) | Owner::Departed => true,
            Owner::Operator | Owner::Elsewhere => false,
        };
        of_peer && !self.offers.contains_key(&service.message.name)
    }

    fn put_service(&mut self, service: &Arc<Service>) {
        let name = service.message.name.clone();
        self.usage.add(service.owner, Size::of_service(&service.message));
        self.service_watchers.changed(&name, Some(&service.message));
        let old = self.services.insert(name.clone(), service.clone());
        if let Some(old) = &old {
            self.usage.take(old.owner, Size::of_service(&old.message));
            if old.message.matches != service.message.matches {
                self.turns.remove(&name);
            }
        }
        if old.is_none_or(|old| !old.is_as_open_as(service)) {
            self.judge(&name);
        }
    }

    /// Who may serve a service is to be looked at anew.
    fn judge(&mut self, service: &str) {
        let entries: Vec<_> = self.offers(service).into_iter().flat_map(Offers::all).cloned().collect();
        for entry in &entries {
            self.offer(service, entry);
        }
    }

    fn offer(&mut self, service: &str, entry: &Arc<Entry>) {
        let denied = self.may(service, Role::Endpoint, &entry.party).is_err();
        self.offers.entry(service.to_owned()).or_default().put(service, entry, denied);
    }

    fn take_service(&mut self, name: &str) {
        if let Some(old) = self.services.remove(name) {
            self.usage.take(old.owner, Size::of_service(&old.message));
            self.turns.remove(name);
            self.service_watchers.changed(name, None);
            self.judge(name);
        }
    }

    fn put_endpoint(&mut self, entry: &Arc<Entry>) {
        let name = entry.message.name.clone();
        self.absent.remove(&name);
        self.usage.add(entry.owner, Size::of_endpoint(entry));
        if let Some(old) = self.endpoints.get(&name).cloned() {
            self.usage.take(old.owner, Size::of_endpoint(&old));
            if let Some(at) = old.deadline {
                self.expiry.remove(&(at, name.clone()));
            }
            let kept = |service: &&String| !entry.message.network_service_names.contains(service);
            for service in old.message.network_service_names.iter().filter(kept) {
                self.take_offer(service, old.place);
            }
        }
        for service in &entry.message.network_service_names {
            self.offer(service, entry);
        }
        if let Some(at) = entry.deadline {
            self.expiry.insert((at, name.clone()));
        }
        self.endpoint_watchers.changed(&name, Some(&entry.message));
        self.endpoints.insert(name, entry.clone());
    }

    fn take_endpoint(&mut self, name: &str) -> Option<Arc<Entry>> {
        let old = self.endpoints.remove(name)?;
        self.usage.take(old.owner, Size::of_endpoint(&old));
        if let Some(at) = old.deadline {
            self.expiry.remove(&(at, name.to_owned()));
        }
        for service in &old.message.network_service_names {
            self.take_offer(service, old.place);
        }
        self.endpoint_watchers.changed(name, None);
        Some(old)
    }

    fn take_offer(&mut self, service: &str, place: u64) {
        if let Some(offers) = self.offers.get_mut(service) {
            offers.take(service, place);
            if offers.is_empty() {
                self.offers.remove(service);
                if !self.services.contains_key(service) {
                    self.turns.remove(service);
                }
            }
        }
    }
}
