//! At most one task for each connection, ended with its successor, its removal or its owner.
//!
//! Guarantees: no task outlives the [`Tasks`] it was given to. Assumptions: a Tokio runtime.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio_util::task::AbortOnDropHandle;

#[derive(Default)]
pub(crate) struct Tasks(Mutex<HashMap<String, AbortOnDropHandle<()>>>);

impl Tasks {
    /// Runs `task` for this connection, in the place of the one before.
    pub(crate) fn set(&self, id: &str, task: impl Future<Output = ()> + Send + 'static) {
        let task = AbortOnDropHandle::new(tokio::spawn(task));
        self.lock().insert(id.to_owned(), task);
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    pub(crate) fn is_running(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(|task| !task.is_finished())
    }

    #[cfg(test)]
    pub(crate) fn running(&self) -> usize {
        self.lock().values().filter(|task| !task.is_finished()).count()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, AbortOnDropHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
