//! Who has which addresses. Knows no connections, no files and no async.
//!
//! Guarantees: no address is in two leases at once, whatever the prefixes overlap; none is handed out that the caller excludes;
//! the same id gets the same addresses until it is released or excludes them; a [`Lease`] dropped without [`Lease::keep`]
//! leaves the pool as it was before. Time and memory grow with the number of leases, not with the size of the prefixes.
//!
//! Assumes: one lease per id at a time. A second one is refused, not mixed up.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use ipnetwork::IpNetwork;

use super::{Groups, Space};

/// The two ends of one connection in one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pair {
    /// The endpoint's address: the even one, unless the client named another.
    pub endpoint: IpAddr,
    /// The client's address: the odd one, unless the client named another.
    pub client: IpAddr,
}

/// What a request says about addresses.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Client addresses that the request names; taken when free.
    pub client: Vec<IpAddr>,
    /// Endpoint addresses that the request names; taken when free.
    pub endpoint: Vec<IpAddr>,
    /// Prefixes to stay out of.
    pub excluded: Vec<IpNetwork>,
}

/// Why there is no lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// No pair is free, or those that are free are excluded.
    #[error("no pair of addresses is left in {prefixes} ({leases} connections have one; {excluded} excluded prefixes)")]
    Exhausted {
        /// The group's prefixes.
        prefixes: String,
        /// Connections with addresses from this pool.
        leases: usize,
        /// How many prefixes the request excluded.
        excluded: usize,
    },
    /// As many connections as the pool may remember.
    #[error("{0} connections have addresses: no more are remembered")]
    Full(usize),
    /// Another request for the same id is on its way.
    #[error("connection {0:?} is being requested already")]
    Busy(String),
}

/// Pairs of addresses from groups of prefixes. Clones share the addresses.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    groups: Groups,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: Space,
    entries: HashMap<String, Entry>,
}

/// An id's addresses. Whatever is in `kept` or `offered` is not in `free`.
#[derive(Debug, Default)]
struct Entry {
    /// What the id has; `None` until a first lease was kept.
    kept: Option<Vec<Pair>>,
    /// What a lease on its way has; it shares with `kept` what does not change.
    offered: Option<Vec<Pair>>,
    /// Released while a lease was on its way: ends with it.
    released: bool,
}

impl Pool {
    /// Most ids that a pool remembers: larger than what one endpoint serves, and a bound on its memory.
    pub const MAX_LEASES: usize = 1 << 20;

    /// A pool with all addresses of the groups free.
    pub fn new(groups: Groups) -> Self {
        let mut free = Space::default();
        groups.iter().flatten().for_each(|prefix| free.insert(*prefix));
        Self(Arc::new(Shared { groups, state: Mutex::new(State { free, entries: HashMap::new() }) }))
    }

    /// What the pool allocates from.
    pub fn groups(&self) -> &Groups {
        &self.0.groups
    }

    /// The addresses of `id`: those it has, else those it wishes for, else the lowest free pair; one pair per group.
    ///
    /// # Errors
    /// [`PoolError`]; the id keeps what it had.
    pub fn lease(&self, id: &str, wish: &Wish) -> Result<Lease, PoolError> {
        let mut state = self.lock();
        let state = &mut *state;
        let had = match state.entries.get(id) {
            Some(Entry { offered: Some(_), .. }) => return Err(PoolError::Busy(id.to_owned())),
            Some(entry) => entry.kept.clone(),
            None if state.entries.len() >= Self::MAX_LEASES => return Err(PoolError::Full(Self::MAX_LEASES)),
            None => None,
        };
        let excluded: Space = wish.excluded.iter().copied().collect();
        let mut pairs = Vec::new();
        for (at, group) in self.0.groups.iter().enumerate() {
            let has = had.as_ref().and_then(|had| had.get(at)).copied();
            let keeps = has.filter(|pair| !excluded.contains(pair.endpoint) && !excluded.contains(pair.client));
            let Some(pair) = keeps.or_else(|| state.free.pick(group, wish, &excluded)) else {
                let leases = state.entries.len();
                state.give_back(&pairs, had.as_deref());
                let prefixes = group.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                return Err(PoolError::Exhausted { prefixes, leases, excluded: wish.excluded.len() });
            };
            pairs.push(pair);
        }
        state.entries.entry(id.to_owned()).or_default().offered = Some(pairs.clone());
        Ok(Lease { pool: self.clone(), id: id.to_owned(), pairs, keep: false })
    }

    /// Frees what the id has; harmless when it has nothing.
    pub fn release(&self, id: &str) {
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(id) else { return };
        if entry.offered.is_some() {
            entry.released = true;
        } else if let Some(Entry { kept: Some(kept), .. }) = state.entries.remove(id) {
            state.give_back(&kept, None);
        }
    }

    /// How many ids have addresses.
    pub fn leases(&self) -> usize {
        self.lock().entries.len()
    }

    #[cfg(test)]
    pub(super) fn all_free(&self) -> Space {
        self.lock().free.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settle(&self, id: &str, keep: bool) {
        let mut state = self.lock();
        let Some(mut entry) = state.entries.remove(id) else { return };
        let offered = entry.offered.take();
        let (stays, goes) = if keep { (offered, entry.kept) } else { (entry.kept, offered) };
        state.give_back(goes.as_deref().unwrap_or_default(), stays.as_deref());
        match stays {
            Some(stays) if entry.released => state.give_back(&stays, None),
            Some(stays) => {
                state.entries.insert(id.to_owned(), Entry { kept: Some(stays), ..Entry::default() });
            }
            None => {}
        }
    }
}

impl State {
    /// Frees these pairs, except for what `but` has too.
    fn give_back(&mut self, pairs: &[Pair], but: Option<&[Pair]>) {
        let stays = but.unwrap_or_default();
        for pair in pairs.iter().filter(|pair| !stays.contains(pair)) {
            self.free.insert(pair.endpoint.into());
            self.free.insert(pair.client.into());
        }
    }
}

/// Addresses of one id while its request is on its way. Dropped, the pool is as before; see [`Lease::keep`].
#[derive(Debug)]
#[must_use = "dropping a lease gives it back"]
pub struct Lease {
    pool: Pool,
    id: String,
    pairs: Vec<Pair>,
    keep: bool,
}

impl Lease {
    /// One pair per group.
    pub fn pairs(&self) -> &[Pair] {
        &self.pairs
    }

    /// The id has these addresses until it is released.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.settle(&self.id, self.keep);
    }
}
