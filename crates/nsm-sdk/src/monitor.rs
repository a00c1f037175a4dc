//! Tells watchers what becomes of the connections of this hop.
//!
//! Guarantees:
//! - A watcher first gets `INITIAL_STATE_TRANSFER`, at once and even if empty, then UPDATE and DELETE for what it may see and asked for.
//! - Nobody waits for a watcher. One that reads slowly gets the latest state of each connection instead of every step; one
//!   that falls more than [`MAX_PENDING`] connections behind is cut off (ABORTED).
//! - A Close during a reselect is no DELETE: the UPDATE follows.
//! - After [`Monitor::shut_down`] all streams end at once with UNAVAILABLE.
//!
//! Assumptions: [`Begin`](crate::begin::Begin) comes earlier, so that events of a connection come in order. Whom a watcher is and what
//! it may see is decided by the guard given to [`Monitor::guarded`]; without one, everybody sees everything.

mod selector;
#[cfg(test)]
mod tests;
mod watch;

use std::{
    collections::{BTreeMap, HashMap},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use futures::Stream;
use nsm_proto::connection::{
    Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector, State,
    monitor_connection_server::{MonitorConnection, MonitorConnectionServer},
};
use tonic::{Response, Status};

use self::watch::Mailbox;
use crate::{Close, Element, Error, Next, Request, encoded::Encoded, limits};

pub use self::{selector::selects, watch::Watch};

/// Connections whose news one watcher may leave unread.
pub const MAX_PENDING: usize = 4096;

/// What a watcher may see.
pub type Filter = Arc<dyn Fn(&Connection) -> bool + Send + Sync>;

type Guard = dyn Fn(&tonic::Request<MonitorScopeSelector>) -> Result<Filter, Status> + Send + Sync;

/// The element and the gRPC service. Clones share the connections.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<Mutex<Shared>>,
    guard: Arc<Guard>,
}

#[derive(Default)]
struct Shared {
    /// At rest: there may be many, and few are looked at.
    connections: HashMap<String, Arc<Encoded<Connection>>>,
    watchers: Vec<Arc<Mailbox>>,
    shut_down: bool,
}

impl Default for Monitor {
    fn default() -> Self {
        Self::guarded(|_| Ok(Arc::new(|_: &Connection| true)))
    }
}

impl Monitor {
    /// Everybody sees everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// `guard` decides for each watcher what it may see. The filter is asked again at each event.
    pub fn guarded(
        guard: impl Fn(&tonic::Request<MonitorScopeSelector>) -> Result<Filter, Status> + Send + Sync + 'static,
    ) -> Self {
        Self { shared: Arc::default(), guard: Arc::new(guard) }
    }

    /// The gRPC service.
    pub fn server(&self) -> MonitorConnectionServer<Self> {
        MonitorConnectionServer::new(self.clone()).max_decoding_message_size(limits::MESSAGE)
    }

    /// Sends an UPDATE with this state and remembers it. `false` when the connection is not known.
    pub fn announce(&self, id: &str, state: State) -> bool {
        let mut shared = self.lock();
        let Some(known) = shared.connections.get_mut(id) else { return false };
        let mut connection = known.decoded();
        // A request to refresh is an event, not a state that later watchers should see.
        connection.set_state(if state == State::RefreshRequested { State::Up } else { state });
        *known = Encoded::new(&connection).into();
        connection.set_state(state);
        shared.tell(ConnectionEventType::Update, &Arc::new(connection));
        true
    }

    /// Shows a connection that did not come through the chain: one from before a restart.
    pub fn adopt(&self, connection: Connection) {
        self.lock().update(connection);
    }

    /// Sends a DELETE for a connection that goes without a Close.
    pub fn forget(&self, id: &str) {
        self.lock().delete(id);
    }

    /// A watcher in this process.
    pub fn watch(&self, selector: MonitorScopeSelector, filter: Filter) -> Watch {
        let mut shared = self.lock();
        let mailbox = Arc::new(Mailbox::new(selector, filter));
        if shared.shut_down {
            mailbox.end(Status::unavailable("shutting down"));
        } else {
            mailbox.begin(shared.connections.values().cloned().collect());
            shared.watchers.push(mailbox.clone());
        }
        drop(shared);
        Watch::new(mailbox, Arc::downgrade(&self.shared))
    }

    /// Ends all streams, and those to come.
    pub fn shut_down(&self) {
        let watchers = {
            let mut shared = self.lock();
            shared.shut_down = true;
            std::mem::take(&mut shared.watchers)
        };
        for watcher in watchers {
            watcher.end(Status::unavailable("shutting down"));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn update(&mut self, connection: Connection) {
        self.connections.insert(connection.id.clone(), Encoded::new(&connection).into());
        self.tell(ConnectionEventType::Update, &Arc::new(connection));
    }

    fn delete(&mut self, id: &str) {
        if let Some(connection) = self.connections.remove(id) {
            self.tell(ConnectionEventType::Delete, &Arc::new(connection.decoded()));
        }
    }

    fn tell(&mut self, kind: ConnectionEventType, connection: &Arc<Connection>) {
        self.watchers.retain(|watcher| watcher.put(kind, connection));
    }
}

#[async_trait]
impl Element for Monitor {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let id = request.connection.id.clone();
        let reselect = request.connection.state() == State::ReselectRequested;
        let mut moving = Moving { monitor: self, id: &id, deleted: reselect };
        let mut connection = next.request(request).await?;
        moving.deleted = false;
        connection.set_state(State::Up);
        self.lock().update(connection.clone());
        Ok(connection)
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        let id = close.connection.id.clone();
        let reselect = close.connection.state() == State::ReselectRequested;
        let closed = next.close(close).await;
        if !reselect {
            self.lock().delete(&id);
        }
        closed
    }
}

/// Between a reselect's Close and its answer: when none comes the connection is gone, for its watchers too.
struct Moving<'a> {
    monitor: &'a Monitor,
    id: &'a str,
    deleted: bool,
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if self.deleted {
            self.monitor.lock().delete(self.id);
        }
    }
}

#[async_trait]
impl MonitorConnection for Monitor {
    type MonitorConnectionsStream = Pin<Box<dyn Stream<Item = Result<ConnectionEvent, Status>> + Send>>;

    async fn monitor_connections(
        &self,
        request: tonic::Request<MonitorScopeSelector>,
    ) -> Result<Response<Self::MonitorConnectionsStream>, Status> {
        limits::selector(request.get_ref())?;
        let filter = (self.guard)(&request)?;
        Ok(Response::new(Box::pin(self.watch(request.into_inner(), filter))))
    }
}

/// An event about these connections, by their ids here.
fn event(kind: ConnectionEventType, connections: impl IntoIterator<Item = Arc<Connection>>) -> ConnectionEvent {
    let by_id = |connection: Arc<Connection>| (connection.id.clone(), Arc::unwrap_or_clone(connection));
    ConnectionEvent { r#type: kind.into(), connections: connections.into_iter().map(by_id).collect::<BTreeMap<_, _>>() }
}
