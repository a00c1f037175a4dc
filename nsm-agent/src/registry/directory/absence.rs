//! Endpoints that went although their processes may live.
//!
//! Guarantee: so many are remembered, for so long, and no more; none whose process is known to have ended, or that has said itself that it
//! goes.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use crate::registry::{Entry, Owner};

/// How long an endpoint that went is remembered: longer than any of its connections lives without a refresh.
pub(in crate::registry) const ABSENCE: Duration = Duration::from_mins(15);
/// Most endpoints that are remembered so.
const MOST_ABSENT: usize = 10_000;

/// By name.
#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<String, Away>);

#[derive(Debug)]
struct Away {
    since: Instant,
    owner: Owner,
    process: Option<i64>,
}

impl Absent {
    /// It has gone.
    pub(super) fn add(&mut self, entry: &Entry) {
        let now = Instant::now();
        self.0.retain(|_, away| now.duration_since(away.since) < ABSENCE);
        if self.0.len() < MOST_ABSENT {
            let away = Away { since: now, owner: entry.owner, process: entry.process };
            self.0.insert(entry.message.name.clone(), away);
        }
    }

    /// It is back.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// The process has ended that it was of. Whether it was awaited.
    pub(super) fn ended(&mut self, name: &str, process: i64) -> bool {
        self.remove_if(name, |away| away.process == Some(process))
    }

    /// Its owner says that it goes. Whether it was awaited.
    pub(super) fn unregistered(&mut self, name: &str, by: Owner) -> bool {
        self.remove_if(name, |away| away.owner == by)
    }

    fn remove_if(&mut self, name: &str, is_it: impl FnOnce(&Away) -> bool) -> bool {
        self.0.get(name).is_some_and(is_it) && self.0.remove(name).is_some()
    }

    /// Whether it may come back.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|away| away.since.elapsed() < ABSENCE)
    }
}
