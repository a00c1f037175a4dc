//! How much of something one peer may hold at a time.
//!
//! Guarantee: where all together have a bound, its last quarter is for those that hold few: a handful of peers that take all they can
//! do not lock the others out.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;

use crate::state::Owner;

/// Most watches of one kind that one peer may keep open.
pub const WATCHES: usize = 256;
/// The same for all peers together.
pub const WATCHES_IN_ALL: usize = 8192;
/// Most watches of one peer that look at more than one name: each remembers all that it was told.
pub const WIDE: usize = 8;
/// The same for all peers together.
pub const WIDE_IN_ALL: usize = 128;
/// Most watches of connections of all peers together: each is asked at each change of any.
pub const MONITORS_IN_ALL: usize = 1024;
/// Most calls of one peer that run at a time, watches aside.
pub const CALLS: usize = 64;
/// The same for all peers together.
pub const CALLS_IN_ALL: usize = 1024;

/// How many one may hold of the last quarter.
const FEW: usize = 4;

/// What each of `K` holds.
#[derive(Debug)]
pub struct Shares<K> {
    what: &'static str,
    most: usize,
    in_all: usize,
    held: Mutex<Held<K>>,
}

#[derive(Debug)]
struct Held<K> {
    by: HashMap<K, usize>,
    all: usize,
}

/// The place of a call whose message is on its way, in its extensions: whoever works for the call keeps a clone.
#[derive(Debug, Clone)]
pub struct InFlight(#[expect(dead_code, reason = "held until it is dropped")] Option<Arc<Share<Owner>>>);

impl InFlight {
    /// None for who is not counted.
    pub fn of(share: Option<Share<Owner>>) -> Self {
        Self(share.map(Arc::new))
    }
}

/// Somebody, or all together, have enough.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The one who asks.
    #[error("{of} has {have} {what} open, the most is {have}: end some first")]
    Own {
        /// Who.
        of: String,
        /// How many it has, the most that it may.
        have: usize,
        /// Of what.
        what: &'static str,
    },
    /// All of them.
    #[error("all peers together have {have} {what} open, and what is left is for those with fewer: try again later")]
    All {
        /// How many they have.
        have: usize,
        /// Of what.
        what: &'static str,
    },
}

impl From<Full> for Status {
    fn from(full: Full) -> Self {
        Self::resource_exhausted(full.to_string())
    }
}

/// One of them; giving it back is dropping it.
#[derive(Debug)]
pub struct Share<K: Hash + Eq> {
    of: K,
    shares: Arc<Shares<K>>,
}

impl<K: Hash + Eq + Clone + fmt::Display> Shares<K> {
    /// At most so many for each; `what` they are, for who asks for more.
    pub fn new(what: &'static str, most: usize) -> Arc<Self> {
        let held = Mutex::new(Held { by: HashMap::new(), all: 0 });
        Arc::new(Self { what, most, in_all: usize::MAX, held })
    }

    /// And at most so many for all together, before the first is taken.
    #[must_use]
    pub fn in_all(self: Arc<Self>, in_all: usize) -> Arc<Self> {
        let held = Mutex::new(Held { by: HashMap::new(), all: 0 });
        Arc::new(Self { what: self.what, most: self.most, in_all, held })
    }

    /// One more, unless `of`, or all, have enough.
    pub fn take(self: &Arc<Self>, of: &K) -> Result<Share<K>, Full> {
        let mut held = self.lock();
        let have = held.by.get(of).copied().unwrap_or_default();
        if have >= self.most {
            return Err(Full::Own { of: of.to_string(), have, what: self.what });
        }
        let left = self.in_all - held.all;
        if left == 0 || left <= self.in_all / 4 && have >= FEW {
            return Err(Full::All { have: held.all, what: self.what });
        }
        held.by.insert(of.clone(), have + 1);
        held.all += 1;
        drop(held);
        Ok(Share { of: of.clone(), shares: self.clone() })
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, Held<K>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        held.all -= 1;
        if let Some(count) = held.by.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                held.by.remove(&self.of);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_share_and_gives_it_back() {
        let shares = Shares::new("watches", 2);
        let mine: Vec<_> = (0..2).map(|_| shares.take(&"pod").unwrap()).collect();
        let refused = shares.take(&"pod").unwrap_err();
        assert!(refused.to_string().contains("pod has 2 watches open, the most is 2"), "{refused}");
        assert_eq!(Status::from(refused).code(), tonic::Code::ResourceExhausted);
        drop(shares.take(&"other").unwrap());
        drop(mine);
        assert!(shares.lock().by.is_empty());
        assert!(shares.take(&"pod").is_ok());
    }

    #[test]
    fn all_together_have_a_bound_too() {
        let shares = Shares::new("calls", 2).in_all(3);
        let held: Vec<_> = ["a", "a", "b"].iter().map(|of| shares.take(of).unwrap()).collect();
        assert_eq!(shares.take(&"b").unwrap_err(), Full::All { have: 3, what: "calls" });
        drop(held);
        assert!(shares.take(&"b").is_ok());
    }

    #[test]
    fn those_who_take_all_that_they_can_leave_some_for_others() {
        let shares = Shares::new("calls", CALLS).in_all(CALLS_IN_ALL);
        let mut held = Vec::new();
        for greedy in 0..20 {
            while let Ok(share) = shares.take(&greedy) {
                held.push(share);
            }
        }
        let own: Vec<_> = (20..30).map(|modest| shares.take(&modest).unwrap()).collect();
        assert_eq!(own.len(), 10);
    }
}
