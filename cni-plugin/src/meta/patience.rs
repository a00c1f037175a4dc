//! How long a call may take: less than whoever made it waits, so that it ends, and undoes what it made, before it is killed.
//!
//! The kubelet gives a sandbox four minutes to begin and two to end; the agent gives a change of a running pod, and a GC, one minute.

use std::time::{Duration, Instant};

/// The ends of a call's parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Of waiting for other calls of the attachment.
    pub(crate) lock: Instant,
    /// Of what it is to do.
    pub(crate) work: Instant,
    /// Of undoing that.
    pub(crate) undo: Instant,
}

impl Patience {
    /// ADD of a pod.
    pub(crate) fn of_add() -> Self {
        Self::of([60, 170, 220])
    }

    /// DEL or CHECK of a pod.
    pub(crate) fn of_del() -> Self {
        Self::of([50, 110, 110])
    }

    /// A change of a running pod, or a GC.
    pub(crate) fn of_change() -> Self {
        Self::of([10, 35, 50])
    }

    fn of(seconds: [u64; 3]) -> Self {
        let now = Instant::now();
        let [lock, work, undo] = seconds.map(|seconds| now + Duration::from_secs(seconds));
        Self { lock, work, undo }
    }
}

/// The end of one of `count` pieces of work that have to share the time until `end`.
pub(crate) fn share(end: Instant, count: usize) -> Instant {
    let now = Instant::now();
    let count = u32::try_from(count.max(1)).unwrap_or(u32::MAX);
    now + end.saturating_duration_since(now) / count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_ends_before_its_caller_gives_up() {
        let now = Instant::now();
        let callers = [(Patience::of_add(), 240), (Patience::of_del(), 120), (Patience::of_change(), 60)];
        for (patience, caller) in callers {
            assert!(patience.lock < patience.work && patience.work <= patience.undo, "{patience:?}");
            assert!(patience.undo < now + Duration::from_secs(caller - 5), "{patience:?}");
        }
    }

    #[test]
    fn time_is_shared() {
        let end = Instant::now() + Duration::from_secs(40);
        assert!(share(end, 4) + Duration::from_secs(29) < end);
        assert!(share(end, 1) <= end && share(end, 0) <= end);
        assert!(share(Instant::now(), 3) <= Instant::now());
    }
}
