//! Tokens: who each hop of a path is, and until when it wants the connection.
//!
//! Guarantees:
//! - [`Token::server`]: the caller's token stands in the segment before ours, our own in ours. A caller that sends none still
//!   expires: after [`DEFAULT_LIFETIME`].
//! - [`Token::client`]: our own token stands in our segment, and in a note [`OwnToken`] for the element that calls the next hop.
//! - Where tokens come from is a [`TokenSource`]'s matter.
//!
//! Assumptions: [`Path`](crate::path::Path) comes earlier, and the transport notes the caller's headers as [`CallerToken`]. Tokens
//! are carried, not verified: on a node the kernel says who asks.

#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use nsm_proto::connection::{Connection, PathSegment};
use serde::Serialize;

use crate::{
    Call, Close, Element, Error, Next, Request,
    begin::Origin,
    path::{own_mut, previous_mut},
    token_headers::{CallerToken, OwnToken},
};

/// How long a token lives unless something else is said; also the longest that NSM allows by default.
pub const DEFAULT_LIFETIME: Duration = Duration::from_mins(10);

/// Longest token that is kept, in bytes: it goes into every message of the connection.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Makes this process's tokens.
#[async_trait]
pub trait TokenSource: Send + Sync + 'static {
    /// A token for the peer `audience`, where it is known.
    async fn token(&self, audience: Option<&str>) -> Result<OwnToken, Error>;
}

/// JSON Web Tokens that nobody signs (RFC 7519 section 6): for unix sockets, where peers are known without.
#[derive(Debug, Clone)]
pub struct Unsigned {
    subject: String,
    lifetime: Duration,
}

impl Unsigned {
    /// Tokens of `subject` that live [`DEFAULT_LIFETIME`].
    pub fn new(subject: impl Into<String>) -> Self {
        Self { subject: subject.into(), lifetime: DEFAULT_LIFETIME }
    }

    /// Tokens that live this long.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<[&'a str; 1]>,
    exp: u64,
}

#[async_trait]
impl TokenSource for Unsigned {
    async fn token(&self, audience: Option<&str>) -> Result<OwnToken, Error> {
        let expires = SystemTime::now() + self.lifetime;
        let exp = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let claims = Claims { sub: &self.subject, aud: audience.map(|audience| [audience]), exp };
        let claims = serde_json::to_vec(&claims).map_err(|error| Error::new(crate::Kind::Internal, error))?;
        let encode = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let token = format!("{}.{}.", encode(br#"{"alg":"none","typ":"JWT"}"#), encode(&claims));
        Ok(OwnToken { token, expires })
    }
}

/// The element, of a server or of a client.
pub struct Token {
    source: Arc<dyn TokenSource>,
    side: Side,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Server,
    Client,
}

impl Token {
    /// For a chain that serves Requests of others.
    pub fn server(source: Arc<dyn TokenSource>) -> Self {
        Self { source, side: Side::Server }
    }

    /// For a chain that ends at a next hop. A server that calls another one has both.
    pub fn client(source: Arc<dyn TokenSource>) -> Self {
        Self { source, side: Side::Client }
    }

    async fn write(&self, call: &Call, connection: &mut Connection) -> Result<(), Error> {
        if self.side == Side::Server
            && let Some(caller) = previous_mut(connection)
        {
            write_caller(call, caller);
        }
        let token = self.source.token(None).await?;
        if let Some(own) = own_mut(connection) {
            own.token.clone_from(&token.token);
            own.expires = Some(token.expires.into());
        }
        if self.side == Side::Client {
            call.note(token);
        }
        Ok(())
    }
}

fn write_caller(call: &Call, segment: &mut PathSegment) {
    match call.noted::<CallerToken>() {
        Some(caller) if caller.token.len() <= MAX_TOKEN_BYTES => {
            segment.token = caller.token;
            segment.expires = Some(caller.expires.into());
        }
        // An event of our own, such as a heal, has no caller: what the caller last said holds.
        _ if call.noted::<Origin>() == Some(Origin::Event) && segment.expires.is_some() => {}
        _ => segment.expires = Some((SystemTime::now() + DEFAULT_LIFETIME).into()),
    }
}

#[async_trait]
impl Element for Token {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        self.write(&request.call, &mut request.connection).await?;
        next.request(request).await
    }

    async fn close(&self, mut close: Close, next: Next) -> Result<(), Error> {
        // A Close goes on without a token rather than not at all.
        if let Err(error) = self.write(&close.call, &mut close.connection).await {
            tracing::debug!(%error, "closing without a token of our own");
        }
        next.close(close).await
    }
}
