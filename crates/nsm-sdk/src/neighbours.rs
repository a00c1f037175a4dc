//! Neighbours that the client's end shall know without asking.
//!
//! Guarantees: an address has one entry, the element's latest; what cannot be a neighbour's hardware address is refused when
//! the element is made.
//! Assumes: nothing.
//!
//! ```
//! use nsm_sdk::neighbours::Neighbours;
//! let element = Neighbours::new([("10.0.0.9".parse().unwrap(), "02:00:00:00:00:09")]).unwrap();
//! ```

use std::net::IpAddr;

use async_trait::async_trait;
use nsm_proto::{connection::Connection, connectioncontext::IpNeighbor};

use crate::{Element, Error, Next, Request};

/// The element, on the endpoint's side.
#[derive(Debug, Clone)]
pub struct Neighbours(Vec<IpNeighbor>);

/// What no single neighbour can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("neighbour {ip} has the hardware address {mac:?}: expected that of one station, e.g. 02:00:00:00:00:01")]
pub struct InvalidHardwareAddress {
    /// The neighbour.
    pub ip: IpAddr,
    /// Its hardware address.
    pub mac: String,
}

impl Neighbours {
    /// Adds these to each connection.
    ///
    /// # Errors
    /// When a hardware address is none, or a group's.
    pub fn new<'a>(neighbours: impl IntoIterator<Item = (IpAddr, &'a str)>) -> Result<Self, InvalidHardwareAddress> {
        let entry = |(ip, mac): (IpAddr, &str)| {
            let invalid = || InvalidHardwareAddress { ip, mac: mac.to_owned() };
            let octets = octets(mac).filter(|octets| octets[0] & 1 == 0 && octets != &[0; 6]).ok_or_else(invalid)?;
            let hardware_address = octets.map(|octet| format!("{octet:02x}")).join(":");
            Ok(IpNeighbor { ip: ip.to_string(), hardware_address })
        };
        Ok(Self(neighbours.into_iter().map(entry).collect::<Result<_, _>>()?))
    }
}

#[async_trait]
impl Element for Neighbours {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        for neighbour in &self.0 {
            context.ip_neighbors.retain(|known| known.ip != neighbour.ip);
            context.ip_neighbors.push(neighbour.clone());
        }
        next.request(request).await
    }
}

fn octets(text: &str) -> Option<[u8; 6]> {
    let two = |part: &str| (part.len() == 2 && !part.starts_with('+')).then(|| u8::from_str_radix(part, 16).ok())?;
    text.split(':').map(two).collect::<Option<Vec<_>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Call, chain};

    #[tokio::test]
    async fn an_address_has_one_entry() {
        let ip: IpAddr = "10.0.0.9".parse().unwrap();
        let old = Neighbours::new([(ip, "02:00:00:00:00:09")]).unwrap();
        let new = Neighbours::new([(ip, "02:00:00:00:00:0A")]).unwrap();
        let request = Request { connection: Connection::default(), preferences: Vec::new(), call: Call::default() };
        let context = chain![old.clone(), old, new].request(request).await.unwrap().context.unwrap();
        let neighbours = context.ip_context.unwrap().ip_neighbors;
        assert_eq!((neighbours.len(), neighbours[0].hardware_address.as_str()), (1, "02:00:00:00:00:0a"));
    }

    #[test]
    fn nonsense_is_refused() {
        for mac in
            ["", "02:00:00:00:00", "02:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "0g:+1:0:0:0:0"]
        {
            assert!(Neighbours::new([("10.0.0.9".parse().unwrap(), mac)]).is_err(), "{mac}");
        }
    }
}
