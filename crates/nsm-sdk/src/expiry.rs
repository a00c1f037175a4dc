//! Closes connections that their client no longer refreshes.
//!
//! Guarantees:
//! - A connection is closed when the caller's segment expires, not earlier: neither by the time that a Request's deadline left, nor
//!   while a Request that extends it waits for its turn or runs.
//! - A Request whose caller's token has already expired is refused.
//! - A failed Request leaves the time as it was. A Close ends it.
//!
//! Assumptions: [`Begin`](crate::begin::Begin) and [`Token::server`](crate::token::Token::server) come earlier. A connection whose
//! path begins here has no caller and never expires.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_proto::connection::Connection;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{Close, Element, Error, Kind, Next, Request, begin::Events, path, tasks::Tasks};

/// How long a Close that failed because of its queue or the shutdown waits for the next try.
const AGAIN: Duration = Duration::from_secs(1);

/// The element. Clones share the connections.
#[derive(Clone, Default)]
pub struct Expiry {
    tasks: Arc<Tasks>,
}

/// The caller's time was over before it asked.
#[derive(Debug, thiserror::Error)]
#[error("the token of {caller:?}, the segment before ours, expired {ago_ms} ms ago")]
pub struct Expired {
    caller: String,
    ago_ms: u128,
}

impl Expiry {
    /// Watches nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Watches a connection from before a restart. Its client could not refresh it meanwhile: it gets `grace` at least.
    pub fn adopt(&self, events: &Events, connection: &Connection, grace: Duration) {
        if let Some(left) = left(connection) {
            self.watch(events.clone(), Instant::now() + left.unwrap_or_default().max(grace));
        }
    }

    fn watch(&self, events: Events, due: Instant) {
        let id = events.id().to_owned();
        self.tasks.set(&id, async move {
            sleep_until(due).await;
            // A Request that is served meanwhile replaces this task while its Close still waits for its turn.
            // Boxed: a task that sleeps, as most do, is small.
            while let Err(error) = Box::pin(events.close(|_| true)).await {
                tracing::debug!(connection = events.id(), %error, "an expired connection did not close cleanly");
                sleep(AGAIN).await;
            }
        });
    }
}

/// Time that the caller's segment has left; the inner error is the time since it ended.
fn left(connection: &Connection) -> Option<Result<Duration, Duration>> {
    let expires = SystemTime::try_from(path::previous(connection)?.expires?).ok()?;
    Some(expires.duration_since(SystemTime::now()).map_err(|past| past.duration()))
}

#[async_trait]
impl Element for Expiry {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let events = request.call.noted::<Events>();
        let caller = path::previous(&request.connection).map(|segment| segment.name.clone());
        let left = left(&request.connection).transpose().map_err(|ago| {
            let expired = Expired { caller: caller.unwrap_or_default(), ago_ms: ago.as_millis() };
            Error::new(Kind::Denied, expired)
        })?;
        let due = left.map(|left| Instant::now() + left);
        let connection = next.request(request).await?;
        if let (Some(events), Some(due)) = (events, due) {
            self.watch(events, due);
        }
        Ok(connection)
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        let id = close.connection.id.clone();
        let closed = next.close(close).await;
        self.tasks.remove(&id);
        closed
    }
}
