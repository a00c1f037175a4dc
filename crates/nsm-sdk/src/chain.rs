//! The chain: elements in order, each deciding what happens before, after and instead of the rest.
//!
//! Guarantees: an element sees a Request after those before it and its answer before them. [`Next`] can be called more than
//! once (a second try) or not at all. Client and server sides are the same trait: a client's chain ends in a call to the next
//! hop, an endpoint's in an answer.
//!
//! Undo is a guard: what an element takes goes back in `Drop` unless it says `keep` after `next` answered.

use std::sync::Arc;

use async_trait::async_trait;
use nsm_proto::connection::{Connection, Mechanism};

use crate::{Call, Error};

/// A Request on its way down the chain.
#[derive(Debug, Clone)]
pub struct Request {
    /// The connection as it is known so far.
    pub connection: Connection,
    /// Mechanisms that would do, best first.
    pub preferences: Vec<Mechanism>,
    /// Deadline, caller, files.
    pub call: Call,
}

/// A Close on its way down the chain.
#[derive(Debug, Clone)]
pub struct Close {
    /// The connection to end, as it was last known.
    pub connection: Connection,
    /// Deadline, caller, files.
    pub call: Call,
}

/// One link of a chain. The defaults pass everything on; `null` is the template to copy.
#[async_trait]
pub trait Element: Send + Sync + 'static {
    /// Makes, refreshes or moves a connection.
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        next.request(request).await
    }

    /// Ends a connection. Runs to its end whatever is missing, and a second time is harmless.
    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        next.close(close).await
    }
}

/// Elements in order.
#[derive(Clone)]
pub struct Chain(Arc<[Arc<dyn Element>]>);

impl Chain {
    /// A chain of these elements; the first one is asked first.
    pub fn new(elements: impl IntoIterator<Item = Arc<dyn Element>>) -> Self {
        Self(elements.into_iter().collect())
    }

    /// Runs a Request through the chain.
    pub async fn request(&self, request: Request) -> Result<Connection, Error> {
        self.start().request(request).await
    }

    /// Runs a Close through the chain.
    pub async fn close(&self, close: Close) -> Result<(), Error> {
        self.start().close(close).await
    }

    fn start(&self) -> Next {
        Next { chain: self.0.clone(), at: 0 }
    }
}

/// A chain is an element too: it runs, and then what follows it.
#[async_trait]
impl Element for Chain {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let joined = self.followed_by(next);
        joined.start().request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        let joined = self.followed_by(next);
        joined.start().close(close).await
    }
}

impl Chain {
    fn followed_by(&self, next: Next) -> Self {
        Self::new(self.0.iter().cloned().chain([Arc::new(Rest(next)) as Arc<dyn Element>]))
    }
}

/// What follows a chain that is an element of another.
struct Rest(Next);

#[async_trait]
impl Element for Rest {
    async fn request(&self, request: Request, _: Next) -> Result<Connection, Error> {
        self.0.clone().request(request).await
    }

    async fn close(&self, close: Close, _: Next) -> Result<(), Error> {
        self.0.clone().close(close).await
    }
}

/// The rest of the chain. Behind the last element a Request answers with its connection and a Close is done.
#[derive(Clone)]
pub struct Next {
    chain: Arc<[Arc<dyn Element>]>,
    at: usize,
}

impl Next {
    /// Asks the rest of the chain.
    pub async fn request(&self, request: Request) -> Result<Connection, Error> {
        match self.chain.get(self.at) {
            Some(element) => element.request(request, self.after()).await,
            None => Ok(request.connection),
        }
    }

    /// Asks the rest of the chain.
    pub async fn close(&self, close: Close) -> Result<(), Error> {
        match self.chain.get(self.at) {
            Some(element) => element.close(close, self.after()).await,
            None => Ok(()),
        }
    }

    fn after(&self) -> Self {
        Self { chain: self.chain.clone(), at: self.at + 1 }
    }
}

/// The elements of a chain, one a line.
///
/// ```
/// use nsm_sdk::{Element, chain};
/// struct Null;
/// impl Element for Null {}
/// let chain = chain![Null, Null];
/// ```
#[macro_export]
macro_rules! chain {
    ($($element:expr),* $(,)?) => {
        $crate::Chain::new([$(::std::sync::Arc::new($element) as ::std::sync::Arc<dyn $crate::Element>),*])
    };
}
