//! What goes on with the interfaces of wires: which of them stand, which are going, at which wires a thread still works, and which
//! could not be taken away.
//!
//! Guarantee: a wire is worked on by one thread at a time, also when whoever asked for the work before has stopped waiting.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use nsm_netlink::Mac;
use tokio::sync::Notify;

use crate::{
    forwarder::Wire,
    state::{Connected, ConnectionId},
};

/// The links of this agent's wires. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Links(Arc<Inner>);

#[derive(Default)]
struct Inner {
    state: Mutex<State>,
    freed: Notify,
    left: Notify,
}

#[derive(Default)]
struct State {
    /// By hardware address: numbers of namespaces and links are used again, and an event may come late.
    standing: HashMap<Mac, ConnectionId>,
    ending: HashSet<ConnectionId>,
    busy: HashSet<ConnectionId>,
    /// With when they were asked for: a later connection of the same id is another one.
    left: HashMap<ConnectionId, SystemTime>,
}

impl Links {
    /// Whose interface that is.
    pub(super) fn owner(&self, mac: Mac) -> Option<ConnectionId> {
        self.state().standing.get(&mac).cloned()
    }

    /// Watches the interfaces of a wire that stands.
    pub(super) fn stands(&self, record: &Connected) {
        let Some(Wire::Kernel(wire)) = &record.wire else { return };
        let mut state = self.state();
        state.standing.retain(|_, id| *id != record.id);
        for side in [&wire.client, &wire.endpoint] {
            state.standing.insert(side.mac, record.id.clone());
        }
    }

    /// Its interfaces are taken away, or made anew: their end is no loss.
    pub(super) fn unwatch(&self, id: &str) {
        self.state().standing.retain(|_, of| of != id);
    }

    /// The connection is ending, until the guard is dropped.
    pub(super) fn end(&self, id: &str) -> Ending {
        self.state().ending.insert(id.to_owned());
        Ending { links: self.clone(), id: id.to_owned() }
    }

    /// Whether the connection's interfaces go because we take them away.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.state().ending.contains(id)
    }

    /// Waits until no thread works at this connection's wire, and has it until the guard is dropped.
    pub(super) async fn work_at(&self, id: &str) -> Working {
        loop {
            let freed = self.0.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.state().busy.insert(id.to_owned()) {
                return Working { links: self.clone(), id: id.to_owned() };
            }
            freed.await;
        }
    }

    /// The wire of a connection that has ended could not be taken away: it is tried again later.
    pub(super) fn left(&self, record: &Connected) {
        self.state().left.insert(record.id.clone(), record.since);
        self.0.left.notify_one();
    }

    /// Whether this is the record of a wire that could not be taken away, and no connection any more.
    pub(super) fn is_left(&self, record: &Connected) -> bool {
        self.state().left.get(&record.id) == Some(&record.since)
    }

    /// The wire has gone after all.
    pub(super) fn gone(&self, id: &str) {
        let mut state = self.state();
        state.left.remove(id);
        state.standing.retain(|_, of| of != id);
    }

    /// Waits for wires that could not be taken away.
    pub(super) async fn leftovers(&self) {
        self.0.left.notified().await;
    }

    /// The connections whose wires could not be taken away until now.
    pub(super) fn all_left(&self) -> Vec<ConnectionId> {
        self.state().left.keys().cloned().collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that is ending.
pub(super) struct Ending {
    links: Links,
    id: ConnectionId,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.links.state().ending.remove(&self.id);
    }
}

/// The right to work at a connection's wire.
pub(super) struct Working {
    links: Links,
    id: ConnectionId,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.links.state().busy.remove(&self.id);
        self.links.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_at_a_time_works_at_a_wire() {
        let links = Links::default();
        let first = links.work_at("a").await;
        let _other = links.work_at("b").await;
        let mut second = Box::pin(links.work_at("a"));
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        let _second = second.await;
    }

    #[test]
    fn an_end_that_is_given_up_is_forgotten() {
        let links = Links::default();
        let ending = links.end("a");
        assert!(links.is_ending("a"));
        drop(ending);
        assert!(!links.is_ending("a"));
    }
}
