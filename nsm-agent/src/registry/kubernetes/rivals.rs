//! Whether another agent renews this node's lease: two that were given one node name take each other's endpoints away.
//!
//! Guarantee: an agent that restarted is none. Its predecessor's word may still come; what comes again after this agent has renewed is
//! another's that lives.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// So many renewals of another's, after one of ours, are no accident.
const CERTAIN: u32 = 2;

/// Who else renews this node's lease. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Rivals(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// This agent, once its word has been seen.
    me: Option<String>,
    others: HashMap<String, (u32, Instant)>,
    /// Of the lease as it was seen last: a list shows it again.
    version: String,
}

impl Rivals {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lease was renewed by this agent.
    pub(super) fn renewed(&self, me: &str) {
        self.state().me.get_or_insert_with(|| me.to_owned());
    }

    /// The lease as it was seen. Answers whether it is now certain that another agent renews it.
    pub(super) fn observed(&self, holder: &str, version: &str, now: Instant) -> bool {
        let mut state = self.state();
        if std::mem::replace(&mut state.version, version.to_owned()) == version {
            return false;
        }
        if state.me.as_deref().is_none_or(|me| me == holder) {
            return false;
        }
        // There are a few at most; whoever changes its name at each renewal is none of ours.
        if state.others.len() >= 8 && !state.others.contains_key(holder) {
            state.others.clear();
        }
        let seen = state.others.entry(holder.to_owned()).or_insert((0, now));
        *seen = (seen.0 + 1, now);
        seen.0 == CERTAIN
    }

    /// Another agent that has renewed the lease of late.
    pub fn of_late(&self, within: Duration) -> Option<String> {
        let state = self.state();
        let certain = state.others.iter().filter(|(_, (times, at))| *times >= CERTAIN && at.elapsed() < within);
        certain.max_by_key(|(_, (_, at))| *at).map(|(holder, _)| holder.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_predecessor_is_no_rival_and_who_goes_on_is() {
        let (rivals, now) = (Rivals::default(), Instant::now());
        for version in ["1", "2", "3"] {
            assert!(!rivals.observed("before", version, now), "before our first word it may be anybody's");
        }
        rivals.renewed("me");
        for _ in 0..3 {
            assert!(!rivals.observed("before", "4", now), "its last word may come late, and be listed again");
        }
        assert!(!rivals.observed("me", "5", now));
        assert_eq!(rivals.of_late(Duration::from_mins(1)), None);
        assert!(rivals.observed("before", "6", now), "it renews again");
        assert!(!rivals.observed("before", "7", now), "that is said once");
        assert_eq!(rivals.of_late(Duration::from_mins(1)).as_deref(), Some("before"));
        assert_eq!(rivals.of_late(Duration::ZERO), None, "it has stopped");
    }
}
