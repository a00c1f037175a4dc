//! A connection that was recorded and is not up yet.
//!
//! Guarantee: unless it succeeds, nothing is left of it, however the Request ends: the debt to an endpoint that may have
//! granted it is on disk before the record goes.

use nsm_proto::connection::Connection;
use tokio::runtime::Handle;

use super::Owed;
use crate::state::{Connected, ConnectionId, Records};

/// The guard of one attempt at a new connection. Dropped, it is undone by a task of its own.
pub(super) struct Attempt(Option<Begun>);

struct Begun {
    connections: Records<Connected>,
    owed: Owed,
    id: ConnectionId,
    endpoint: String,
    at_endpoint: Option<Connection>,
}

impl Attempt {
    /// Of a connection whose record has just been written.
    pub(super) fn new(connections: Records<Connected>, owed: Owed, id: &str, endpoint: &str) -> Self {
        let (id, endpoint) = (id.to_owned(), endpoint.to_owned());
        Self(Some(Begun { connections, owed, id, endpoint, at_endpoint: None }))
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

    /// Nothing is left of it when this returns, but what the endpoint has still to hear.
    pub(super) async fn undo(mut self) {
        if let Some(begun) = self.0.take() {
            begun.undo().await;
        }
    }
}

impl Begun {
    async fn undo(self) {
        if let Some(connection) = &self.at_endpoint {
            self.owed.owe(&self.endpoint, connection, None).await;
        }
        if let Err(error) = self.connections.remove(&self.id).await {
            tracing::error!(connection = self.id, %error, "the record of a connection that failed stays");
        }
        self.owed.deliver();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        // Without a runtime the agent is ending, and its next start finds the record.
        if let (Some(begun), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(begun.undo());
        }
    }
}
