//! What is to be told of pods that have not been seen yet: an event needs the uid that the API server knows a pod by, and a runtime may
//! know another one, of a static pod the hash of its configuration.
//!
//! Guarantees: it is told when the pod is seen, and never about another pod of that name. Of a pod the last word is kept, of at most
//! [`MOST`] pods; one that is not seen for [`LONG`] gives way to others.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{events::Reason, seen::Key};
use crate::state::Pod;

/// Most pods.
const MOST: usize = 1024;

/// A pod that is not seen for so long has gone.
const LONG: Duration = Duration::from_mins(10);

/// The words, by pod.
#[derive(Debug, Default)]
pub(super) struct Unseen(Mutex<HashMap<Key, Word>>);

#[derive(Debug)]
struct Word {
    pod: Pod,
    told: (Reason, String),
    since: Instant,
}

impl Unseen {
    /// Keeps it; false: there is no room.
    pub(super) fn put(&self, key: Key, pod: Pod, told: (Reason, String)) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST && !all.contains_key(&key) {
            all.retain(|_, word| word.since.elapsed() < LONG);
        }
        let room = all.len() < MOST || all.contains_key(&key);
        if room {
            all.insert(key, Word { pod, told, since: Instant::now() });
        }
        room
    }

    /// What is to be told of the pod of that name, if it is the one that was seen.
    pub(super) fn take(&self, key: &Key, is_seen: impl FnOnce(&Pod) -> bool) -> Option<(Reason, String)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|word| is_seen(&word.pod))?;
        all.remove(key).map(|word| word.told)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_word_is_kept_of_a_few() {
        let unseen = Unseen::default();
        let key = |number: usize| Key { namespace: "default".into(), name: number.to_string().into() };
        let put = |number: usize, message: &str| {
            let pod = Pod { name: number.to_string(), namespace: "default".into(), uid: "u".into() };
            unseen.put(key(number), pod, (Reason::Refused, message.into()))
        };
        assert!((0..MOST).all(|number| put(number, "no")));
        assert!(!put(MOST, "no") && put(1, "still no"));
        assert_eq!(unseen.take(&key(1), |_| false), None);
        assert_eq!(unseen.take(&key(1), |pod| pod.name == "1"), Some((Reason::Refused, "still no".into())));
        assert!(unseen.take(&key(1), |_| true).is_none() && put(MOST, "no") && !put(MOST + 1, "no"));
        tokio::time::advance(LONG).await;
        assert!(put(MOST + 1, "no"));
    }
}
