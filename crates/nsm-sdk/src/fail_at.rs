//! A fault on purpose, for tests of what other elements undo.
//!
//! Guarantees: of the events that reach it, counted from 1, Requests and Closes together, exactly the chosen one fails, before
//! or after the rest of the chain has run; all others pass unchanged. Assumptions: none.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use nsm_proto::connection::Connection;

use crate::{Close, Element, Error, Kind, Next, Request};

/// How the chosen event fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// An error instead of the rest of the chain.
    Before,
    /// An error although the rest of the chain was successful.
    After,
    /// A panic.
    Panic,
    /// No answer, ever.
    Hang,
}

/// The element. Clones count together.
#[derive(Debug, Clone)]
pub struct FailAt {
    at: usize,
    fault: Fault,
    seen: Arc<AtomicUsize>,
}

/// What the chosen event fails with.
#[derive(Debug, thiserror::Error)]
#[error("event {0} fails on purpose")]
pub struct OnPurpose(pub usize);

/// Event number `n` fails before it goes on.
pub fn fail_at(n: usize) -> FailAt {
    FailAt { at: n, fault: Fault::Before, seen: Arc::default() }
}

impl FailAt {
    /// Fails in this way instead.
    #[must_use]
    pub fn with(mut self, fault: Fault) -> Self {
        self.fault = fault;
        self
    }

    /// Events that came so far.
    pub fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }

    async fn pass<T>(&self, rest: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        if self.seen.fetch_add(1, Ordering::SeqCst) + 1 != self.at {
            return rest.await;
        }
        let error = Error::new(Kind::Internal, OnPurpose(self.at));
        match self.fault {
            Fault::Before => Err(error),
            Fault::After => rest.await.and(Err(error)),
            Fault::Panic => panic!("{error}"),
            Fault::Hang => std::future::pending().await,
        }
    }
}

#[async_trait]
impl Element for FailAt {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        self.pass(next.request(request)).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.pass(next.close(close)).await
    }
}
