//! Connections from before a restart of the agent: at which registration of their endpoint they were found again.
//!
//! A record names the registration that answered it only while the agent lives that saw it. Afterwards the endpoint itself says
//! which connections it still has; from then on they count as of the registration that said so.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::state::ConnectionId;

/// The connections that an earlier agent left.
pub(super) struct Places(Mutex<HashMap<ConnectionId, Option<u64>>>);

impl Places {
    /// None of them has been heard of yet.
    pub(super) fn before(ids: impl Iterator<Item = ConnectionId>) -> Self {
        Self(Mutex::new(ids.map(|id| (id, None)).collect()))
    }

    /// Whether its endpoint has still to be asked for it.
    pub(super) fn awaits(&self, id: &str) -> bool {
        self.lock().get(id).is_some_and(Option::is_none)
    }

    /// Its endpoint is asked, in its registration `place`. False: it was before.
    pub(super) fn resumed(&self, id: &str, place: u64) -> bool {
        match self.lock().get_mut(id) {
            Some(of @ None) => {
                *of = Some(place);
                true
            }
            Some(Some(_)) | None => false,
        }
    }

    /// The registration at which it was found again.
    pub(super) fn of(&self, id: &str) -> Option<u64> {
        self.lock().get(id).copied().flatten()
    }

    /// Forgets those that are no more.
    pub(super) fn retain(&self, lives: impl Fn(&str) -> bool) {
        self.lock().retain(|id, _| lives(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Option<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
