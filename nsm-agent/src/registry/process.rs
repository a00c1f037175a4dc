//! Processes that passed their own sockets: their endpoints go with them.
//!
//! Guarantee: of endpoints that are not registered any more, and whose processes live, at most [`MOST_LEFT`] are known.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use tokio::task::AbortHandle;

/// Most endpoints that are waited for though they are not registered.
const MOST_LEFT: usize = 1024;

/// The endpoints of each process, and the task that waits for its end.
#[derive(Default)]
pub(super) struct Processes(Mutex<HashMap<i64, Watched>>);

struct Watched {
    names: BTreeSet<String>,
    /// Of endpoints that are not registered any more, and that the process may know of.
    left: BTreeSet<String>,
    task: AbortHandle,
}

impl Processes {
    /// Adds an endpoint of that process; `watch` starts the task when it is the first.
    pub(super) fn add(&self, pid: i64, name: &str, watch: impl FnOnce() -> AbortHandle) {
        let mut all = self.lock();
        let watched =
            all.entry(pid).or_insert_with(|| Watched { names: BTreeSet::new(), left: BTreeSet::new(), task: watch() });
        watched.left.remove(name);
        watched.names.insert(name.to_owned());
    }

    /// An endpoint is no longer that process's. With the last one the task ends.
    pub(super) fn remove(&self, pid: i64, name: &str) {
        let mut all = self.lock();
        if let Some(watched) = all.get_mut(&pid) {
            watched.names.remove(name);
            watched.left.remove(name);
            if watched.names.is_empty() && watched.left.is_empty() {
                watched.task.abort();
                all.remove(&pid);
            }
        }
    }

    /// An endpoint of that process is not registered any more; that it ends is to be noticed all the same.
    pub(super) fn leave(&self, pid: i64, name: &str) {
        let mut all = self.lock();
        let has_room = all.values().map(|watched| watched.left.len()).sum::<usize>() < MOST_LEFT;
        if let Some(watched) = all.get_mut(&pid).filter(|_| has_room) {
            watched.names.remove(name);
            watched.left.insert(name.to_owned());
        } else {
            drop(all);
            self.remove(pid, name);
        }
    }

    /// The process has ended: its endpoints, those too that are not registered any more.
    pub(super) fn take(&self, pid: i64) -> BTreeSet<String> {
        let taken = self.lock().remove(&pid);
        taken.map(|Watched { names, left, .. }| &names | &left).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
