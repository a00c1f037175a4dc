//! Which connections are being healed, and how patiently: one that is lost again right after is no reason to hurry.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{FIRST, LONGEST};
use crate::state::ConnectionId;

/// A connection that stood so long is well.
const WELL: Duration = Duration::from_secs(30);

/// The connections that are being healed, or were a moment ago.
#[derive(Default)]
pub(super) struct Patients {
    all: Mutex<HashMap<ConnectionId, Patient>>,
    /// Moves with each change of them.
    changes: watch::Sender<u64>,
}

/// A connection that is not healed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ailment {
    /// Why the last attempt failed.
    pub why: String,
    /// How many have failed.
    pub failures: u32,
}

enum Patient {
    Healing {
        /// Something was heard of it since it was last looked at.
        heard: bool,
        /// What failed so far.
        ailment: Option<Ailment>,
    },
    Healed {
        at: Instant,
        /// The pause that was next.
        pause: Duration,
    },
}

/// How to begin to heal.
pub(super) enum Begin {
    /// At once.
    AtOnce,
    /// After this pause: it did not hold.
    After(Duration),
}

impl Patients {
    /// Whether it is being healed.
    pub(super) fn contains(&self, id: &str) -> bool {
        matches!(self.lock().get(id), Some(Patient::Healing { .. }))
    }

    /// It is the caller's to heal; `None`: somebody does already, who then looks again.
    pub(super) fn begin(&self, id: &str) -> Option<Begin> {
        let mut all = self.lock();
        all.retain(|_, patient| match patient {
            Patient::Healing { .. } => true,
            Patient::Healed { at, .. } => at.elapsed() < WELL,
        });
        let begin = match all.get_mut(id) {
            Some(Patient::Healing { heard, .. }) => {
                *heard = true;
                return None;
            }
            Some(Patient::Healed { pause, .. }) => Begin::After(*pause),
            None => Begin::AtOnce,
        };
        all.insert(id.to_owned(), Patient::Healing { heard: false, ailment: None });
        Some(begin)
    }

    /// Ends the healing, unless something was heard meanwhile; `pause` is the one that would have come next.
    pub(super) fn is_over(&self, id: &str, pause: Duration) -> bool {
        let mut all = self.lock();
        if let Some(Patient::Healing { heard: heard @ true, .. }) = all.get_mut(id) {
            *heard = false;
            return false;
        }
        all.insert(id.to_owned(), Patient::Healed { at: Instant::now(), pause });
        drop(all);
        self.moved();
        true
    }

    /// An attempt to heal it has failed.
    pub(super) fn failed(&self, id: &str, why: &str) {
        if let Some(Patient::Healing { ailment, .. }) = self.lock().get_mut(id) {
            let failures = ailment.as_ref().map_or(0, |before| before.failures).saturating_add(1);
            *ailment = Some(Ailment { why: why.to_owned(), failures });
        }
        self.moved();
    }

    /// What keeps it from being healed.
    pub(super) fn ailment(&self, id: &str) -> Option<Ailment> {
        match self.lock().get(id) {
            Some(Patient::Healing { ailment, .. }) => ailment.clone(),
            Some(Patient::Healed { .. }) | None => None,
        }
    }

    /// A number that moves when a connection fails to be healed, or is healed.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn moved(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The agent is ending, or nothing is left to heal.
    pub(super) fn forget(&self, id: &str) {
        self.lock().remove(id);
        self.moved();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Patient>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause after one.
pub(super) fn longer(pause: Duration) -> Duration {
    (pause * 2).clamp(FIRST, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_heard_meanwhile_is_looked_at() {
        let patients = Patients::default();
        assert!(matches!(patients.begin("a"), Some(Begin::AtOnce)));
        assert!(patients.begin("a").is_none());
        assert!(!patients.is_over("a", FIRST));
        assert!(patients.is_over("a", FIRST));
        assert!(!patients.contains("a"));
    }

    #[test]
    fn what_fails_is_known_until_it_is_healed() {
        let patients = Patients::default();
        patients.failed("a", "nobody said that it is ill");
        assert_eq!(patients.ailment("a"), None);
        patients.begin("a");
        let mut changes = patients.changes();
        patients.failed("a", "no");
        patients.failed("a", "no endpoint");
        assert_eq!(patients.ailment("a"), Some(Ailment { why: "no endpoint".into(), failures: 2 }));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        patients.is_over("a", FIRST);
        assert!(patients.ailment("a").is_none() && changes.has_changed().unwrap());
    }

    #[test]
    fn one_that_does_not_hold_waits() {
        let patients = Patients::default();
        patients.begin("a");
        patients.is_over("a", longer(FIRST));
        assert!(matches!(patients.begin("a"), Some(Begin::After(pause)) if pause == FIRST * 2));
        patients.forget("a");
        assert!(matches!(patients.begin("a"), Some(Begin::AtOnce)));
    }
}
