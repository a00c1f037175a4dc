//! The same decision in words: which match decided, which endpoints fit, why each of the others does not.

use std::{collections::BTreeMap, sync::Arc};

use nsm_proto::admin::{EndpointVerdict, Explanation, MatchVerdict};

use super::{Decision, Error, Labels, Route, decide, registered};
use crate::registry::{Directory, Entry, Party, Refusal, Role, Service, offers::Offers};

/// How the matches of a service decide for a client with these labels, and for each endpoint why or why not.
pub fn explain(
    directory: &Arc<Directory>,
    service: &str,
    labels: &BTreeMap<String, String>,
    client: &Party,
) -> Result<Explanation, Error> {
    let Decided { found, decision, entries, refused } = decided(directory, service, labels, client)?;
    let endpoints: Vec<_> = entries
        .iter()
        .map(|(entry, denied)| {
            let why = refused.as_ref().or(denied.as_ref());
            match why {
                Some(refusal) => EndpointVerdict {
                    name: entry.message.name.clone(),
                    candidate: false,
                    reason: refusal.to_string(),
                    weight: 0,
                },
                None => verdict(entry, service, &decision),
            }
        })
        .collect();
    let matches = decision.verdicts.iter().map(|verdict| MatchVerdict {
        selected: verdict.is_none(),
        reason: verdict.clone().unwrap_or_else(|| "the client's labels fit; it decides".to_owned()),
    });
    Ok(Explanation {
        network_service: Some((*found.message).clone()),
        matches: matches.collect(),
        decided_by: decision.decided_by.and_then(|at| u32::try_from(at).ok()),
        summary: refused.map_or_else(|| summary(&found, &decision, &endpoints, labels), |refusal| refusal.to_string()),
        access: None,
        endpoints,
    })
}

/// A service, what its matches decide, and who offers it.
struct Decided {
    found: Arc<Service>,
    decision: Decision,
    /// Each with why it may not serve.
    entries: Vec<(Arc<Entry>, Option<Refusal>)>,
    /// Why the client may not use it.
    refused: Option<Refusal>,
}

fn decided(
    directory: &Arc<Directory>,
    service: &str,
    labels: &BTreeMap<String, String>,
    client: &Party,
) -> Result<Decided, Error> {
    let state = directory.state();
    let found = registered(&state, service)?;
    let offers = state.offers(service);
    let decision = decide(&found.message, labels, offers);
    let judged = |entry: &Arc<Entry>| (entry.clone(), state.may(service, Role::Endpoint, &entry.party).err());
    let entries = offers.into_iter().flat_map(Offers::all).map(judged).collect();
    let refused = state.may(service, Role::Client, client).err();
    Ok(Decided { found, decision, entries, refused })
}

fn verdict(entry: &Entry, service: &str, decision: &Decision) -> EndpointVerdict {
    let name = entry.message.name.clone();
    match (route_of(entry, service, decision), entry.unreachable()) {
        (Ok(route), None) => {
            let reason = if route.selector.is_empty() {
                "every endpoint fits".to_owned()
            } else {
                format!("has {}", Labels(route.selector.clone()))
            };
            EndpointVerdict { name, candidate: true, reason, weight: route.weight }
        }
        (Ok(route), Some(why)) => EndpointVerdict { name, candidate: false, reason: why, weight: route.weight },
        (Err(reason), _) => EndpointVerdict { name, candidate: false, reason, weight: 0 },
    }
}

/// The first route that fits the endpoint, or what it lacks.
fn route_of<'a>(entry: &Entry, service: &str, decision: &'a Decision) -> Result<&'a Route, String> {
    let labels = entry.labels(service);
    let mut lacks = decision.unusable.clone();
    for route in &decision.routes {
        let lack = route.selector.iter().find_map(|(key, wanted)| match labels.get(key) {
            Some(have) if have == wanted => None,
            Some(have) => Some(format!("label {key} is {have}, not {wanted}")),
            None => Some(format!("label {key}={wanted} is missing")),
        });
        match lack {
            None => return Ok(route),
            Some(lack) => lacks.push(lack),
        }
    }
    lacks.dedup();
    Err(match (lacks.is_empty(), decision.decided_by) {
        (false, _) => lacks.join("; "),
        (true, Some(at)) => format!("match {at} has no routes"),
        (true, None) => "no match applies to the client".to_owned(),
    })
}

fn summary(
    service: &Service,
    decision: &Decision,
    endpoints: &[EndpointVerdict],
    labels: &BTreeMap<String, String>,
) -> String {
    let fit = endpoints.iter().filter(|endpoint| endpoint.candidate).count();
    let all = endpoints.len();
    let client = Labels(labels.clone());
    match decision.decided_by {
        _ if all == 0 => "no endpoint offers this network service: start one, then nsmctl get nse".to_owned(),
        Some(at) => format!("match {at} decides for {client}: {fit} of {all} endpoints are candidates"),
        None if service.message.matches.is_empty() => {
            format!("there are no matches: {fit} of {all} endpoints are candidates")
        }
        None => format!("none of the {} matches applies to {client}: no candidate", service.message.matches.len()),
    }
}
