//! Requests connections again before they expire.
//!
//! Guarantees:
//! - A refresh starts after a fifth to two fifths of the shortest life on the path (earlier hops sooner, so that one refresh
//!   serves the hops behind), a little earlier by chance so that many do not come at once.
//! - A failed refresh is tried again after [`FIRST_RETRY`], then ever slower up to [`LAST_RETRY`], until one succeeds or the
//!   connection is closed. Other Requests that succeed count as refreshes. One try takes a third of the time left at most.
//!
//! Assumptions: [`Begin`](crate::begin::Begin) comes earlier. A path on which nothing expires is not refreshed.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_proto::connection::Connection;
use tokio::time::{Instant, sleep};

use crate::{Close, Element, Error, Next, Request, begin::Events, tasks::Tasks};

/// The pause after the first refresh that failed.
pub const FIRST_RETRY: Duration = Duration::from_millis(200);
/// The longest pause between two tries.
pub const LAST_RETRY: Duration = Duration::from_secs(5);

/// The least time for a refresh.
const LEAST_TRY: Duration = Duration::from_secs(1);

/// The least pause before a refresh: a peer that answers with expired segments must not make this one spin.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// The element. Clones share the connections.
#[derive(Clone, Default)]
pub struct Refresh {
    tasks: Arc<Tasks>,
}

impl Refresh {
    /// Refreshes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Refreshes a connection from before a restart.
    pub fn adopt(&self, events: &Events, connection: &Connection) {
        self.schedule(events.clone(), connection);
    }

    fn schedule(&self, events: Events, connection: &Connection) {
        let Some(pause) = pause(connection, SystemTime::now()) else { return };
        let pause = pause.mul_f64(1.0 - 0.1 * chance()).max(LEAST_PAUSE);
        let id = events.id().to_owned();
        self.tasks.set(&id, async move {
            sleep(pause).await;
            let mut retry = FIRST_RETRY;
            // A success replaces this task. Boxed: a task that sleeps, as most do, is small.
            while Box::pin(events.request(in_time)).await.is_err() {
                sleep(retry.mul_f64(1.0 + 0.25 * chance())).await;
                retry = (retry * 2).min(LAST_RETRY);
            }
        });
    }
}

/// Bounds a refresh by a third of the time left: a next hop that hangs must be found out, and another try be possible, before
/// the connection expires.
fn in_time(request: &mut Request) -> bool {
    if let Some(left) = left(&request.connection, SystemTime::now()) {
        let bound = (left / 3).max(LEAST_TRY);
        request.call.deadline = request.call.deadline.min(Instant::now() + bound);
    }
    true
}

/// The shortest life on the path; `None` when nothing expires.
fn left(connection: &Connection, now: SystemTime) -> Option<Duration> {
    let segments = &connection.path.as_ref()?.path_segments;
    let ends = segments.iter().filter_map(|segment| SystemTime::try_from(segment.expires?).ok()).min()?;
    Some(ends.duration_since(now).unwrap_or_default())
}

/// Time until the refresh, without chance; `None` when nothing expires.
fn pause(connection: &Connection, now: SystemTime) -> Option<Duration> {
    let path = connection.path.as_ref()?;
    let left = left(connection, now)?;
    let segments = f64::from(u32::try_from(path.path_segments.len()).unwrap_or(u32::MAX));
    let place = (f64::from(path.index) / segments).min(1.0);
    Some(left.mul_f64(0.2 + 0.2 * place))
}

/// A number from 0 to 1.
fn chance() -> f64 {
    f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX)
}

#[async_trait]
impl Element for Refresh {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let events = request.call.noted::<Events>();
        let connection = next.request(request).await?;
        if let Some(events) = events {
            self.schedule(events, &connection);
        }
        Ok(connection)
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.tasks.remove(&close.connection.id);
        next.close(close).await
    }
}
