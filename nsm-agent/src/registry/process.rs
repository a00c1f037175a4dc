//! Processes that passed their own sockets: their endpoints go with them.
//!
//! Guarantee: of endpoints that are not registered any more, and whose processes live, at most [`MOST_LEFT`] are known, of one peer at most
//! [`MOST_LEFT_OF_ONE`], and each no longer than anybody waits for its return.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use tokio::{task::AbortHandle, time::Instant};

use super::directory::{ABSENCE, Account};

/// Most endpoints that are waited for though they are not registered, and most of one peer's.
const MOST_LEFT: usize = 1024;
const MOST_LEFT_OF_ONE: usize = 64;

/// The endpoints of each process, and the task that waits for its end.
#[derive(Default)]
pub(super) struct Processes(Mutex<HashMap<i64, Watched>>);

struct Watched {
    names: BTreeSet<String>,
    /// Of endpoints that are not registered any more, and that the process may know of.
    left: BTreeMap<String, Left>,
    task: AbortHandle,
}

/// Since when an endpoint is not registered any more, and whom it counts for, if for anybody.
#[derive(Clone, Copy)]
struct Left {
    since: Instant,
    of: Option<Account>,
}

impl Processes {
    /// Adds an endpoint of that process; `watch` starts the task when it is the first.
    pub(super) fn add(&self, pid: i64, name: &str, watch: impl FnOnce() -> AbortHandle) {
        let mut all = self.lock();
        let watched =
            all.entry(pid).or_insert_with(|| Watched { names: BTreeSet::new(), left: BTreeMap::new(), task: watch() });
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

    /// An endpoint of that process is not registered any more; that it ends is to be noticed all the same. `of`: whom it counts for.
    pub(super) fn leave(&self, pid: i64, name: &str, of: Option<Account>) {
        let mut all = self.lock();
        let now = Instant::now();
        all.retain(|_, watched| {
            watched.left.retain(|_, left| now.duration_since(left.since) < ABSENCE);
            let is_of_use = !watched.names.is_empty() || !watched.left.is_empty();
            if !is_of_use {
                watched.task.abort();
            }
            is_of_use
        });
        let left = || all.values().flat_map(|watched| watched.left.values());
        let has_room = left().count() < MOST_LEFT
            && (of.is_none() || left().filter(|one| one.of == of).count() < MOST_LEFT_OF_ONE);
        if let Some(watched) = all.get_mut(&pid).filter(|_| has_room) {
            watched.names.remove(name);
            watched.left.insert(name.to_owned(), Left { since: now, of });
        } else {
            drop(all);
            self.remove(pid, name);
        }
    }

    /// The process has ended: its endpoints, those too that are not registered any more.
    pub(super) fn take(&self, pid: i64) -> BTreeSet<String> {
        let taken = self.lock().remove(&pid);
        taken.map(|Watched { names, left, .. }| names.into_iter().chain(left.into_keys()).collect()).unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<i64, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A process with so many endpoints, all of which leave.
    fn leaves(processes: &Processes, pid: i64, endpoints: usize, of: Option<Account>) -> AbortHandle {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        for number in 0..endpoints {
            processes.add(pid, &format!("{pid}-{number}"), || task.clone());
        }
        for number in 0..endpoints {
            processes.leave(pid, &format!("{pid}-{number}"), of);
        }
        task
    }

    fn known(processes: &Processes, pid: i64) -> usize {
        processes.lock().get(&pid).map_or(0, |watched| watched.left.len())
    }

    #[tokio::test(start_paused = true)]
    async fn one_peer_takes_nobodys_place() {
        let processes = Processes::default();
        let (one, other) = (Some(Account::User(1)), Some(Account::User(2)));
        leaves(&processes, 1, MOST_LEFT, one);
        let second = leaves(&processes, 2, 1, one);
        tokio::task::yield_now().await;
        assert_eq!((known(&processes, 1), known(&processes, 2)), (MOST_LEFT_OF_ONE, 0), "by whichever process");
        assert!(second.is_finished(), "nobody waits for the end of that one");
        leaves(&processes, 3, 2, other);
        assert_eq!(processes.take(3), ["3-0".to_owned(), "3-1".to_owned()].into());
        for pid in 10..40 {
            leaves(&processes, pid, MOST_LEFT_OF_ONE, Some(Account::User(u32::try_from(pid).unwrap())));
        }
        assert_eq!((10..40).map(|pid| known(&processes, pid)).sum::<usize>(), MOST_LEFT - MOST_LEFT_OF_ONE);
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_waits_for_any_more_leaves_its_place() {
        let processes = Processes::default();
        let one = Some(Account::User(1));
        let task = leaves(&processes, 1, MOST_LEFT_OF_ONE, one);
        processes.add(2, "stays", || tokio::spawn(std::future::pending::<()>()).abort_handle());
        let nearly = Duration::from_secs(1);
        tokio::time::advance(ABSENCE.saturating_sub(nearly)).await;
        leaves(&processes, 3, 1, one);
        assert_eq!((known(&processes, 1), known(&processes, 3)), (MOST_LEFT_OF_ONE, 0));
        tokio::time::advance(nearly).await;
        leaves(&processes, 3, 1, one);
        tokio::task::yield_now().await;
        assert_eq!((known(&processes, 1), known(&processes, 3), task.is_finished()), (0, 1, true));
        assert_eq!(processes.take(2), ["stays".to_owned()].into(), "what is registered has no such time");
    }
}
