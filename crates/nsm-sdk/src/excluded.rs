//! Prefixes that no address may come from: what is in use at the client's end.
//!
//! Guarantees: each is in the request's `excluded_prefixes` once, on every refresh; what others excluded stays.
//! Assumes: nothing.
//!
//! ```
//! use nsm_sdk::excluded::ExcludedPrefixes;
//! let element = ExcludedPrefixes::new(["10.244.0.0/16".parse().unwrap()]);
//! ```

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nsm_proto::connection::Connection;

use crate::{Element, Error, Next, Request};

/// The element, on the client's side.
#[derive(Debug, Clone, Default)]
pub struct ExcludedPrefixes(Vec<String>);

impl ExcludedPrefixes {
    /// Excludes these; bits behind a prefix's length are cleared.
    pub fn new(prefixes: impl IntoIterator<Item = IpNetwork>) -> Self {
        let text = |prefix: IpNetwork| format!("{}/{}", prefix.network(), prefix.prefix());
        Self(prefixes.into_iter().map(text).collect())
    }
}

#[async_trait]
impl Element for ExcludedPrefixes {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        for prefix in &self.0 {
            if !context.excluded_prefixes.contains(prefix) {
                context.excluded_prefixes.push(prefix.clone());
            }
        }
        next.request(request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, chain};

    #[tokio::test]
    async fn each_is_there_once() {
        let pod = ExcludedPrefixes::new(["10.244.1.7/16".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        let chain = chain![pod.clone(), pod];
        let request = Request { connection: Connection::default(), preferences: Vec::new(), call: Call::default() };
        let context = chain.request(request).await.unwrap().context.unwrap().ip_context.unwrap();
        assert_eq!(context.excluded_prefixes, ["10.244.0.0/16", "fd00::/8"]);
    }
}
