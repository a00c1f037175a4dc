//! Does nothing: the template of an element.
//!
//! Guarantees: Requests, Closes and answers pass unchanged. Assumptions: none.

use async_trait::async_trait;
use nsm_proto::connection::Connection;

use crate::{Close, Element, Error, Next, Request};

/// The element.
#[derive(Debug, Clone, Copy, Default)]
pub struct Null;

#[async_trait]
impl Element for Null {
    // Here on the way to the endpoint: change the request, or refuse it. After `next`: look at what was answered.
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        next.request(request).await
    }

    // Whatever `next` answers, free what this element holds; leave the method out if it holds nothing.
    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        next.close(close).await
    }
}
