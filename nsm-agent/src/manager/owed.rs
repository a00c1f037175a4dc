//! Closes that an endpoint has still to hear.
//!
//! Guarantees: what is owed is on disk before the wire it belongs to is touched, and survives the agent. It is delivered at
//! once where the endpoint can be reached, again when it registers, and given up when the connection has expired at the
//! endpoint anyway, or the endpoint's process has ended or taken its registration back. An endpoint is never told to close a
//! connection that has been made again meanwhile. One peer's connections owe a bounded number of Closes: beyond that the oldest
//! are left to expire.

mod deliver;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

pub use deliver::Ways;
use nsm_proto::connection::Connection;
use nsm_sdk::path;
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::state::{Connected, ConnectionId, Encoded, Owner, Record, Records};

/// Most debts of one peer's connections. Attachments are the runtime's, which acts for pods: theirs are as many as pods end.
const OF_ONE_PEER: usize = 256;

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
    pub connection_id: ConnectionId,
    /// Whose connection it was.
    pub owner: Owner,
    /// The connection of this node that ends with it, wire and record: the one that was asked for then. None when only the
    /// endpoint has something to forget.
    pub ends: Option<SystemTime>,
    /// When the endpoint has forgotten it by itself.
    pub until: SystemTime,
}

impl OwedClose {
    /// Whether this connection is the one that ends with it, and not a later one of the same id.
    pub fn ends(&self, record: &Connected) -> bool {
        self.connection_id == record.id && self.ends == Some(record.since)
    }

    /// The endpoint's own id of the connection, where it ever said one.
    fn at_endpoint(&self) -> Option<String> {
        path::next(&self.connection.decoded()).map(|segment| segment.id.clone())
    }
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

    /// How long an endpoint keeps a connection that nobody refreshes, at most.
    pub fn life(&self) -> Duration {
        self.inner.life
    }

    /// Records that the connection of this record ends, here and at its endpoint.
    pub async fn ends(&self, record: &Connected) {
        self.owe(record, record.endpoint_side.decoded(), Some(record.since)).await;
    }

    /// Records that the endpoint of this record may know of a connection, in this form, that came to nothing here.
    pub async fn came_to_nothing(&self, record: &Connected, at_endpoint: Connection) {
        self.owe(record, at_endpoint, None).await;
    }

    /// On a full disk a debt is kept in memory only, and said so: a DEL must not fail for it.
    async fn owe(&self, record: &Connected, connection: Connection, ends: Option<SystemTime>) {
        let mut owed = OwedClose {
            id: Uuid::new_v4().to_string(),
            endpoint: record.endpoint.clone(),
            connection: Encoded::from(&connection),
            connection_id: record.id.clone(),
            owner: record.owner.clone(),
            ends,
            until: SystemTime::now() + self.inner.life,
        };
        let same = |other: &OwedClose| {
            (&other.connection_id, &other.endpoint) == (&owed.connection_id, &owed.endpoint)
                && other.at_endpoint() == owed.at_endpoint()
        };
        if let Some(other) = self.all().into_iter().find(same) {
            owed.id.clone_from(&other.id);
        }
        self.make_room(&owed.owner).await;
        self.unrecorded().remove(&owed.id);
        if let Err(error) = self.inner.records.put(owed.clone()).await {
            tracing::warn!(endpoint = owed.endpoint, %error, "a Close owed to an endpoint is kept in memory only");
            self.unrecorded().insert(owed.id.clone(), owed);
        }
    }

    async fn make_room(&self, owner: &Owner) {
        let bounded = match owner {
            Owner::Attachment(_) => false,
            Owner::Pod(_) | Owner::Host { .. } => true,
        };
        let of_owner = |owed: &OwedClose| owed.owner == *owner;
        if !bounded {
            return;
        }
        let theirs: Vec<OwedClose> = self.all().into_iter().filter(of_owner).collect();
        if theirs.len() < OF_ONE_PEER {
            return;
        }
        if let Some(oldest) = theirs.into_iter().min_by_key(|owed| owed.until) {
            tracing::info!(%owner, endpoint = oldest.endpoint, "too many owed Closes of one peer: the oldest is left to expire");
            self.settle(&oldest).await;
        }
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

    /// How many there are.
    pub fn len(&self) -> usize {
        self.inner.records.len() + self.unrecorded().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until `endpoint` has heard of the end of connection `id`, so that it does not take a new Request for the old
    /// connection; at most `bound`.
    pub async fn settled(&self, id: &str, endpoint: &str, bound: Duration) {
        let wait = async {
            loop {
                let settled = self.inner.settled.notified();
                tokio::pin!(settled);
                settled.as_mut().enable();
                if !self.is_owed(id, endpoint) {
                    return;
                }
                settled.await;
            }
        };
        let _ = tokio::time::timeout(bound, wait).await;
    }

    fn is_owed(&self, id: &str, endpoint: &str) -> bool {
        let this = |owed: &OwedClose| owed.connection_id == id && owed.endpoint == endpoint;
        self.inner.records.find(this).is_some() || self.unrecorded().values().any(this)
    }

    async fn settle(&self, owed: &OwedClose) {
        // The same may be owed anew meanwhile.
        let anew = |now: &OwedClose| now.until != owed.until;
        if self.inner.records.get(&owed.id).is_some_and(|now| anew(&now))
            || self.unrecorded().get(&owed.id).is_some_and(anew)
        {
            return;
        }
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
