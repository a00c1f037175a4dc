//! Processes that passed their own sockets: their endpoints go with them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use tokio::task::AbortHandle;

/// The endpoints of each process, and the task that waits for its end.
#[derive(Default)]
pub(super) struct Processes(Mutex<HashMap<i64, Watched>>);

struct Watched {
    names: BTreeSet<String>,
    task: AbortHandle,
}

impl Processes {
    /// Adds an endpoint of that process; `watch` starts the task when it is the first.
    pub(super) fn add(&self, pid: i64, name: &str, watch: impl FnOnce() -> AbortHandle) {
        let mut all = self.lock();
        let watched = all.entry(pid).or_insert_with(|| Watched { names: BTreeSet::new(), task: watch() });
        watched.names.insert(name.to_owned());
    }

    /// An endpoint is no longer that process's. With the last one the task ends.
    pub(super) fn remove(&self, pid: i64, name: &str) {
        let mut all = self.lock();
        if let Some(watched) = all.get_mut(&pid) {
            watched.names.remove(name);
            if watched.names.is_empty() {
                watched.task.abort();
                all.remove(&pid);
            }
        }
    }

    /// The process has ended: its endpoints.
    pub(super) fn take(&self, pid: i64) -> BTreeSet<String> {
        self.lock().remove(&pid).map(|watched| watched.names).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
