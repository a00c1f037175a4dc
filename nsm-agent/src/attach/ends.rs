//! The DELs of the last moments. A sandbox that has had its DEL gets nothing more, though its namespace and its record may still
//! be there.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::state::AttachmentKey;

/// How many are remembered: a record outlives its DEL by the end of a process.
const MOST: usize = 1024;

/// The last ones.
#[derive(Debug, Default)]
pub(super) struct Ends(Mutex<VecDeque<(AttachmentKey, Instant)>>);

impl Ends {
    /// One more.
    pub(super) fn put(&self, key: &AttachmentKey) {
        let mut all = self.lock();
        all.retain(|(known, _)| known != key);
        if all.len() == MOST {
            all.pop_front();
        }
        all.push_back((key.clone(), Instant::now()));
    }

    /// When it was.
    pub(super) fn get(&self, key: &AttachmentKey) -> Option<Instant> {
        self.lock().iter().find(|(known, _)| known == key).map(|(_, at)| *at)
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(AttachmentKey, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_known() {
        let ends = Ends::default();
        let key = |number: usize| AttachmentKey { container_id: number.to_string(), ifname: "eth0".into() };
        (0..=MOST).for_each(|number| ends.put(&key(number)));
        assert!(ends.get(&key(0)).is_none());
        let first = ends.get(&key(1)).unwrap();
        ends.put(&key(1));
        assert!(ends.get(&key(1)).unwrap() >= first && ends.get(&key(2)).is_some());
    }
}
