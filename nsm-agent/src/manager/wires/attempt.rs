//! A connection that was recorded and is not up yet.
//!
//! Guarantee: unless it succeeds, nothing is left of it, however the Request ends: the debt to an endpoint that may have
//! granted it is on disk before the record goes. Where its wire cannot be taken away the record stays, so that the next Request,
//! Close or start of the agent does it.

use nsm_netlink::Netns;
use nsm_proto::connection::Connection;
use tokio::runtime::Handle;

use super::{Owed, work::Work};
use crate::state::{Connected, blocking};

/// The guard of one attempt at a new connection. Dropped, it is undone by a task of its own.
pub(super) struct Attempt(Option<Begun>);

struct Begun {
    work: Work,
    owed: Owed,
    record: Connected,
    client: Option<Netns>,
    at_endpoint: Option<Connection>,
}

impl Attempt {
    /// Of a connection whose record has just been written.
    pub(super) fn new(work: Work, owed: Owed, record: Connected, client: Option<Netns>) -> Self {
        Self(Some(Begun { work, owed, record, client, at_endpoint: None }))
    }

    /// The endpoint may know of it, in this form.
    pub(super) fn at_endpoint(&mut self, connection: Connection) {
        if let Some(begun) = &mut self.0 {
            begun.at_endpoint = Some(connection);
        }
    }

    /// The endpoint keeps nothing of it.
    pub(super) fn not_at_endpoint(&mut self) {
        if let Some(begun) = &mut self.0 {
            begun.at_endpoint = None;
        }
    }

    /// The connection is up.
    pub(super) fn succeeded(mut self) {
        self.0 = None;
    }

    /// Nothing is left of it when this returns, but what the endpoint has still to hear. For whoever works at its wire.
    pub(super) async fn undo(mut self) {
        if let Some(begun) = self.0.take() {
            begun.undo().await;
        }
    }
}

impl Begun {
    async fn undo(self) {
        if let Some(connection) = self.at_endpoint {
            self.owed.came_to_nothing(&self.record, connection).await;
        }
        // As far as it came. A later one of the same id is somebody else's.
        let (work, client) = (self.work, self.client);
        let record = work.connections.get(&self.record.id).filter(|record| record.since == self.record.since);
        if let Some(record) = record {
            blocking(move || work.take_back(&record, client.as_ref())).await;
        }
        self.owed.deliver();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Without a runtime the agent is ending, and its next start finds the record.
        if let (Some(begun), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                // A thread may still be at work for the Request that was given up.
                let _working = begun.work.links.work_at(&begun.record.id).await;
                begun.undo().await;
            });
        }
    }
}
