//! Which endpoints a client may be connected to, and in which order.
//!
//! Guarantees: one decision (`decide`) serves choice and explanation, so that `nsmctl describe` tells what a request would
//! do; to look (`foreseen`) takes no turn. The choice costs a few lookups however many endpoints there are. Endpoints that cannot be
//! reached still decide which match applies: neither a restart of the agent nor a firewall on another node may send clients past it by
//! `fallthrough`. So whoever may serve a service can hold its clients up, from whichever node; a service whose endpoints others must not
//! decide about says who may serve it. Those that may not serve decide nothing. Who may use and serve is asked here, at each choice:
//! connections that there are stay.
//!
//! Order: round robin over all that fit; where routes have weights, a route's turn comes as often as its weight says (one
//! without counts 1), and the others follow as the next to try.

mod error;
mod explain;
mod template;
#[cfg(test)]
mod tests;
mod turn;

use std::{collections::BTreeMap, sync::Arc};

use nsm_proto::registry::{Match, NetworkService};

use crate::registry::{
    Directory, Entry, Party, Role, Service, Standing, State,
    offers::{Offers, Selector},
};

pub use error::{Error, Labels};
pub use explain::explain;
pub use template::{Malformed, Missing, Template};
pub(crate) use turn::Turn;

/// Most endpoints that an error lists.
const SHOWN: usize = 8;

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The network service.
    pub service: &'a str,
    /// The client's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The one endpoint that it wants; empty: any that fits.
    pub endpoint: &'a str,
    /// Whose pod it is.
    pub client: &'a Party,
}

/// A route of the match that decided, for one client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) selector: Selector,
    pub(crate) weight: u32,
}

/// How the matches of a service decide for one client.
#[derive(Debug)]
pub(crate) struct Decision {
    /// Of each match, why it does not apply; `None` for the one that decided.
    pub(crate) verdicts: Vec<Option<String>>,
    /// The match that decided; `None` without matches, or when none applies.
    pub(crate) decided_by: Option<usize>,
    /// What endpoints must have: one of these. None: no endpoint will do.
    pub(crate) routes: Vec<Route>,
    /// Routes that apply to no client with these labels, and why.
    pub(crate) unusable: Vec<String>,
}

/// The heart of it: facts about matches in, routes out.
pub(crate) fn decide(service: &NetworkService, labels: &Selector, offers: Option<&Offers>) -> Decision {
    let any = || Route { selector: Selector::new(), weight: 0 };
    let mut decision = Decision { verdicts: Vec::new(), decided_by: None, routes: Vec::new(), unusable: Vec::new() };
    if service.matches.is_empty() {
        decision.routes.push(any());
        return decision;
    }
    for (at, found) in service.matches.iter().enumerate() {
        if decision.decided_by.is_some() {
            decision.verdicts.push(Some("an earlier match decided".to_owned()));
            continue;
        }
        if let Err(why) = applies(found, labels) {
            decision.verdicts.push(Some(why));
            continue;
        }
        let (mut routes, mut unusable) = (Vec::new(), Vec::new());
        for route in &found.routes {
            match rendered(&route.destination_selector, labels) {
                Ok(selector) => routes.push(Route { selector, weight: route.weight }),
                Err(why) => unusable.push(why),
            }
        }
        if found.fallthrough && !offers.is_some_and(|offers| fit_any(offers, &routes)) {
            decision.verdicts.push(Some("no endpoint fits its routes, and it falls through".to_owned()));
            continue;
        }
        if found.routes.is_empty() && found.metadata.is_some() {
            routes.push(any());
        }
        decision.verdicts.push(None);
        decision.decided_by = Some(at);
        (decision.routes, decision.unusable) = (routes, unusable);
    }
    decision
}

fn fit_any(offers: &Offers, routes: &[Route]) -> bool {
    offers.next(selectors(routes), 0).is_some() || offers.unreachable(selectors(routes)).next().is_some()
}

fn selectors(routes: &[Route]) -> impl Iterator<Item = &Selector> + Clone {
    routes.iter().map(|route| &route.selector)
}

fn applies(found: &Match, labels: &Selector) -> Result<(), String> {
    for (key, value) in &found.source_selector {
        let wanted = render(value, labels)?;
        match labels.get(key) {
            Some(have) if *have == wanted => {}
            Some(have) => return Err(format!("label {key} is {have}, not {wanted}")),
            None => return Err(format!("label {key}={wanted} is missing")),
        }
    }
    Ok(())
}

fn rendered(selector: &Selector, labels: &Selector) -> Result<Selector, String> {
    selector.iter().map(|(key, value)| Ok((key.clone(), render(value, labels)?))).collect()
}

fn render(value: &str, labels: &Selector) -> Result<String, String> {
    let template = Template::parse(value).map_err(|error| format!("{value:?} is no {error}"))?;
    template.render(labels).map_err(|error| format!("{value:?}: {error}"))
}

/// The candidates for one request, best first, found one at a time.
#[derive(Debug)]
pub struct Candidates {
    directory: Arc<Directory>,
    service: String,
    routes: Vec<Route>,
    first: Option<Arc<Entry>>,
    start: u64,
    at: u64,
    round: Round,
}

/// How far a round over the endpoints has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Round {
    /// Up to the last place.
    Rising,
    /// From the first place up to where it began.
    Wrapped,
    /// There is nobody but the first.
    One,
}

/// The network service of that name, as a client may ask for it.
pub fn service(directory: &Directory, name: &str) -> Result<Arc<Service>, Error> {
    registered(&directory.state(), name)
}

fn registered(state: &State, name: &str) -> Result<Arc<Service>, Error> {
    crate::registry::own_domain([name])?;
    let unknown = if state.is_reading() { Error::Reading } else { Error::NoService };
    state.service(name).cloned().ok_or_else(|| unknown(name.to_owned()))
}

/// The candidates for a client, whose turn is over with it. There is at least one.
pub fn candidates(directory: &Arc<Directory>, wanted: Wanted<'_>) -> Result<Candidates, Error> {
    choose(directory, wanted, Turn::next)
}

/// The candidates that the next request of such a client will have.
pub fn foreseen(directory: &Arc<Directory>, wanted: Wanted<'_>) -> Result<Candidates, Error> {
    choose(directory, wanted, |turn, offers, routes| turn.clone().next(offers, routes))
}

fn choose(
    directory: &Arc<Directory>,
    wanted: Wanted<'_>,
    first: impl FnOnce(&mut Turn, &Offers, &[Route]) -> Option<Arc<Entry>>,
) -> Result<Candidates, Error> {
    let mut state = directory.state();
    let service = registered(&state, wanted.service)?;
    state.may(wanted.service, Role::Client, wanted.client).map_err(Error::MayNotUse)?;
    if !wanted.endpoint.is_empty() {
        let entry = named(&state, wanted)?;
        return Ok(Candidates::from(directory.clone(), wanted.service, Vec::new(), entry, Round::One));
    }
    let decision = decide(&service.message, wanted.labels, state.offers(wanted.service));
    let (offers, turn) = state.turn(wanted.service, decision.decided_by.unwrap_or(0));
    if let Some(offers) = offers {
        if let Some(first) = first(turn, offers, &decision.routes) {
            return Ok(Candidates::from(directory.clone(), wanted.service, decision.routes, first, Round::Rising));
        }
        let mut fit = offers.unreachable(selectors(&decision.routes)).peekable();
        if fit.peek().is_some() {
            return Err(Error::Unreachable {
                service: wanted.service.to_owned(),
                each: fit.take(SHOWN).map(|entry| why_not(entry)).collect(),
                returning: offers.returning(selectors(&decision.routes)),
            });
        }
    }
    let denied = state.offers(wanted.service).into_iter().flat_map(|offers| offers.denied(selectors(&decision.routes)));
    let each: Vec<_> = denied.take(SHOWN).filter_map(|entry| may_not(&state, wanted.service, entry)).collect();
    if !each.is_empty() {
        return Err(Error::MayNotServe { service: wanted.service.to_owned(), each });
    }
    Err(Error::NoEndpoint {
        service: wanted.service.to_owned(),
        labels: Labels(wanted.labels.clone()),
        known: state.offers(wanted.service).map_or(0, Offers::len),
    })
}

/// Whether the endpoint that serves such a client is one that the service's matches choose for it. True where nobody can say.
pub fn fits(directory: &Directory, service: &str, labels: &BTreeMap<String, String>, endpoint: &str) -> bool {
    let state = directory.state();
    let (Some(known), Some(entry)) = (state.service(service), state.endpoint(endpoint)) else { return true };
    let decision = decide(&known.message, labels, state.offers(service));
    let offered = entry.labels(service);
    let fits = |route: &Route| route.selector.iter().all(|(key, value)| offered.get(key) == Some(value));
    decision.routes.iter().any(fits)
}

/// The endpoint that the client names, whatever the matches say.
fn named(state: &State, wanted: Wanted<'_>) -> Result<Arc<Entry>, Error> {
    crate::registry::own_domain([wanted.endpoint])?;
    let entry = state.endpoint(wanted.endpoint).ok_or_else(|| Error::NoSuchEndpoint(wanted.endpoint.to_owned()))?;
    let offers = &entry.message.network_service_names;
    if !offers.iter().any(|name| name == wanted.service) {
        return Err(Error::OffersOther {
            service: wanted.service.to_owned(),
            endpoint: wanted.endpoint.to_owned(),
            offers: offers.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "),
        });
    }
    if let Some(why) = may_not(state, wanted.service, entry) {
        return Err(Error::MayNotServe { service: wanted.service.to_owned(), each: vec![why] });
    }
    match entry.standing() {
        Standing::Reachable => Ok(entry.clone()),
        standing @ (Standing::Returning | Standing::Foreign) => Err(Error::Unreachable {
            service: wanted.service.to_owned(),
            each: vec![why_not(entry)],
            returning: standing == Standing::Returning,
        }),
    }
}

/// Why an endpoint may not serve a service, if it may not.
fn may_not(state: &State, service: &str, entry: &Entry) -> Option<String> {
    let refusal = state.may(service, Role::Endpoint, &entry.party).err()?;
    Some(format!("{}: {refusal}", entry.message.name))
}

fn why_not(entry: &Entry) -> String {
    format!("{}: {}", entry.message.name, entry.unreachable().unwrap_or_default())
}

impl Candidates {
    fn from(directory: Arc<Directory>, service: &str, routes: Vec<Route>, first: Arc<Entry>, round: Round) -> Self {
        let start = first.place();
        let (service, first) = (service.to_owned(), Some(first));
        Self { directory, service, routes, first, start, at: start, round }
    }
}

impl Iterator for Candidates {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let state = self.directory.state();
        let offers = state.offers(&self.service)?;
        let mut found = match self.round {
            Round::One => return None,
            Round::Rising | Round::Wrapped => offers.next(selectors(&self.routes), self.at + 1),
        };
        if found.is_none() && self.round == Round::Rising {
            self.round = Round::Wrapped;
            found = offers.next(selectors(&self.routes), 0);
        }
        let found = found.filter(|entry| self.round == Round::Rising || entry.place() < self.start)?;
        self.at = found.place();
        Some(found.clone())
    }
}
