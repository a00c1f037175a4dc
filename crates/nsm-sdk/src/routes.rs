//! Routes that an endpoint gives its clients, or asks for itself.
//!
//! Guarantees: a route is in the context once, on every refresh; what others put there stays; a next hop of the other family
//! is refused when the element is made.
//! Assumes: nothing; without a next hop a route leads to the other end's first address of its family.
//!
//! ```
//! use nsm_sdk::routes::{Destination, Routes};
//! let default = Destination::new("0.0.0.0/0".parse().unwrap(), None).unwrap();
//! let element = Routes::new().for_client([default]);
//! ```

use std::net::IpAddr;

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nsm_proto::{connection::Connection, connectioncontext::Route};

use crate::{Element, Error, Next, Request};

/// Where a route leads, and through whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination(Route);

/// A next hop of another family than the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("route to {prefix} has the next hop {next_hop}: expected an address of the same family")]
pub struct OtherFamily {
    /// Where the route leads.
    pub prefix: IpNetwork,
    /// Through whom.
    pub next_hop: IpAddr,
}

impl Destination {
    /// A route to `prefix`; bits behind its length are cleared.
    ///
    /// # Errors
    /// When the next hop is of the other family.
    pub fn new(prefix: IpNetwork, next_hop: Option<IpAddr>) -> Result<Self, OtherFamily> {
        match next_hop {
            Some(next_hop) if next_hop.is_ipv4() != prefix.is_ipv4() => Err(OtherFamily { prefix, next_hop }),
            _ => {
                let next_hop = next_hop.map(|address| address.to_string()).unwrap_or_default();
                Ok(Self(Route { prefix: format!("{}/{}", prefix.network(), prefix.prefix()), next_hop }))
            }
        }
    }

    /// As the API says it.
    pub fn to_route(&self) -> Route {
        self.0.clone()
    }
}

/// The element.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    client: Vec<Route>,
    endpoint: Vec<Route>,
}

impl Routes {
    /// No routes yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes of the client's end (`src_routes`).
    #[must_use]
    pub fn for_client(mut self, routes: impl IntoIterator<Item = Destination>) -> Self {
        self.client.extend(routes.into_iter().map(|route| route.0));
        self
    }

    /// Routes of the endpoint's end (`dst_routes`).
    #[must_use]
    pub fn for_endpoint(mut self, routes: impl IntoIterator<Item = Destination>) -> Self {
        self.endpoint.extend(routes.into_iter().map(|route| route.0));
        self
    }
}

#[async_trait]
impl Element for Routes {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        for (list, routes) in [(&mut context.src_routes, &self.client), (&mut context.dst_routes, &self.endpoint)] {
            for route in routes {
                // One prefix has one next hop: the element's, when its author has changed it since the last request.
                match list.iter_mut().find(|known| known.prefix == route.prefix) {
                    Some(known) => known.next_hop.clone_from(&route.next_hop),
                    None => list.push(route.clone()),
                }
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
    async fn each_is_there_once_with_its_latest_next_hop() {
        let route = |prefix: &str, hop: &str| Destination::new(prefix.parse().unwrap(), hop.parse().ok()).unwrap();
        let old = Routes::new().for_client([route("10.1.2.3/8", ""), route("fd00::/8", "fe80::1")]);
        let new = Routes::new().for_client([route("10.0.0.0/8", "10.9.9.9")]).for_endpoint([route("0.0.0.0/0", "")]);
        let request = Request { connection: Connection::default(), preferences: Vec::new(), call: Call::default() };
        let context =
            chain![old.clone(), old, new].request(request).await.unwrap().context.unwrap().ip_context.unwrap();
        let texts = |list: &[Route]| list.iter().map(|r| format!("{} {}", r.prefix, r.next_hop)).collect::<Vec<_>>();
        assert_eq!(texts(&context.src_routes), ["10.0.0.0/8 10.9.9.9", "fd00::/8 fe80::1"]);
        assert_eq!(texts(&context.dst_routes), ["0.0.0.0/0 "]);
    }

    #[test]
    fn families_do_not_mix() {
        assert!(Destination::new("10.0.0.0/8".parse().unwrap(), "fd00::1".parse().ok()).is_err());
    }
}
