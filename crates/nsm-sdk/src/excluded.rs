//! Prefixes that no address may come from: what is in use at the client's end.
//!
//! Guarantees: each is in the request's `excluded_prefixes` once, on every refresh; what others excluded stays.
//! Assumes: nothing.
//!
//! ```
//! use nsm_sdk::excluded::ExcludedPrefixes;
//! let element = ExcludedPrefixes::new(["10.244.0.0/16".parse().unwrap()]);
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nsm_proto::{connection::Connection, connectioncontext::IpContext};

use crate::{Close, Element, Error, Next, Request};

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

/// Prefixes that a client's other connections have: no endpoint should give them again. For one client in one namespace.
///
/// Guarantees: excluded are the addresses of both ends and the routes to single addresses, of connections as they are now; the
/// connection itself and those it is aware of do not count. What comes back excludes what was excluded without this element.
///
/// ```
/// use nsm_sdk::{client::Client, excluded::InUse};
/// // The endpoints of these two may give the same addresses: their policies tell the traffic apart.
/// let client = Client::connect_to("/run/nsm.sock").element(InUse::new().aware(["nsc-0", "nsc-1"]));
/// ```
#[derive(Debug, Default)]
pub struct InUse {
    /// Ids of connections.
    groups: Vec<BTreeSet<String>>,
    /// What each connection has, by id.
    had: Mutex<BTreeMap<String, Vec<String>>>,
}

impl InUse {
    /// Every connection excludes what the others have.
    pub fn new() -> Self {
        Self::default()
    }

    /// The connections of these ids are aware of each other and exclude nothing of each other's. Groups do not overlap.
    #[must_use]
    pub fn aware(mut self, ids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups.push(ids.into_iter().map(Into::into).collect());
        self
    }

    fn had(&self) -> MutexGuard<'_, BTreeMap<String, Vec<String>>> {
        self.had.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the others have of which the connection is not aware.
    fn of_others(&self, id: &str) -> Vec<String> {
        let aware = self.groups.iter().find(|group| group.contains(id));
        let is_aware = |other: &String| other == id || aware.is_some_and(|group| group.contains(other));
        let had = self.had();
        had.iter().filter(|(other, _)| !is_aware(other)).flat_map(|(_, prefixes)| prefixes.clone()).collect()
    }
}

#[async_trait]
impl Element for InUse {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let id = request.connection.id.clone();
        let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        let before = context.excluded_prefixes.clone();
        for prefix in self.of_others(&id) {
            if !context.excluded_prefixes.contains(&prefix) {
                context.excluded_prefixes.push(prefix);
            }
        }
        let mut connection = next.request(request).await?;
        if let Some(context) = connection.context.as_mut().and_then(|context| context.ip_context.as_mut()) {
            context.excluded_prefixes = before;
            self.had().insert(id, had(context));
        }
        Ok(connection)
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        let id = close.connection.id.clone();
        let closed = next.close(close).await;
        self.had().remove(&id);
        closed
    }
}

/// The single addresses that a connection has.
fn had(context: &IpContext) -> Vec<String> {
    let ends = context.src_ip_addrs.iter().chain(&context.dst_ip_addrs).filter_map(|text| text.parse().ok());
    let routes = context.src_routes.iter().chain(&context.dst_routes).filter_map(|route| route.prefix.parse().ok());
    let single = routes.filter(|prefix: &IpNetwork| IpNetwork::from(prefix.ip()) == *prefix);
    ends.chain(single).map(|network: IpNetwork| IpNetwork::from(network.ip()).to_string()).collect()
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

    /// An endpoint that gives each client the first address that is not excluded.
    struct Gives;

    #[async_trait]
    impl Element for Gives {
        async fn request(&self, mut request: Request, _: Next) -> Result<Connection, Error> {
            let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
            if context.src_ip_addrs.is_empty() {
                let free = (1..9).map(|n| format!("10.0.0.{n}/32")).find(|ip| !context.excluded_prefixes.contains(ip));
                context.src_ip_addrs.extend(free);
            }
            Ok(request.connection)
        }

        async fn close(&self, _: Close, _: Next) -> Result<(), Error> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn connections_exclude_each_other_unless_they_are_aware() {
        let chain = chain![InUse::new().aware(["a", "b"]), Gives];
        let request = |mut connection: Connection, id: &str| {
            connection.id = id.into();
            chain.request(Request { connection, preferences: Vec::new(), call: Call::default() })
        };
        let address = |connection: &Connection| {
            let context = connection.context.clone().unwrap().ip_context.unwrap();
            assert!(context.excluded_prefixes.is_empty(), "{context:?}");
            context.src_ip_addrs
        };
        let a = request(Connection::default(), "a").await.unwrap();
        let b = request(Connection::default(), "b").await.unwrap();
        let c = request(Connection::default(), "c").await.unwrap();
        assert_eq!([&a, &b, &c].map(address), [["10.0.0.1/32"], ["10.0.0.1/32"], ["10.0.0.2/32"]]);
        // A refresh keeps what it has; what is closed is free again.
        assert_eq!(address(&request(c.clone(), "c").await.unwrap()), ["10.0.0.2/32"]);
        chain.close(Close { connection: c, call: Call::default() }).await.unwrap();
        let d = request(Connection::default(), "d").await.unwrap();
        assert_eq!(address(&d), ["10.0.0.2/32"]);
    }
}
