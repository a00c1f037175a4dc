//! Marks at a pod that go with whoever set them, however the work ends.

use tokio::sync::Notify;

use super::{Follower, Key};

/// That a task works for a pod, until it ends, however it ends.
pub(super) struct Running<'a> {
    pub(super) follower: &'a Follower,
    pub(super) key: &'a Key,
    pub(super) wake: &'a Notify,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.follower.state();
        // Another task may have come already.
        if state.running.get(self.key).is_some_and(|wake| std::ptr::eq(&raw const **wake, self.wake)) {
            state.running.remove(self.key);
        }
    }
}

/// That a pod is being changed.
pub(super) struct Busy<'a> {
    follower: &'a Follower,
    key: &'a Key,
}

impl<'a> Busy<'a> {
    pub(super) fn at(follower: &'a Follower, key: &'a Key) -> Self {
        follower.state().busy.insert(key.clone());
        Self { follower, key }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.follower.state().busy.remove(self.key);
    }
}
