//! The element that counts and times what the chain behind it serves, whoever asks.
//!
//! Guarantee: each Request and Close is counted once; one whose caller hangs up, as an error.

use std::time::Instant;

use async_trait::async_trait;
use nsm_proto::connection::Connection;
use nsm_sdk::{Close, Element, Error, Next, Request};

use crate::metrics::{Metrics, ServiceCall};

/// The element.
pub(super) struct Measured(pub(super) Metrics);

/// A call on its way.
struct Running<'a> {
    metrics: &'a Metrics,
    call: ServiceCall,
    started: Instant,
    ok: bool,
}

impl Measured {
    async fn count<T>(
        &self,
        call: ServiceCall,
        served: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let mut running = Running { metrics: &self.0, call, started: Instant::now(), ok: false };
        let outcome = served.await;
        running.ok = outcome.is_ok();
        outcome
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.metrics.call(self.call, self.ok, self.started.elapsed());
    }
}

#[async_trait]
impl Element for Measured {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        self.count(ServiceCall::Request, next.request(request)).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.count(ServiceCall::Close, next.close(close)).await
    }
}
