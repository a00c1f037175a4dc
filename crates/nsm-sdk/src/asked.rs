//! What a client asks for, apart from what it gets.
//!
//! Guarantee: behind [`WordsOfClient`] the context says of addresses, policies and neighbours, and of the routes in the endpoint's
//! own network namespace, only what elements of this chain have put there. What the client named is a wish, in the note
//! [`Asked`], which an element may fulfil ([`PointToPoint`](crate::ipam::PointToPoint) does where the address is free): so an
//! endpoint that restarted gives its clients their addresses back, and none gets a route to what it is not to have.
//!
//! Routes at the client's own end stay, but for those to addresses that it named.
//!
//! Assumes: it stands behind [`Begin`](crate::begin::Begin) and before all elements that give something. An
//! [`Endpoint`](crate::endpoint::Endpoint) has it there.

use async_trait::async_trait;
use nsm_proto::connection::Connection;

use crate::{Element, Error, Next, Request};

/// Addresses that the client named, as it wrote them: a note.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// For its own end.
    pub client: Vec<String>,
    /// For the endpoint's.
    pub endpoint: Vec<String>,
}

/// The element, on the endpoint's side.
#[derive(Debug, Clone, Copy, Default)]
pub struct WordsOfClient;

#[async_trait]
impl Element for WordsOfClient {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        if let Some(ip) = request.connection.context.as_mut().and_then(|context| context.ip_context.as_mut()) {
            let asked =
                Asked { client: std::mem::take(&mut ip.src_ip_addrs), endpoint: std::mem::take(&mut ip.dst_ip_addrs) };
            ip.src_routes.retain(|route| !route.next_hop.is_empty() || !asked.endpoint.contains(&route.prefix));
            ip.dst_routes.clear();
            ip.policies.clear();
            ip.ip_neighbors.clear();
            ip.extra_prefixes.clear();
            request.call.note(asked);
        }
        next.request(request).await
    }
}

#[cfg(test)]
mod tests {
    use nsm_proto::connectioncontext::{ConnectionContext, IpContext, IpNeighbor, PolicyRoute, Route};

    use super::*;
    use crate::{Call, Chain, chain, ipam::PointToPoint, routes::Destination, routes::Routes};

    fn endpoint() -> Chain {
        let to = |prefix: &str| [Destination::new(prefix.parse().unwrap(), None).unwrap()];
        let routes = Routes::new().for_client(to("192.168.0.0/16")).for_endpoint(to("192.168.7.0/24"));
        chain![WordsOfClient, PointToPoint::new("10.0.0.0/24,fd00::/64".parse().unwrap()), routes]
    }

    async fn ask(chain: &Chain, id: &str, ip: IpContext) -> IpContext {
        let context = ConnectionContext { ip_context: Some(ip), ..ConnectionContext::default() };
        let connection = Connection { id: id.into(), context: Some(context), ..Connection::default() };
        let request = Request { connection, preferences: Vec::new(), call: Call::default() };
        chain.request(request).await.unwrap().context.unwrap().ip_context.unwrap()
    }

    fn route(prefix: &str) -> Route {
        Route { prefix: prefix.into(), next_hop: String::new() }
    }

    #[tokio::test]
    async fn a_client_says_nothing_for_the_endpoints_namespace() {
        let chain = endpoint();
        let victim = ask(&chain, "victim", IpContext::default()).await;
        let words = IpContext {
            src_ip_addrs: vec![victim.src_ip_addrs[0].clone(), "8.8.8.8/32".into(), "0.0.0.1/1".into()],
            dst_ip_addrs: vec!["10.9.9.9/16".into()],
            dst_routes: vec![route("0.0.0.0/0"), route(&victim.src_ip_addrs[0])],
            policies: vec![PolicyRoute::default()],
            ip_neighbors: vec![IpNeighbor { ip: "10.0.0.0".into(), hardware_address: "02:00:00:00:00:01".into() }],
            extra_prefixes: vec!["10.0.0.0/8".into()],
            ..IpContext::default()
        };
        let given = ask(&chain, "hostile", words).await;
        assert_eq!(given.src_ip_addrs, ["10.0.0.3/32", "fd00::3/128"]);
        assert_eq!(given.dst_ip_addrs, ["10.0.0.2/32", "fd00::2/128"]);
        let prefixes = |routes: &[Route]| routes.iter().map(|route| route.prefix.clone()).collect::<Vec<_>>();
        assert_eq!(prefixes(&given.dst_routes), ["10.0.0.3/32", "fd00::3/128", "192.168.7.0/24"]);
        assert_eq!(prefixes(&given.src_routes), ["10.0.0.2/32", "fd00::2/128", "192.168.0.0/16"]);
        assert_eq!((given.policies, given.ip_neighbors, given.extra_prefixes), Default::default());
    }

    #[tokio::test]
    async fn a_refresh_changes_nothing_and_a_restarted_endpoint_gives_the_same() {
        let chain = endpoint();
        ask(&chain, "first", IpContext::default()).await;
        let given = ask(&chain, "id", IpContext::default()).await;
        assert_eq!(ask(&chain, "id", given.clone()).await, given);
        assert_eq!(ask(&endpoint(), "id", given.clone()).await, given);
    }
}
