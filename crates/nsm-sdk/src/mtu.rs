//! The largest packet that crosses a connection.
//!
//! Guarantees: the context's MTU is never raised, since each hop knows its own part of the way only.
//! Assumes: zero means that nobody has said anything yet.
//!
//! ```
//! use nsm_sdk::mtu::Mtu;
//! let element = Mtu::new(1400).unwrap();
//! ```

use async_trait::async_trait;
use nsm_proto::connection::Connection;

use crate::{Element, Error, Next, Request};

/// The element: at most this many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mtu(u32);

/// Nothing that an IP packet can be limited to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("MTU {0}: expected 68 (RFC 791) to 65535 bytes, and 1280 or more for IPv6")]
pub struct InvalidMtu(pub u32);

impl Mtu {
    /// Packets of at most this many bytes.
    ///
    /// # Errors
    /// Below 68 or above 65535.
    pub fn new(bytes: u32) -> Result<Self, InvalidMtu> {
        if (68..=65535).contains(&bytes) { Ok(Self(bytes)) } else { Err(InvalidMtu(bytes)) }
    }
}

#[async_trait]
impl Element for Mtu {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let context = request.connection.context.get_or_insert_default();
        context.mtu = if context.mtu == 0 { self.0 } else { context.mtu.min(self.0) };
        next.request(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, chain};

    #[tokio::test]
    async fn the_smallest_holds() {
        let [large, small] = [9000, 1400].map(|bytes| Mtu::new(bytes).unwrap());
        let request = Request { connection: Connection::default(), preferences: Vec::new(), call: Call::default() };
        let connection = chain![large, small, large].request(request).await.unwrap();
        assert_eq!(connection.context.unwrap().mtu, 1400);
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!((Mtu::new(67), Mtu::new(65536)), (Err(InvalidMtu(67)), Err(InvalidMtu(65536))));
    }
}
