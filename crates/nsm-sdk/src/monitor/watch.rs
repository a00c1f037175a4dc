//! One watcher: what it asked for, and the news that it has not read yet.
//!
//! Guarantees: news of one connection stand once, as they last were; connections in the order in which they first changed.
//! Assumptions: none.

use std::{
    collections::{HashMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures::Stream;
use nsm_proto::connection::{Connection, ConnectionEvent, ConnectionEventType, MonitorScopeSelector};
use tonic::Status;

use super::{Filter, MAX_PENDING, Shared, event, selects};
use crate::encoded::Encoded;

pub(super) struct Mailbox {
    selector: MonitorScopeSelector,
    filter: Filter,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    /// What there was when the watch began. The watcher itself looks which of it it wants: nobody else waits for that.
    initial: Option<Vec<Arc<Encoded<Connection>>>>,
    order: VecDeque<String>,
    news: HashMap<String, (ConnectionEventType, Arc<Connection>)>,
    end: Option<Status>,
    /// The watcher has left, or was told the end: nothing more is kept.
    done: bool,
    waker: Option<Waker>,
}

impl Content {
    fn next(&mut self) -> Poll<Option<Result<ConnectionEvent, Status>>> {
        if let Some((kind, connection)) = self.order.pop_front().and_then(|id| self.news.remove(&id)) {
            return Poll::Ready(Some(Ok(event(kind, [connection]))));
        }
        if let Some(end) = self.end.take() {
            self.done = true;
            return Poll::Ready(Some(Err(end)));
        }
        if self.done { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Mailbox {
    pub(super) fn new(selector: MonitorScopeSelector, filter: Filter) -> Self {
        Self { selector, filter, content: Mutex::default() }
    }

    /// The state that all later news change.
    pub(super) fn begin(&self, connections: Vec<Arc<Encoded<Connection>>>) {
        self.lock().initial = Some(connections);
    }

    /// What of that the watcher wants; `None` when it was told already.
    fn initial(&self) -> Option<ConnectionEvent> {
        let connections = self.lock().initial.take()?;
        let mine =
            connections.iter().map(|connection| connection.decoded()).filter(|connection| self.wants(connection));
        Some(event(ConnectionEventType::InitialStateTransfer, mine.map(Arc::new)))
    }

    /// Adds news if they are wanted. `false` when nothing more ever will be.
    pub(super) fn put(&self, kind: ConnectionEventType, connection: &Arc<Connection>) -> bool {
        let wanted = self.wants(connection);
        let mut content = self.lock();
        if content.done || content.end.is_some() {
            return false;
        }
        if !wanted {
            return true;
        }
        if content.news.insert(connection.id.clone(), (kind, connection.clone())).is_none() {
            content.order.push_back(connection.id.clone());
        }
        let lags = content.order.len() > MAX_PENDING;
        if lags {
            content.order.clear();
            content.news.clear();
            content.end = Some(Status::aborted("the watcher does not keep up: watch again"));
        }
        wake(content);
        !lags
    }

    pub(super) fn end(&self, status: Status) {
        let mut content = self.lock();
        content.initial = None;
        content.order.clear();
        content.news.clear();
        content.end = Some(status);
        wake(content);
    }

    fn wants(&self, connection: &Connection) -> bool {
        selects(&self.selector, connection) && (self.filter)(connection)
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes outside of the lock.
fn wake(mut content: MutexGuard<'_, Content>) {
    let waker = content.waker.take();
    drop(content);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// The stream of one watcher. Dropping it ends the watch.
pub struct Watch {
    mailbox: Arc<Mailbox>,
    monitor: Weak<Mutex<Shared>>,
}

impl Watch {
    pub(super) fn new(mailbox: Arc<Mailbox>, monitor: Weak<Mutex<Shared>>) -> Self {
        Self { mailbox, monitor }
    }
}

impl Stream for Watch {
    type Item = Result<ConnectionEvent, Status>;

    fn poll_next(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(initial) = self.mailbox.initial() {
            return Poll::Ready(Some(Ok(initial)));
        }
        let mut content = self.mailbox.lock();
        let next = content.next();
        if next.is_pending() {
            content.waker = Some(task.waker().clone());
        }
        next
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // At once, not with the next event: who watches and leaves again and again leaves nothing.
        if let Some(monitor) = self.monitor.upgrade() {
            let mut shared = monitor.lock().unwrap_or_else(PoisonError::into_inner);
            shared.watchers.retain(|watcher| !Arc::ptr_eq(watcher, &self.mailbox));
        }
    }
}
