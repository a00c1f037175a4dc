//! Endpoints that went although their processes may live.
//!
//! Guarantee: so many are remembered, for so long, and no more.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

/// How long an endpoint that went is remembered: longer than any of its connections lives without a refresh.
const ABSENCE: Duration = Duration::from_mins(15);
/// Most endpoints that are remembered so.
const MOST_ABSENT: usize = 10_000;

/// Their names, and since when they are away.
#[derive(Debug, Default)]
pub(super) struct Absent(HashMap<String, Instant>);

impl Absent {
    /// It has gone.
    pub(super) fn add(&mut self, name: &str) {
        let now = Instant::now();
        self.0.retain(|_, since| now.duration_since(*since) < ABSENCE);
        if self.0.len() < MOST_ABSENT {
            self.0.insert(name.to_owned(), now);
        }
    }

    /// It is back.
    pub(super) fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// Whether it may come back.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|since| since.elapsed() < ABSENCE)
    }
}
