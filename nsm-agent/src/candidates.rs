//! Which endpoints a client may be connected to, and in which order.
//!
//! Guarantees: one decision (`decide`) serves choice and explanation, so that `nsmctl describe` tells what a request would
//! do. The choice costs a few lookups however many endpoints there are. Endpoints that cannot be reached for now still
//! decide which match applies: a restart of the agent must not send clients past a firewall by `fallthrough`.
//!
//! Order: round robin over all that fit; where routes have weights, a route's turn comes as often as its weight says (one
//! without counts 1), and the others follow as the next to try.

mod explain;
mod template;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, sync::Arc};

use nsm_proto::registry::{Match, NetworkService};
use nsm_sdk::Kind;

use crate::registry::{
    Directory, Entry,
    offers::{Offers, Selector},
};

pub use explain::{explain, fits};
pub use template::{Malformed, Missing, Template};

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The network service.
    pub service: &'a str,
    /// The client's labels.
    pub labels: &'a BTreeMap<String, String>,
    /// The one endpoint that it wants; empty: any that fits.
    pub endpoint: &'a str,
}

/// Why there is no candidate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such service.
    #[error("network service {0:?} is not registered: nsmctl get networkservices")]
    NoService(String),
    /// The endpoint that the client names is not there, or does not offer the service.
    #[error("endpoint {endpoint:?} of network service {service:?} is not registered{}", if *returning { " again yet" } else { "" })]
    NoSuchEndpoint {
        /// The service.
        service: String,
        /// The endpoint.
        endpoint: String,
        /// Known, but not reachable until it registers again.
        returning: bool,
    },
    /// The service's matches let none through.
    #[error(
        "no endpoint of {service:?} matches {labels}; {known} registered{}: nsmctl describe networkservice {service}",
        if *returning { ", some of them to come back after the agent's restart" } else { "" }
    )]
    NoEndpoint {
        /// The service.
        service: String,
        /// The client's labels.
        labels: Labels,
        /// How many endpoints offer the service.
        known: usize,
        /// One that fits is known, but not reachable until it registers again.
        returning: bool,
    },
}

impl Error {
    /// What the caller can do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::NoService(_) | Self::NoEndpoint { .. } | Self::NoSuchEndpoint { .. } => Kind::NotFound,
        }
    }

    /// Whether waiting a moment may help: an endpoint that fits is about to register again.
    pub fn returning(&self) -> bool {
        match self {
            Self::NoService(_) => false,
            Self::NoSuchEndpoint { returning, .. } | Self::NoEndpoint { returning, .. } => *returning,
        }
    }
}

impl From<Error> for nsm_sdk::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}

/// Labels in an error: `app=firewall,zone=a`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(pub BTreeMap<String, String>);

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(f, "a client without labels");
        }
        for (at, (key, value)) in self.0.iter().enumerate() {
            write!(f, "{}{key}={value}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
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
    offers.next(selectors(routes), 0).is_some() || offers.returning(selectors(routes))
}

fn selectors(routes: &[Route]) -> impl Iterator<Item = &Selector> {
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

/// Whose turn it is at one match.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Place of the endpoint that was chosen last, of all routes and per route.
    last: u64,
    per_route: Vec<RouteTurn>,
}

#[derive(Debug, Default, Clone)]
struct RouteTurn {
    last: u64,
    credit: i64,
}

impl Turn {
    /// The endpoint whose turn it is.
    fn next(&mut self, offers: &Offers, routes: &[Route]) -> Option<Arc<Entry>> {
        let chosen = if routes.iter().any(|route| route.weight > 0) {
            self.weighted(offers, routes)
        } else {
            round(offers, || selectors(routes), self.last).cloned()
        };
        if let Some(chosen) = &chosen {
            self.last = chosen.place();
        }
        chosen
    }

    /// Every route with an endpoint gains its weight; the richest pays what all gained.
    fn weighted(&mut self, offers: &Offers, routes: &[Route]) -> Option<Arc<Entry>> {
        self.per_route.resize(routes.len(), RouteTurn::default());
        let mut gained = 0;
        let mut richest: Option<usize> = None;
        for (at, route) in routes.iter().enumerate() {
            if offers.next([&route.selector], 0).is_none() {
                continue;
            }
            let weight = i64::from(route.weight.max(1));
            gained += weight;
            self.per_route[at].credit += weight;
            if richest.is_none_or(|richest| self.per_route[at].credit > self.per_route[richest].credit) {
                richest = Some(at);
            }
        }
        let at = richest?;
        let turn = &mut self.per_route[at];
        turn.credit -= gained;
        let chosen = round(offers, || [&routes[at].selector], turn.last)?.clone();
        turn.last = chosen.place();
        Some(chosen)
    }
}

/// The next after `last`, or the first.
fn round<'a, 'o, I: IntoIterator<Item = &'a Selector>>(
    offers: &'o Offers,
    selectors: impl Fn() -> I,
    last: u64,
) -> Option<&'o Arc<Entry>> {
    offers.next(selectors(), last + 1).or_else(|| offers.next(selectors(), 0))
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
    wrapped: bool,
    only: bool,
}

/// The candidates for a client. There is at least one.
pub fn candidates(directory: &Arc<Directory>, wanted: Wanted<'_>) -> Result<Candidates, Error> {
    let mut state = directory.state();
    let service = state.service(wanted.service).cloned().ok_or_else(|| Error::NoService(wanted.service.to_owned()))?;
    if !wanted.endpoint.is_empty() {
        let named = state.endpoint(wanted.endpoint).cloned();
        let named = named.filter(|entry| entry.message.network_service_names.iter().any(|name| name == wanted.service));
        let returning = named.as_ref().is_some_and(|entry| entry.unreachable().is_some());
        let entry = named.filter(|entry| entry.unreachable().is_none()).ok_or_else(|| Error::NoSuchEndpoint {
            service: wanted.service.to_owned(),
            endpoint: wanted.endpoint.to_owned(),
            returning,
        })?;
        return Ok(Candidates::from(directory.clone(), wanted.service, Vec::new(), entry, true));
    }
    let decision = decide(&service.message, wanted.labels, state.offers(wanted.service));
    let (offers, turn) = state.turn(wanted.service, decision.decided_by.unwrap_or(0));
    match offers.and_then(|offers| turn.next(offers, &decision.routes)) {
        Some(first) => Ok(Candidates::from(directory.clone(), wanted.service, decision.routes, first, false)),
        None => Err(Error::NoEndpoint {
            service: wanted.service.to_owned(),
            labels: Labels(wanted.labels.clone()),
            known: offers.map_or(0, Offers::len),
            returning: offers.is_some_and(|offers| offers.returning(selectors(&decision.routes))),
        }),
    }
}

impl Candidates {
    fn from(directory: Arc<Directory>, service: &str, routes: Vec<Route>, first: Arc<Entry>, only: bool) -> Self {
        let start = first.place();
        Self {
            directory,
            service: service.to_owned(),
            routes,
            first: Some(first),
            start,
            at: start,
            wrapped: false,
            only,
        }
    }
}

impl Iterator for Candidates {
    type Item = Arc<Entry>;

    fn next(&mut self) -> Option<Arc<Entry>> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        if self.only {
            return None;
        }
        let state = self.directory.state();
        let offers = state.offers(&self.service)?;
        let mut found = offers.next(selectors(&self.routes), self.at + 1);
        if found.is_none() && !self.wrapped {
            self.wrapped = true;
            found = offers.next(selectors(&self.routes), 0);
        }
        let found = found.filter(|entry| !self.wrapped || entry.place() < self.start)?;
        self.at = found.place();
        Some(found.clone())
    }
}
