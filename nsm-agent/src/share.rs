//! How much of something one peer may hold at a time.

use std::{
    collections::HashMap,
    fmt,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tonic::Status;

/// Most watches of one kind that one peer may keep open.
pub const WATCHES: usize = 256;

/// What each of `K` holds.
#[derive(Debug)]
pub struct Shares<K> {
    what: &'static str,
    most: usize,
    held: Mutex<HashMap<K, usize>>,
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
        Arc::new(Self { what, most, held: Mutex::default() })
    }

    /// One more, unless `of` has enough.
    pub fn take(self: &Arc<Self>, of: &K) -> Result<Share<K>, Status> {
        let mut held = self.lock();
        let count = held.entry(of.clone()).or_default();
        if *count >= self.most {
            return Err(Status::resource_exhausted(format!(
                "{of} has {count} {} open, the most is {}: end some first",
                self.what, self.most
            )));
        }
        *count += 1;
        drop(held);
        Ok(Share { of: of.clone(), shares: self.clone() })
    }
}

impl<K> Shares<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        if let Some(count) = held.get_mut(&self.of) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.of);
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
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(refused.message().contains("pod has 2 watches open, the most is 2"), "{refused}");
        drop(shares.take(&"other").unwrap());
        drop(mine);
        assert!(shares.lock().is_empty());
        assert!(shares.take(&"pod").is_ok());
    }
}
