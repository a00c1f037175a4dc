//! Name servers and search domains for the client's resolver.
//!
//! Guarantees: the same configuration is in the context once, on every refresh; a domain that is none is refused when the
//! element is made.
//! Assumes: who starts the client's processes writes its resolv.conf, from the answer.
//!
//! ```
//! use nsm_sdk::dns::Dns;
//! let element = Dns::new(["10.0.0.53".parse().unwrap()], ["corp.example"]).unwrap();
//! ```

use std::net::IpAddr;

use async_trait::async_trait;
use nsm_proto::{connection::Connection, connectioncontext::DnsConfig};

use crate::{Element, Error, Next, Request};

/// The element, on the endpoint's side.
#[derive(Debug, Clone)]
pub struct Dns(DnsConfig);

/// Not a domain name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no search domain: expected letters, digits and hyphens between dots, at most 253 bytes")]
pub struct InvalidDomain(pub String);

impl Dns {
    /// Adds these servers, asked in this order, and these search domains to each connection.
    ///
    /// # Errors
    /// When a domain is none.
    pub fn new<'a>(
        servers: impl IntoIterator<Item = IpAddr>,
        search_domains: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, InvalidDomain> {
        let domain = |text: &'a str| is_domain(text).then(|| text.to_owned()).ok_or_else(|| InvalidDomain(text.into()));
        let search_domains = search_domains.into_iter().map(domain).collect::<Result<_, _>>()?;
        let dns_server_ips = servers.into_iter().map(|server| server.to_string()).collect();
        Ok(Self(DnsConfig { dns_server_ips, search_domains }))
    }
}

#[async_trait]
impl Element for Dns {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let context = request.connection.context.get_or_insert_default().dns_context.get_or_insert_default();
        if !context.configs.contains(&self.0) {
            context.configs.push(self.0.clone());
        }
        next.request(request).await
    }
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let text = text.strip_suffix('.').unwrap_or(text);
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, chain};

    #[tokio::test]
    async fn a_configuration_is_there_once() {
        let one = Dns::new(["10.0.0.53".parse().unwrap()], ["corp.example", "_tcp.example."]).unwrap();
        let two = Dns::new(["fd00::53".parse().unwrap()], []).unwrap();
        let request = Request { connection: Connection::default(), preferences: Vec::new(), call: Call::default() };
        let context = chain![one.clone(), one, two].request(request).await.unwrap().context.unwrap();
        let configs = context.dns_context.unwrap().configs;
        assert_eq!((configs.len(), configs[1].dns_server_ips[0].as_str()), (2, "fd00::53"));
    }

    #[test]
    fn nonsense_is_refused() {
        for domain in ["", ".", "a..b", "-a", "a b", "a\nnameserver 6.6.6.6", &"a".repeat(64)] {
            assert!(Dns::new([], [domain]).is_err(), "{domain:?}");
        }
    }
}
