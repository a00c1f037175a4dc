//! The span of an event, and its one log line.

use nsm_proto::connection::Connection;
use tokio::time::Instant;
use tracing::{Span, debug, field::Empty, info, info_span, warn};

use crate::Error;

/// An event that is not over yet. Dropped without an end, it says so.
pub(super) struct Outcome {
    span: Span,
    since: Instant,
    quiet: bool,
    told: bool,
}

impl Outcome {
    pub(super) fn request(connection: &Connection, quiet: bool) -> Self {
        let span = info_span!(
            "request",
            connection = %connection.id,
            service = %connection.network_service,
            mechanism = Empty,
            endpoint = Empty
        );
        Self { span, since: Instant::now(), quiet, told: false }
    }

    pub(super) fn close(connection: &Connection, quiet: bool) -> Self {
        let span = info_span!(
            "close",
            connection = %connection.id,
            service = %connection.network_service,
            mechanism = Empty,
            endpoint = Empty
        );
        Self { span, since: Instant::now(), quiet, told: false }
    }

    pub(super) fn span(&self) -> Span {
        self.span.clone()
    }

    pub(super) fn end<T: Told>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.told = true;
        let _in = self.span.enter();
        let duration_ms = self.duration_ms();
        match &result {
            Ok(value) => {
                value.record(&self.span);
                if self.quiet {
                    debug!(duration_ms, "done");
                } else {
                    info!(duration_ms, "done");
                }
            }
            Err(error) if self.quiet => debug!(duration_ms, %error, "failed"),
            Err(error) => warn!(duration_ms, %error, "failed"),
        }
        result
    }

    fn duration_ms(&self) -> u64 {
        u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if !self.told {
            let _in = self.span.enter();
            let duration_ms = self.duration_ms();
            if self.quiet {
                debug!(duration_ms, "cancelled");
            } else {
                warn!(duration_ms, "cancelled");
            }
        }
    }
}

/// What an event's end adds to its span.
pub(super) trait Told {
    fn record(&self, span: &Span);
}

impl Told for () {
    fn record(&self, _: &Span) {}
}

impl Told for Connection {
    fn record(&self, span: &Span) {
        span.record("endpoint", &*self.network_service_endpoint_name);
        if let Some(mechanism) = &self.mechanism {
            span.record("mechanism", &*mechanism.r#type);
        }
    }
}
