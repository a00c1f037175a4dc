//! Closes that an endpoint has still to hear.
//!
//! Guarantees: what is owed is on disk before the wire it belongs to is touched, and survives the agent. It is delivered at
//! once where the endpoint can be reached, again when it registers, and given up when the connection has expired at the
//! endpoint anyway. An endpoint is never told to close a connection that has been made again meanwhile.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream::FuturesUnordered};
use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Chain, Close, Kind};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Endpoints, Found};
use crate::{
    failpoint,
    state::{Encoded, Record, Records},
};

/// How long one delivery may take.
const DELIVERY: Duration = Duration::from_secs(5);
/// Pause before an endpoint that did not answer is asked again, unless it registers before.
const RETRY: Duration = Duration::from_secs(2);

/// One Close that is owed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OwedClose {
    /// Its own id: one connection may owe several endpoints.
    pub id: String,
    /// Which endpoint.
    pub endpoint: String,
    /// The connection as that endpoint knows it, at our index.
    pub connection: Encoded,
    /// The connection's id at this agent.
    pub connection_id: String,
    /// The connection of this node that ends with it, wire and record; none when only the endpoint has something to forget.
    pub ends: Option<String>,
    /// When the endpoint has forgotten it by itself.
    pub until: SystemTime,
}

impl Record for OwedClose {
    type Key = String;
    const FOLDER: &'static str = "owed";

    fn key(&self) -> String {
        self.id.clone()
    }

    fn file_name(key: &String) -> String {
        key.clone()
    }
}

/// The debts of this agent. Clones share them.
#[derive(Clone)]
pub struct Owed {
    inner: Arc<Inner>,
}

struct Inner {
    records: Records<OwedClose>,
    /// Owed without a file: the disk was full.
    unrecorded: Mutex<HashMap<String, OwedClose>>,
    /// Moves when something is owed, or an endpoint has registered.
    wake: watch::Sender<u64>,
    settled: Notify,
    life: Duration,
}

impl Owed {
    /// With what an earlier agent left; `life` bounds how long an endpoint keeps a connection that nobody refreshes.
    pub fn new(records: Records<OwedClose>, life: Duration) -> Self {
        let (wake, settled) = (watch::Sender::new(0), Notify::new());
        let inner = Inner { records, unrecorded: Mutex::default(), wake, settled, life };
        Self { inner: Arc::new(inner) }
    }

    /// Records a debt. On a full disk it is kept in memory only, and said so: a DEL must not fail for it.
    pub async fn owe(&self, endpoint: &str, connection: &Connection, ends: Option<String>) {
        let owed = self.debt(endpoint.to_owned(), connection, ends);
        if let Err(error) = self.inner.records.put(owed.clone()).await {
            tracing::warn!(endpoint, %error, "a Close owed to an endpoint is kept in memory only");
            self.unrecorded().insert(owed.id.clone(), owed);
        }
    }

    fn debt(&self, endpoint: String, connection: &Connection, ends: Option<String>) -> OwedClose {
        let id = Uuid::new_v4().to_string();
        let (connection_id, connection) = (connection.id.clone(), Encoded::from(connection));
        OwedClose { id, endpoint, connection, connection_id, ends, until: SystemTime::now() + self.inner.life }
    }

    /// Asks for a round of deliveries: something is owed, or an endpoint has registered.
    pub fn deliver(&self) {
        self.inner.wake.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// All debts.
    pub fn all(&self) -> Vec<OwedClose> {
        let recorded = self.inner.records.all().into_iter().map(|owed| (*owed).clone());
        recorded.chain(self.unrecorded().values().cloned()).collect()
    }

    /// Waits until `endpoint` has heard of the end of connection `id`, so that it does not take a new Request for the old
    /// connection; at most `bound`.
    pub async fn settled(&self, id: &str, endpoint: &str, bound: Duration) {
        let pending = || self.all().iter().any(|owed| owed.connection_id == id && owed.endpoint == endpoint);
        let wait = async {
            loop {
                let settled = self.inner.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if !pending() {
                    return;
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(bound, wait).await;
    }

    /// Delivers until `stop`, side by side: an endpoint that hangs keeps no other one waiting. `towards` is the chain whose end
    /// calls the endpoint.
    pub async fn run(self, endpoints: Endpoints, towards: Chain, stop: CancellationToken) {
        let mut wake = self.inner.wake.subscribe();
        let mut delivering = FuturesUnordered::new();
        let mut under_way = HashSet::new();
        loop {
            wake.borrow_and_update();
            for owed in self.all() {
                if under_way.insert(owed.id.clone()) {
                    delivering.push(self.deliver_at_last(owed, &endpoints, &towards));
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                _ = wake.changed() => {}
                // One whose file stays must not be delivered over and over.
                Some(id) = delivering.next() => if self.inner.records.get(&id).is_none() { under_way.remove(&id); },
            }
        }
    }

    /// Tries until nothing is owed any more; the id of the debt.
    async fn deliver_at_last(&self, owed: OwedClose, endpoints: &Endpoints, towards: &Chain) -> String {
        let mut wake = self.inner.wake.subscribe();
        while !self.deliver_one(&owed, endpoints, towards).await {
            let _ = tokio::time::timeout(RETRY, wake.changed()).await;
        }
        self.settle(&owed).await;
        owed.id
    }

    /// True when nothing is owed any more.
    async fn deliver_one(&self, owed: &OwedClose, endpoints: &Endpoints, towards: &Chain) -> bool {
        if owed.until <= SystemTime::now() {
            return true;
        }
        let candidate = match endpoints.endpoint(&owed.endpoint).await {
            Found::Ready(candidate) => candidate,
            // Its process is gone, and so are its connections.
            Found::Gone => return true,
            Found::Unreachable(_) => return false,
        };
        let call = Call::new(DELIVERY);
        call.note(candidate.target.clone());
        candidate.lend_netns(&call);
        let connection = match endpoints.at_endpoint(&owed.connection.decoded(), &candidate, DELIVERY).await {
            Ok(Some(connection)) => connection,
            Ok(None) => return true,
            Err(error) => return given_up(owed, &error),
        };
        match towards.close(Close { connection, call }).await {
            Ok(()) => {
                failpoint::hit("del.endpoint-closed");
                tracing::debug!(connection = owed.connection_id, endpoint = owed.endpoint, "endpoint closed");
                true
            }
            Err(error) => given_up(owed, &error),
        }
    }

    async fn settle(&self, owed: &OwedClose) {
        self.unrecorded().remove(&owed.id);
        if let Err(error) = self.inner.records.remove(&owed.id).await {
            tracing::warn!(endpoint = owed.endpoint, %error, "a Close that was delivered stays recorded");
        }
        self.inner.settled.notify_waiters();
    }

    fn unrecorded(&self) -> std::sync::MutexGuard<'_, HashMap<String, OwedClose>> {
        self.inner.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
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
