//! What endpoints say of connections, until the healer takes it.
//!
//! Guarantee: it holds one word for each connection, however much is said: the gravest, and of two as grave the last.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use nsm_sdk::heal::{Change, HopEvent};
use tokio::sync::Notify;

use crate::state::ConnectionId;

/// The words that nobody has taken yet.
#[derive(Default)]
pub(in crate::manager) struct Mailbox {
    words: Mutex<HashMap<ConnectionId, Change>>,
    filled: Notify,
}

impl Mailbox {
    /// Puts a word in.
    pub(in crate::manager) fn put(&self, event: HopEvent) {
        let HopEvent { id, change } = event;
        let mut words = self.words();
        let graver = words.get(&id).is_none_or(|known| gravity(*known) <= gravity(change));
        if graver {
            words.insert(id, change);
        }
        drop(words);
        self.filled.notify_one();
    }

    /// All words there are; waits for the first.
    pub(super) async fn take(&self) -> HashMap<ConnectionId, Change> {
        loop {
            let words = std::mem::take(&mut *self.words());
            if !words.is_empty() {
                return words;
            }
            self.filled.notified().await;
        }
    }

    fn words(&self) -> MutexGuard<'_, HashMap<ConnectionId, Change>> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn gravity(change: Change) -> u8 {
    match change {
        Change::RefreshRequested => 0,
        Change::Down | Change::Deleted | Change::Lost => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_is_one_word() {
        let mailbox = Mailbox::default();
        for change in [Change::RefreshRequested, Change::Deleted, Change::Down, Change::RefreshRequested] {
            mailbox.put(HopEvent { id: "a".into(), change });
        }
        mailbox.put(HopEvent { id: "b".into(), change: Change::RefreshRequested });
        let taken = mailbox.take().await;
        assert_eq!(taken, HashMap::from([("a".into(), Change::Down), ("b".into(), Change::RefreshRequested)]));
        assert!(futures::poll!(Box::pin(mailbox.take())).is_pending());
    }
}
