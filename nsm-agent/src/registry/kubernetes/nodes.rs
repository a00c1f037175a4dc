//! Which nodes live, by what is seen of their leases.
//!
//! Guarantees: no clock is compared with another machine's, and no node is lost while this agent cannot see. What counts is how
//! often this agent has seen *its own* lease renewed, through the same watch, since the other's changed last: while the API
//! server is away, or the watch is, nobody's time runs.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// So many own renewals make one lease time.
pub(super) const RENEWALS: u32 = 4;

/// The nodes of all leases.
#[derive(Debug)]
pub(super) struct Nodes {
    me: Arc<str>,
    lease: Duration,
    ticks: u64,
    seen: HashMap<Arc<str>, Seen>,
}

#[derive(Debug)]
struct Seen {
    version: String,
    tick: u64,
    at: Instant,
    lives: bool,
}

impl Nodes {
    pub(super) fn new(me: Arc<str>, lease: Duration) -> Self {
        Self { me, lease, ticks: 0, seen: HashMap::new() }
    }

    /// Whether the node's agent renews its lease.
    pub(super) fn lives(&self, node: &str) -> bool {
        self.seen.get(node).is_some_and(|seen| seen.lives)
    }

    /// The lease of a node as it is now. Answers the nodes that came or went with it.
    pub(super) fn observed(&mut self, node: &str, version: &str, now: Instant) -> Vec<Arc<str>> {
        let node: Arc<str> = node.into();
        let ticks = self.ticks;
        let fresh = || Seen { version: String::new(), tick: ticks, at: now, lives: false };
        let seen = self.seen.entry(node.clone()).or_insert_with(fresh);
        if seen.version == version {
            return Vec::new();
        }
        version.clone_into(&mut seen.version);
        (seen.tick, seen.at) = (ticks, now);
        let mut changed = Vec::new();
        if !std::mem::replace(&mut seen.lives, true) {
            changed.push(node.clone());
        }
        if node == self.me {
            self.ticks += 1;
            changed.extend(self.overdue(now));
        }
        changed
    }

    /// The lease of a node was deleted.
    pub(super) fn deleted(&mut self, node: &str) -> Option<Arc<str>> {
        self.seen.remove_entry(node).filter(|(_, seen)| seen.lives).map(|(node, _)| node)
    }

    /// Those of them that are not among these any more.
    pub(super) fn absent(&self, listed: &std::collections::HashSet<String>) -> Vec<Arc<str>> {
        self.seen.keys().filter(|node| !listed.contains(&***node)).cloned().collect()
    }

    fn overdue(&mut self, now: Instant) -> Vec<Arc<str>> {
        let (ticks, lease) = (self.ticks, self.lease);
        let late = |seen: &Seen| ticks - seen.tick > u64::from(RENEWALS) && now.duration_since(seen.at) >= lease;
        let mut lost = Vec::new();
        for (node, seen) in &mut self.seen {
            if seen.lives && *node != self.me && late(seen) {
                seen.lives = false;
                lost.push(node.clone());
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(40);
    const RENEWAL: Duration = Duration::from_secs(10);

    #[test]
    fn a_node_is_lost_when_ours_is_renewed_and_its_own_is_not() {
        let mut nodes = Nodes::new("me".into(), LEASE);
        let mut now = Instant::now();
        assert!(!nodes.lives("other"));
        assert_eq!(nodes.observed("other", "1", now), ["other".into()]);
        let mut lost = Vec::new();
        let mut renewals = 0;
        while lost.is_empty() {
            now += RENEWAL;
            renewals += 1;
            lost = nodes.observed("me", &renewals.to_string(), now);
            lost.retain(|node| &**node != "me");
            assert!(renewals < 10, "never lost");
        }
        assert_eq!((lost, renewals), (vec!["other".into()], 5));
        assert!(!nodes.lives("other") && nodes.lives("me"));
        assert_eq!(nodes.observed("other", "1", now), [], "the same lease listed again is no life");
        assert_eq!(nodes.observed("other", "2", now), ["other".into()]);
    }

    #[test]
    fn nobody_is_lost_while_we_see_nothing() {
        let mut nodes = Nodes::new("me".into(), LEASE);
        let now = Instant::now();
        nodes.observed("other", "1", now);
        nodes.observed("me", "1", now);
        // An hour without the API server, then one renewal of ours.
        assert_eq!(nodes.observed("me", "2", now + Duration::from_hours(1)), []);
        assert!(nodes.lives("other"));
        assert_eq!(nodes.deleted("other"), Some("other".into()));
        assert!(!nodes.lives("other"));
    }
}
