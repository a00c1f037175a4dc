//! Delivers owed Closes: endpoints side by side, so that one that hangs keeps no other one waiting.

use std::{
    collections::{BTreeSet, HashSet},
    time::{Duration, SystemTime},
};

use futures::{
    StreamExt,
    stream::{self, FuturesUnordered},
};
use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Chain, Close, Kind, path};
use tokio_util::sync::CancellationToken;

use super::{Owed, OwedClose};
use crate::{
    failpoint,
    manager::{Candidate, Endpoints, Found},
    state::{Connected, Phase, Records},
};

/// How long one delivery may take.
const DELIVERY: Duration = Duration::from_secs(5);
/// Pause before an endpoint that did not answer is asked again, unless something happens before.
const RETRY: Duration = Duration::from_secs(2);
/// The least such pause.
const LEAST: Duration = Duration::from_millis(200);
/// Most Closes that one endpoint hears at the same time.
const AT_ONCE: usize = 8;

/// What deliveries need: where endpoints are, the way to them, and what stands here.
pub struct Ways {
    /// Where endpoints are found.
    pub endpoints: Endpoints,
    /// A chain whose end calls the endpoint that the call names.
    pub towards: Chain,
    /// The connections of this node.
    pub connections: Records<Connected>,
}

impl Owed {
    /// Delivers until `stop`.
    pub async fn run(self, ways: Ways, stop: CancellationToken) {
        let mut wake = self.inner.wake.subscribe();
        let mut delivering = FuturesUnordered::new();
        let mut under_way = HashSet::new();
        loop {
            wake.borrow_and_update();
            let owed_to: BTreeSet<String> = self.all().into_iter().map(|owed| owed.endpoint).collect();
            for endpoint in owed_to {
                if under_way.insert(endpoint.clone()) {
                    delivering.push(self.deliver_all(endpoint, &ways));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = wake.changed() => {}
                Some(endpoint) = delivering.next() => drop(under_way.remove(&endpoint)),
            }
        }
    }

    /// Tries until nothing is owed to this endpoint any more.
    async fn deliver_all(&self, endpoint: String, ways: &Ways) -> String {
        let mut wake = self.inner.wake.subscribe();
        // One whose file stays must not be delivered over and over.
        let mut done: HashSet<(String, SystemTime)> = HashSet::new();
        loop {
            wake.borrow_and_update();
            let owed: Vec<OwedClose> = self
                .all()
                .into_iter()
                .filter(|owed| owed.endpoint == endpoint && !done.contains(&(owed.id.clone(), owed.until)))
                .collect();
            if owed.is_empty() {
                return endpoint;
            }
            let deliveries = owed.into_iter().map(|owed| async move {
                let settled = deliver_one(&owed, ways).await;
                if settled {
                    self.settle(&owed).await;
                }
                ((owed.id, owed.until), settled)
            });
            let mut deliveries = stream::iter(deliveries).buffer_unordered(AT_ONCE);
            let mut left = false;
            while let Some((this, settled)) = deliveries.next().await {
                if settled {
                    done.insert(this);
                } else {
                    left = true;
                }
            }
            if left {
                // Something may have changed for it; others' news must not be what sets the pace.
                tokio::time::sleep(LEAST).await;
                let _ = tokio::time::timeout(RETRY, wake.changed()).await;
            }
        }
    }
}

/// True when nothing is owed any more.
async fn deliver_one(owed: &OwedClose, ways: &Ways) -> bool {
    if owed.until <= SystemTime::now() {
        return true;
    }
    let candidate = match ways.endpoints.endpoint(&owed.endpoint) {
        Found::Ready(candidate) => candidate,
        // Its process may live and register again, unless it is known to have ended: then its connections have, too.
        Found::Gone => return !ways.endpoints.directory().may_return(&owed.endpoint),
        Found::Unreachable(_) => return false,
    };
    let found = match ways.endpoints.at_endpoint(&owed.connection.decoded(), &candidate, DELIVERY).await {
        Ok(found) => found,
        Err(error) => return given_up(owed, &error),
    };
    match obsolete(owed, found, &ways.connections) {
        // Which of them is the one that is being made shows when it is made.
        None => false,
        Some(connections) => {
            let mut settled = true;
            for connection in connections {
                settled &= close(owed, connection, &candidate, &ways.towards).await;
            }
            settled
        }
    }
}

/// Of the connections that the endpoint has for us, those that do not stand here. `None`: that cannot be said yet.
fn obsolete(owed: &OwedClose, found: Vec<Connection>, connections: &Records<Connected>) -> Option<Vec<Connection>> {
    let standing = connections.get(&owed.connection_id).filter(|record| {
        // The one that this debt ends, and that is not gone yet, does not stand.
        record.endpoint == owed.endpoint && !owed.ends(record)
    });
    let Some(standing) = standing else { return Some(found) };
    match standing.phase {
        Phase::Adding => None,
        Phase::Up => {
            let at_endpoint = |connection: &Connection| path::next(connection).map(|segment| segment.id.clone());
            let kept = at_endpoint(&standing.endpoint_side.decoded());
            Some(found.into_iter().filter(|connection| at_endpoint(connection) != kept).collect())
        }
    }
}

async fn close(owed: &OwedClose, connection: Connection, candidate: &Candidate, towards: &Chain) -> bool {
    let call = Call::new(DELIVERY);
    call.note(candidate.target.clone());
    candidate.lend_netns(&call);
    match towards.close(Close { connection, call }).await {
        Ok(()) => {
            failpoint::hit("del.endpoint-closed");
            tracing::debug!(connection = owed.connection_id, endpoint = owed.endpoint, "endpoint closed");
            true
        }
        Err(error) => given_up(owed, &error),
    }
}

/// An answer settles the debt, whatever it says; no answer does not.
fn given_up(owed: &OwedClose, error: &nsm_sdk::Error) -> bool {
    let answered = !matches!(error.kind(), Kind::Unavailable | Kind::Deadline | Kind::Cancelled);
    tracing::warn!(
        connection = owed.connection_id,
        endpoint = owed.endpoint,
        %error,
        "{}",
        if answered { "the endpoint refused a Close" } else { "the endpoint did not answer a Close: tried again later" }
    );
    answered
}
