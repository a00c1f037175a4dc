//! What next hops say about our connections: one stream for each peer.
//!
//! Guarantees:
//! - A connection is watched from [`NextHops::watch`] to [`NextHops::forget`], at one peer at a time.
//! - A stream that ends is opened again at once. Only when that fails, the peer's connections are [`Change::Lost`] and no
//!   longer watched; when it works, those that the peer no longer has are [`Change::Deleted`].
//! - Streams end with the last connection of their peer, and with the last clone of [`NextHops`].
//! - Of connections from before a restart ([`NextHops::resume`]) the first thing that the peer says tells which it still has.
//! - A peer without the service, or that refuses it, is not watched, and never causes an event. One that has too much to do is asked
//!   again, once a minute.
//!
//! Assumptions: the callback returns at once.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use nsm_proto::connection::{
    Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector, PathSegment, State,
};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

use crate::{
    Call,
    connect::{Key, Peers, Target},
    path,
};

/// Time to open a stream.
const OPEN: Duration = Duration::from_secs(2);
/// A stream that lived shorter is opened again after a pause.
const SHORT: Duration = Duration::from_secs(1);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long a peer is left alone that does not show its connections now.
pub(super) const NOT_NOW: Duration = Duration::from_mins(1);

/// What became of a connection at the next hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Change {
    /// The next hop says that it is DOWN.
    Down,
    /// The next hop closed it, or lost it in a restart.
    Deleted,
    /// The next hop wants to see a Request.
    RefreshRequested,
    /// The next hop cannot be reached. It is no longer watched: watch again after the next good Request.
    Lost,
}

/// News of one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HopEvent {
    /// The connection's id at our own segment.
    pub id: String,
    /// What became of it.
    pub change: Change,
}

/// Watches our connections at their next hops. Clones share them.
#[derive(Clone)]
pub struct NextHops(Arc<Shared>);

pub(super) struct Shared {
    peers: Peers,
    name: String,
    tell: Box<dyn Fn(HopEvent) + Send + Sync>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    hops: HashMap<Key, Hop>,
    at: HashMap<String, Key>,
}

struct Hop {
    watched: HashMap<String, Watched>,
    /// Ends with the hop.
    stream: AbortOnDropHandle<()>,
    #[cfg(test)]
    heard: bool,
}

/// What the first event of a stream is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// The connections have only just been made: it need not have them yet.
    Hears,
    /// The connections are older than the stream: those that it lacks are gone.
    Tells,
}

struct Watched {
    /// Of our own segment in the path.
    index: usize,
    up: bool,
}

impl NextHops {
    /// `name` is our own segment's; `tell` hears of each change.
    pub fn new(peers: Peers, name: impl Into<String>, tell: impl Fn(HopEvent) + Send + Sync + 'static) -> Self {
        let tell = Box::new(tell);
        Self(Arc::new(Shared { peers, name: name.into(), tell, table: Mutex::default() }))
    }

    /// Watches a connection, as our own segment knows it, at its next hop.
    pub fn watch(&self, connection: &Connection, target: &Target) {
        let Ok(key) = target.key() else { return };
        let mut table = self.0.lock();
        if !table.hops.contains_key(&key) {
            let stream = self.0.follow(target, &key, First::Hears);
            table.hops.insert(key.clone(), Hop::new(stream));
        }
        table.watch(connection, &key);
    }

    /// Watches connections that this process had at a next hop before it was restarted. Those that the next hop does not know
    /// are [`Change::Deleted`].
    pub fn resume(&self, connections: &[Connection], target: &Target) {
        let Ok(key) = target.key() else { return };
        if connections.is_empty() {
            return;
        }
        let mut table = self.0.lock();
        // One that is open has said its first thing already.
        let stream = self.0.follow(target, &key, First::Tells);
        match table.hops.get_mut(&key) {
            Some(hop) => hop.stream = stream,
            None => drop(table.hops.insert(key.clone(), Hop::new(stream))),
        }
        for connection in connections {
            table.watch(connection, &key);
        }
    }

    /// What the next hop last said of a connection; `None` when it is not watched.
    pub fn is_up(&self, id: &str) -> Option<bool> {
        self.0.is_up(id)
    }

    /// Nothing more is told about this connection.
    pub fn forget(&self, id: &str) {
        self.0.lock().forget(id);
    }

    /// Whether some stream is open and has said something.
    #[cfg(test)]
    pub(super) fn is_watching(&self) -> bool {
        self.0.lock().hops.values().any(|hop| hop.heard)
    }

    #[cfg(test)]
    pub(super) fn streams_ended(&self) -> bool {
        self.0.lock().hops.values().all(|hop| hop.stream.is_finished())
    }

    pub(super) fn downgrade(&self) -> Weak<Shared> {
        Arc::downgrade(&self.0)
    }

    pub(super) fn peers(&self) -> Peers {
        self.0.peers.clone()
    }

    pub(super) fn name(&self) -> String {
        self.0.name.clone()
    }
}

impl Hop {
    fn new(stream: AbortOnDropHandle<()>) -> Self {
        Self {
            watched: HashMap::new(),
            stream,
            #[cfg(test)]
            heard: false,
        }
    }
}

impl Table {
    fn watch(&mut self, connection: &Connection, key: &Key) {
        let index = connection.path.as_ref().and_then(|path| usize::try_from(path.index).ok()).unwrap_or_default();
        if self.at.get(&connection.id).is_some_and(|at| at != key) {
            self.forget(&connection.id);
        }
        self.at.insert(connection.id.clone(), key.clone());
        if let Some(hop) = self.hops.get_mut(key) {
            hop.watched.insert(connection.id.clone(), Watched { index, up: true });
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(key) = self.at.remove(id) else { return };
        let Some(hop) = self.hops.get_mut(&key) else { return };
        hop.watched.remove(id);
        if hop.watched.is_empty() {
            self.hops.remove(&key);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn follow(self: &Arc<Self>, target: &Target, key: &Key, first: First) -> AbortOnDropHandle<()> {
        let (shared, peers, name) = (Arc::downgrade(self), self.peers.clone(), self.name.clone());
        AbortOnDropHandle::new(tokio::spawn(follow(shared, peers, name, target.clone(), key.clone(), first)))
    }

    pub(super) fn is_up(&self, id: &str) -> Option<bool> {
        let table = self.lock();
        table.at.get(id).and_then(|key| table.hops.get(key)?.watched.get(id)).map(|watched| watched.up)
    }

    fn tell_all(&self, ids: impl IntoIterator<Item = String>, change: Change) {
        for id in ids {
            (self.tell)(HopEvent { id, change });
        }
    }

    /// The peer cannot be reached.
    fn lose(&self, key: &Key) {
        let lost: Vec<_> = {
            let mut table = self.lock();
            let lost = table.hops.remove(key).map(|hop| hop.watched.into_keys().collect()).unwrap_or_default();
            for id in &lost {
                table.at.remove(id);
            }
            lost
        };
        self.tell_all(lost, Change::Lost);
    }

    /// Takes in an event. `before`: those watched when a stream was opened whose first event tells which of them are left.
    fn hear(&self, key: &Key, event: &ConnectionEvent, before: Option<&HashSet<String>>) {
        let mut changes = Vec::new();
        let mut heard = HashSet::new();
        {
            let mut table = self.lock();
            let Some(hop) = table.hops.get_mut(key) else { return };
            #[cfg(test)]
            {
                hop.heard = true;
            }
            for connection in event.connections.values() {
                let Some(id) = hop.own_id(connection) else { continue };
                let Some(watched) = hop.watched.get_mut(&id) else { continue };
                heard.insert(id.clone());
                let change = change(event.r#type(), connection.state());
                let was_up =
                    std::mem::replace(&mut watched.up, !matches!(change, Some(Change::Down | Change::Deleted)));
                // What is down already is no news, however often it is said.
                let news = change.filter(|_| was_up || watched.up);
                changes.extend(news.map(|change| HopEvent { id, change }));
            }
            if event.r#type() == ConnectionEventType::InitialStateTransfer {
                for id in before.into_iter().flatten().filter(|id| !heard.contains(*id)) {
                    if let Some(watched) = hop.watched.get_mut(id)
                        && std::mem::replace(&mut watched.up, false)
                    {
                        changes.push(HopEvent { id: id.clone(), change: Change::Deleted });
                    }
                }
            }
        }
        for event in changes {
            (self.tell)(event);
        }
    }

    fn watched(&self, key: &Key) -> HashSet<String> {
        self.lock().hops.get(key).map(|hop| hop.watched.keys().cloned().collect()).unwrap_or_default()
    }
}

impl Hop {
    /// Our id of a connection that the peer reports: it stands in the segment where we expect it, and the peer reports as
    /// ourselves or as our next hop.
    fn own_id(&self, connection: &Connection) -> Option<String> {
        let index = usize::try_from(connection.path.as_ref()?.index).ok()?;
        let ours = [path::previous(connection).zip(index.checked_sub(1)), path::own(connection).zip(Some(index))];
        let own = ours
            .into_iter()
            .flatten()
            .find(|(segment, index)| self.watched.get(&segment.id).is_some_and(|watched| watched.index == *index));
        own.map(|(segment, _)| segment.id.clone())
    }
}

/// What an event says of a connection, if anything needs to be done.
fn change(kind: ConnectionEventType, state: State) -> Option<Change> {
    match (kind, state) {
        (ConnectionEventType::Delete, _) => Some(Change::Deleted),
        (_, State::Down) => Some(Change::Down),
        (_, State::RefreshRequested) => Some(Change::RefreshRequested),
        // After a reselect an endpoint may echo what it was asked with: no sign of trouble.
        (_, State::Up | State::ReselectRequested) => None,
    }
}

/// Follows one peer until it is lost. Holds `shared` only while it works.
async fn follow(shared: Weak<Shared>, peers: Peers, name: String, target: Target, key: Key, mut first: First) {
    let mut pause = Duration::from_millis(50);
    loop {
        let Some(before) = shared.upgrade().map(|shared| shared.watched(&key)) else { return };
        let opened = Instant::now();
        match open(&peers, &name, &target).await {
            Ok(mut stream) => {
                let mut initial = (first == First::Tells).then_some(&before);
                let end = loop {
                    match stream.message().await {
                        Ok(Some(event)) => {
                            let Some(shared) = shared.upgrade() else { return };
                            shared.hear(&key, &event, initial.take());
                        }
                        Ok(None) => break None,
                        Err(status) => break Some(status),
                    }
                };
                match end.as_ref().map(no) {
                    Some(Some(No::Never)) => return,
                    Some(Some(No::NotNow)) => sleep(NOT_NOW).await,
                    Some(None) => peers.forget(&target),
                    None => {}
                }
            }
            Err(status) if no(&status) == Some(No::Never) => return,
            Err(status) if no(&status) == Some(No::NotNow) => sleep(NOT_NOW).await,
            Err(status) => {
                tracing::debug!(peer = ?target, error = %status.message(), "the next hop is lost");
                peers.forget(&target);
                if let Some(shared) = shared.upgrade() {
                    shared.lose(&key);
                }
                return;
            }
        }
        first = First::Tells;
        if opened.elapsed() < SHORT {
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        } else {
            pause = Duration::from_millis(50);
        }
    }
}

/// How a peer says that it does not show its connections. It answers, so it is not lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum No {
    /// It has no such service, or not for us.
    Never,
    /// It has enough to do, or is not ready.
    NotNow,
}

fn no(status: &Status) -> Option<No> {
    match status.code() {
        Code::Unimplemented
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::NotFound => Some(No::Never),
        Code::FailedPrecondition | Code::ResourceExhausted => Some(No::NotNow),
        _ => None,
    }
}

async fn open(peers: &Peers, name: &str, target: &Target) -> Result<Streaming<ConnectionEvent>, Status> {
    let selector = MonitorScopeSelector {
        path_segments: vec![PathSegment { name: name.to_owned(), ..PathSegment::default() }],
        network_services: Vec::new(),
    };
    let opening = async {
        let mut client = peers.monitor(target, &Call::new(OPEN)).await?;
        client.monitor_connections(selector).await.map(tonic::Response::into_inner)
    };
    timeout(OPEN, opening).await.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
}
