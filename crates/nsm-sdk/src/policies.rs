//! Policy routes: routes for the part of the client's traffic that selectors fit.
//!
//! Guarantees: a policy is in the context once, on every refresh; one that the kernel could not apply (ports without a
//! protocol that has them, routes of several families) is refused when it is made.
//! Assumes: the forwarder gives each policy a table of its own.
//!
//! ```
//! use nsm_sdk::policies::{Policies, Policy, Ports, TCP};
//! let web = Policy { protocol: Some(TCP), destination_ports: Ports::new(80, 80), ..Policy::default() };
//! let element = Policies::new([web]).unwrap();
//! ```

use std::fmt;

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nsm_proto::{connection::Connection, connectioncontext::PolicyRoute};

use crate::{Element, Error, Next, Request, routes::Destination};

/// IANA protocol number.
pub const TCP: u8 = 6;
/// IANA protocol number.
pub const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// `None` when there is no such range: zero is no port.
    pub fn new(first: u16, last: u16) -> Option<Self> {
        (first > 0 && first <= last).then_some(Self { first, last })
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { first, last } if first == last => write!(f, "{first}"),
            Self { first, last } => write!(f, "{first}-{last}"),
        }
    }
}

/// Traffic that fits all selectors given goes by these routes; without routes, by a default route to the other end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Source addresses.
    pub from: Option<IpNetwork>,
    /// IANA protocol number.
    pub protocol: Option<u8>,
    /// Source ports; needs a protocol with ports.
    pub source_ports: Option<Ports>,
    /// Destination ports; needs a protocol with ports.
    pub destination_ports: Option<Ports>,
    /// The routes.
    pub routes: Vec<Destination>,
}

/// Why a policy makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPolicy {
    /// It would fit all traffic.
    #[error("policy {0} selects nothing: expected a source, a protocol or ports")]
    NoSelector(usize),
    /// Ports without TCP, UDP, DCCP or SCTP.
    #[error("policy {0} has ports and protocol {1:?}: expected TCP (6), UDP (17), DCCP (33) or SCTP (132)")]
    Ports(usize, Option<u8>),
    /// A route of another family than the source.
    #[error("policy {0} is from {1} and has a route to {2}: expected one family")]
    Family(usize, IpNetwork, String),
}

/// The element, on the endpoint's side.
#[derive(Debug, Clone)]
pub struct Policies(Vec<PolicyRoute>);

impl Policies {
    /// Adds these policies to each connection.
    ///
    /// # Errors
    /// [`InvalidPolicy`] with the place of the first that makes no sense.
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Result<Self, InvalidPolicy> {
        Ok(Self(policies.into_iter().enumerate().map(|(at, policy)| message(at, &policy)).collect::<Result<_, _>>()?))
    }
}

#[async_trait]
impl Element for Policies {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        for policy in &self.0 {
            if !context.policies.contains(policy) {
                context.policies.push(policy.clone());
            }
        }
        next.request(request).await
    }
}

fn message(at: usize, policy: &Policy) -> Result<PolicyRoute, InvalidPolicy> {
    let Policy { from, protocol, source_ports, destination_ports, routes } = policy;
    let ports = source_ports.is_some() || destination_ports.is_some();
    if from.is_none() && protocol.is_none() && !ports {
        return Err(InvalidPolicy::NoSelector(at));
    }
    if ports && !protocol.is_some_and(|protocol| matches!(protocol, TCP | UDP | DCCP | SCTP)) {
        return Err(InvalidPolicy::Ports(at, *protocol));
    }
    let routes: Vec<_> = routes.iter().map(Destination::to_route).collect();
    if let Some(from) = from
        && let Some(other) = routes.iter().find(|route| route.prefix.contains(':') != from.is_ipv6())
    {
        return Err(InvalidPolicy::Family(at, *from, other.prefix.clone()));
    }
    let text = |ports: &Option<Ports>| ports.map(|ports| ports.to_string()).unwrap_or_default();
    Ok(PolicyRoute {
        from: from.map(|from| format!("{}/{}", from.network(), from.prefix())).unwrap_or_default(),
        proto: protocol.map(|protocol| protocol.to_string()).unwrap_or_default(),
        dst_port: text(destination_ports),
        src_port: text(source_ports),
        routes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, chain};

    #[tokio::test]
    async fn each_is_there_once() {
        let policy = Policy {
            from: "172.16.2.201/24".parse().ok(),
            protocol: Some(TCP),
            destination_ports: Ports::new(6666, 6670),
            routes: vec![Destination::new("172.16.3.0/24".parse().unwrap(), None).unwrap()],
            ..Policy::default()
        };
        let element = Policies::new([policy]).unwrap();
        let request = Request { connection: Connection::default(), preferences: Vec::new(), call: Call::default() };
        let context = chain![element.clone(), element].request(request).await.unwrap().context.unwrap();
        let policies = context.ip_context.unwrap().policies;
        assert_eq!(policies.len(), 1);
        assert_eq!((policies[0].from.as_str(), policies[0].proto.as_str()), ("172.16.2.0/24", "6"));
        assert_eq!((policies[0].dst_port.as_str(), policies[0].src_port.as_str()), ("6666-6670", ""));
    }

    #[test]
    fn what_the_kernel_cannot_apply_is_refused() {
        assert_eq!(Policies::new([Policy::default()]).unwrap_err(), InvalidPolicy::NoSelector(0));
        let ports = Policy { protocol: Some(1), source_ports: Ports::new(1, 2), ..Policy::default() };
        assert_eq!(Policies::new([ports]).unwrap_err(), InvalidPolicy::Ports(0, Some(1)));
        let route = Destination::new("fd00::/8".parse().unwrap(), None).unwrap();
        let mixed = Policy { from: "10.0.0.0/8".parse().ok(), routes: vec![route], ..Policy::default() };
        assert!(matches!(Policies::new([mixed]).unwrap_err(), InvalidPolicy::Family(0, ..)));
        assert_eq!((Ports::new(0, 5), Ports::new(6, 5)), (None, None));
    }
}
