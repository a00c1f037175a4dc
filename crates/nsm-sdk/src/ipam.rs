//! Addresses for both ends of a connection: the endpoint gets the even, the client the odd address of a pair, and each a
//! route to the other.
//!
//! Guarantees: the same connection id gets the same addresses on each refresh; addresses that the request names are kept
//! when they are free, so clients give an endpoint its leases back after a restart; no address is handed out twice or against
//! the request's `excluded_prefixes`, on refresh too; whatever fails further down the chain, the pool is as before. An
//! address of this element's prefixes that the request names and does not get is taken out of the context: two connections
//! never have it. After a move from another endpoint (`RESELECT_REQUESTED`) that one's pairs are taken out as well: they are
//! its to give, and it may give them to somebody else.
//!
//! Assumes: `connection.id` is this process's own, made by [`Path::server`](crate::path::Path::server), and
//! [`Begin`](crate::begin::Begin) lets in one event per id at a time.

mod groups;
mod pool;
mod ranges;
mod space;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use async_trait::async_trait;
use ipnetwork::IpNetwork;
use nsm_proto::{
    connection::{Connection, State},
    connectioncontext::{IpContext, Route},
};

use self::space::Space;
pub use self::{
    groups::{Groups, InvalidGroups},
    pool::{Lease, Pair, Pool, PoolError, Wish},
};
use crate::{Close, Element, Error, Kind, Next, Request, asked::Asked};

/// Most prefixes that a request may exclude, and most addresses that it may name for one end.
pub const MAX_NAMED: usize = 4096;

/// Why a request's addresses make no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWish {
    /// Not a prefix.
    #[error("{field} has {value:?}: expected a prefix such as 10.0.0.0/8 or fd00::/8")]
    Prefix {
        /// The field of the message.
        field: &'static str,
        /// What it has.
        value: String,
    },
    /// More than [`MAX_NAMED`].
    #[error("{field} has {count} entries: expected at most {MAX_NAMED}")]
    TooMany {
        /// The field of the message.
        field: &'static str,
        /// How many it has.
        count: usize,
    },
}

/// Another endpoint's pairs are gone from the context: what is there now, elements of this chain have put there. A note.
#[derive(Debug, Clone, Copy)]
struct LeftBehind;

/// The element: one pair of addresses per group of the pool.
#[derive(Debug, Clone)]
pub struct PointToPoint {
    pool: Pool,
    ours: Space,
}

impl PointToPoint {
    /// Allocates from these groups of prefixes.
    pub fn new(groups: Groups) -> Self {
        Self::from_pool(Pool::new(groups))
    }

    /// Allocates from a pool that others see too.
    pub fn from_pool(pool: Pool) -> Self {
        let ours = pool.groups().iter().flatten().copied().collect();
        Self { pool, ours }
    }

    /// The pool behind it.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Takes out the pairs of another endpoint's allocator: single addresses, each with its route at the other end. What
    /// an operator or a client of its own accord has named does not look like that.
    fn leave_behind(&self, context: &mut IpContext) {
        let ends = [
            (&mut context.src_ip_addrs, &mut context.dst_routes),
            (&mut context.dst_ip_addrs, &mut context.src_routes),
        ];
        for (addresses, routes) in ends {
            addresses.retain(|text| {
                let Ok(named) = text.parse::<IpNetwork>() else { return true };
                let single = named == host(named.ip()) && !self.ours.contains(named.ip());
                let route = routes.iter().position(|route| &route.prefix == text && route.next_hop.is_empty());
                let Some(route) = route.filter(|_| single) else { return true };
                routes.remove(route);
                false
            });
        }
    }

    /// Puts the lease into the context, and takes out what is ours to give but was not given.
    fn apply(&self, pairs: &[Pair], context: &mut IpContext) {
        let mut lost = Vec::new();
        let clients: Vec<IpAddr> = pairs.iter().map(|pair| pair.client).collect();
        let endpoints: Vec<IpAddr> = pairs.iter().map(|pair| pair.endpoint).collect();
        for (list, given) in [(&mut context.src_ip_addrs, &clients), (&mut context.dst_ip_addrs, &endpoints)] {
            list.retain(|text| {
                let Ok(named) = text.parse::<IpNetwork>() else { return true };
                let stays =
                    !self.ours.contains(named.ip()) || (given.contains(&named.ip()) && named == host(named.ip()));
                if !stays && !given.contains(&named.ip()) {
                    lost.push(host(named.ip()).to_string());
                }
                stays
            });
            for address in given {
                add(list, host(*address).to_string());
            }
        }
        for (routes, given) in [(&mut context.src_routes, &endpoints), (&mut context.dst_routes, &clients)] {
            routes.retain(|route| !lost.contains(&route.prefix));
            let missing: Vec<Route> = given
                .iter()
                .map(|address| host(*address).to_string())
                .filter(|prefix| !routes.iter().any(|route| &route.prefix == prefix))
                .map(|prefix| Route { prefix, next_hop: String::new() })
                .collect();
            // First, so that a refresh finds the order in which they were, whatever others have put there.
            routes.splice(..0, missing);
        }
    }
}

#[async_trait]
impl Element for PointToPoint {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        let id = request.connection.id.clone();
        let moved = request.connection.state() == State::ReselectRequested;
        let context = request.connection.context.get_or_insert_default().ip_context.get_or_insert_default();
        let asked: Asked = request.call.noted().unwrap_or_default();
        let wish = wish(context, &asked).map_err(|error| Error::new(Kind::Invalid, error))?;
        let lease = self.pool.lease(&id, &wish)?;
        if moved && request.call.noted::<LeftBehind>().is_none() {
            request.call.note(LeftBehind);
            self.leave_behind(context);
        }
        self.apply(lease.pairs(), context);
        let connection = next.request(request).await?;
        lease.keep();
        Ok(connection)
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        let id = close.connection.id.clone();
        let closed = next.close(close).await;
        self.pool.release(&id);
        closed
    }
}

impl From<PoolError> for Error {
    fn from(error: PoolError) -> Self {
        let kind = match &error {
            PoolError::Exhausted { .. } | PoolError::Full(_) => Kind::Exhausted,
            PoolError::Busy(_) => Kind::Conflict,
        };
        Self::new(kind, error)
    }
}

/// What the context names, or named before [`WordsOfClient`](crate::asked::WordsOfClient).
fn wish(context: &IpContext, asked: &Asked) -> Result<Wish, InvalidWish> {
    let addresses = |field, named: &[String], asked: &[String]| {
        let all = [prefixes(field, named)?, prefixes(field, asked)?];
        Ok(all.iter().flatten().map(IpNetwork::ip).collect())
    };
    Ok(Wish {
        client: addresses("src_ip_addrs", &context.src_ip_addrs, &asked.client)?,
        endpoint: addresses("dst_ip_addrs", &context.dst_ip_addrs, &asked.endpoint)?,
        excluded: prefixes("excluded_prefixes", &context.excluded_prefixes)?,
    })
}

fn prefixes(field: &'static str, list: &[String]) -> Result<Vec<IpNetwork>, InvalidWish> {
    if list.len() > MAX_NAMED {
        return Err(InvalidWish::TooMany { field, count: list.len() });
    }
    let parse = |text: &String| text.parse().map_err(|_| InvalidWish::Prefix { field, value: text.clone() });
    list.iter().map(parse).collect()
}

/// The address alone: `/32` or `/128`.
fn host(address: IpAddr) -> IpNetwork {
    address.into()
}

fn add(list: &mut Vec<String>, value: String) {
    if !list.contains(&value) {
        list.push(value);
    }
}
