//! Endpoint objects that are to be deleted: at once where the API server answers, in order and again where it does not.
//!
//! Guarantees: the caller does not wait. An object that was registered again meanwhile stays. At most [`MOST`] wait; what is
//! left out goes when the agent starts anew.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::objects::Key;

/// Most objects that wait.
const MOST: usize = 65_536;
/// Pause after a failure.
pub(super) const AGAIN: Duration = Duration::from_secs(2);

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Withdrawals {
    due: Mutex<Due>,
    more: Notify,
}

#[derive(Debug, Default)]
struct Due {
    /// When, and in which order among those of one time.
    waiting: HashMap<Key, (Instant, u64)>,
    turn: u64,
}

impl Withdrawals {
    /// Has the object deleted after a while, or earlier if that was said before.
    pub(super) fn push(&self, key: Key, after: Duration) {
        let at = Instant::now() + after;
        let mut due = self.lock();
        due.turn += 1;
        let turn = due.turn;
        if due.waiting.len() < MOST || due.waiting.contains_key(&key) {
            let entry = due.waiting.entry(key).or_insert((at, turn));
            entry.0 = entry.0.min(at);
        }
        drop(due);
        self.more.notify_one();
    }

    /// Waits for the next one that is due.
    pub(super) async fn next(&self) -> Key {
        loop {
            let first = self.lock().waiting.iter().map(|(key, order)| (*order, key.clone())).min();
            match first {
                Some(((at, _), key)) if at <= Instant::now() => {
                    self.lock().waiting.remove(&key);
                    return key;
                }
                Some(((at, _), _)) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(at) => {}
                        () = self.more.notified() => {}
                    }
                }
                None => self.more.notified().await,
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Due> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
