//! The element that chooses the endpoint: the one that a connection has, the one that it names, or candidates in turn.
//!
//! Guarantees: a refresh goes to the endpoint that serves the connection and to no other. For a new connection each candidate
//! is tried once, in the order that the registry gives, with a share of the time that is left; the error names them all. Whether the
//! client may use the service is asked with each choice, not at a refresh: a rule that changes leaves connections where they are.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use nsm_proto::connection::{Connection, State};
use nsm_sdk::{Call, Close, Element, Error, Kind, Next, Request};

use super::{CalledOff, Candidate, Clients, Endpoints, Found, Wires, wires::ClientFault};
use crate::{
    excluded::Excluded,
    registry::Party,
    state::{ChosenBy, Phase},
};

/// Longest try of an endpoint while another one is left.
const SHARE: Duration = Duration::from_secs(5);
/// How long a Request waits for the same endpoint's end of the connection before.
const SETTLE: Duration = Duration::from_secs(2);

/// The element.
pub struct Select {
    /// Where endpoints are found.
    pub endpoints: Endpoints,
    /// The connections of this node, and what endpoints have still to hear of others.
    pub wires: Arc<Wires>,
    /// Whose pod a client is.
    pub clients: Clients,
    /// Addresses that no endpoint should give.
    pub excluded: Excluded,
}

#[async_trait]
impl Element for Select {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        // A client that wants another endpoint does not get its old one, also when the old wire could not be undone yet.
        let moves = request.connection.state() == State::ReselectRequested;
        let before = self.wires.connections.get(&request.connection.id);
        let known = before.clone().filter(|known| known.phase == Phase::Up && !moves && !self.wires.is_left(known));
        unless_called_off(&request.call, self.endpoints.read(request.call.deadline)).await?;
        let service = self.endpoints.service(&request.connection.network_service)?;
        if request.connection.payload.is_empty() {
            request.connection.payload.clone_from(&service.payload);
        }
        if let Some(known) = known {
            let candidate = self.reachable(&known.endpoint)?;
            request.call.note(known.chosen_by);
            return ask(request, candidate, next).await;
        }
        let client = self.clients.calling(&request.call).await?;
        let remaining = request.call.remaining();
        unless_called_off(&request.call, self.excluded.add_to(&mut request.connection, remaining)).await?;
        if !request.connection.network_service_endpoint_name.is_empty() {
            let asked = &request.connection;
            let (service, endpoint) = (&asked.network_service, &asked.network_service_endpoint_name);
            let candidate = self.endpoints.named(service, endpoint, &client)?;
            self.settled(&request, &candidate.name).await?;
            // One that comes back names whom it had, whoever chose.
            let same = before.filter(|before| before.endpoint == candidate.name);
            request.call.note(same.map_or(ChosenBy::Client, |before| before.chosen_by));
            return ask(request, candidate, next).await;
        }
        request.call.note(ChosenBy::Matches);
        self.first_that_serves(request, &client, next).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        next.close(close).await
    }
}

impl Select {
    fn reachable(&self, name: &str) -> Result<Candidate, Error> {
        match self.endpoints.endpoint(name) {
            Found::Ready(candidate) => Ok(candidate),
            Found::Gone => {
                Err(Error::new(Kind::NotFound, format!("endpoint {name:?} is not registered: nsmctl get nse")))
            }
            Found::Unreachable(why) => Err(Error::new(Kind::Unavailable, format!("endpoint {name:?}: {why}"))),
        }
    }

    /// Waits until this endpoint has heard of the connection's end before, for a while.
    async fn settled(&self, request: &Request, endpoint: &str) -> Result<(), Error> {
        let bound = SETTLE.min(request.call.remaining() / 2);
        unless_called_off(&request.call, self.wires.owed.settled(&request.connection.id, endpoint, bound)).await
    }

    async fn first_that_serves(&self, request: Request, client: &Party, next: Next) -> Result<Connection, Error> {
        let (service, labels) = (&request.connection.network_service, &request.connection.labels);
        let candidates = self.endpoints.candidates(service, labels, client, request.call.deadline);
        let candidates = unless_called_off(&request.call, candidates).await??;
        let mut left = candidates.len();
        let mut failures: Vec<(String, Error)> = Vec::new();
        for entry in candidates {
            left -= 1;
            let name = entry.message.name.clone();
            let candidate = match self.endpoints.opened(&entry) {
                Ok(candidate) => candidate,
                Err(error) => {
                    failures.push((name, error));
                    continue;
                }
            };
            self.settled(&request, &name).await?;
            let mut attempt = request.clone();
            if left > 0 {
                let share = (attempt.call.remaining() / 2).min(SHARE);
                attempt.call.deadline = tokio::time::Instant::now() + share;
            }
            match ask(attempt, candidate, next.clone()).await {
                Ok(connection) => return Ok(connection),
                Err(error) if error.find::<ClientFault>().is_some() || error.kind() == Kind::Cancelled => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::info!(connection = request.connection.id, endpoint = name, %error, "endpoint did not serve, next candidate");
                    failures.push((name, error));
                }
            }
            if request.call.remaining().is_zero() {
                break;
            }
        }
        Err(all_failed(&request.connection.network_service, failures))
    }
}

async fn unless_called_off<T>(call: &Call, work: impl Future<Output = T>) -> Result<T, Error> {
    let CalledOff(called_off) = call.noted().unwrap_or_default();
    let done = called_off.run_until_cancelled(work).await;
    done.ok_or_else(|| Error::new(Kind::Cancelled, "called off"))
}

async fn ask(request: Request, candidate: Candidate, next: Next) -> Result<Connection, Error> {
    tracing::Span::current().record("endpoint", candidate.name.as_str());
    request.call.note(candidate.target.clone());
    request.call.note(candidate);
    next.request(request).await
}

fn all_failed(service: &str, mut failures: Vec<(String, Error)>) -> Error {
    match failures.len() {
        0 => Error::new(Kind::Deadline, format!("no time was left to ask an endpoint of {service:?}")),
        1 => {
            let (name, error) = failures.remove(0);
            Error::new(error.kind(), format!("endpoint {name} of {service:?}: {error}"))
        }
        count => {
            let kind = failures.last().map_or(Kind::Unavailable, |(_, error)| error.kind());
            let each: Vec<String> = failures.iter().take(8).map(|(name, error)| format!("{name}: {error}")).collect();
            Error::new(kind, format!("none of {count} endpoints of {service:?} would serve: {}", each.join("; ")))
        }
    }
}
