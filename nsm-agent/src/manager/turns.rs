//! Whose turn it is at an attachment.
//!
//! Guarantees: operations on one attachment run one after another, whoever begins them: the CNI plugin, an owed DEL, GC, the
//! healer. A DEL calls off the ADDs that came before it, and none that comes later; whoever ends an attachment calls off its
//! refresh or heal that waits for an endpoint.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::MutexGuard;
use tokio_util::sync::CancellationToken;

use crate::state::AttachmentKey;

/// The turns of all attachments. Clones share them.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    slots: Arc<Mutex<HashMap<AttachmentKey, Arc<Slot>>>>,
}

/// What serialises the operations of one attachment.
#[derive(Debug, Default)]
pub struct Slot {
    turn: tokio::sync::Mutex<()>,
    /// Cancelled and replaced by each DEL.
    deleted: Mutex<CancellationToken>,
    /// Cancelled and replaced by each end.
    events: Mutex<CancellationToken>,
}

impl Turns {
    /// The slot of an attachment: to be held from the beginning of an operation to its end.
    pub fn at(&self, key: &AttachmentKey) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        slots.entry(key.clone()).or_default().clone()
    }
}

impl Slot {
    /// Waits for the turn, which ends with the guard.
    pub async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// The turn, if nobody has it.
    pub fn try_turn(&self) -> Option<MutexGuard<'_, ()>> {
        self.turn.try_lock().ok()
    }

    /// For an ADD: cancelled by the first DEL from now on.
    pub fn called_off(&self) -> CancellationToken {
        self.deleted().child_token()
    }

    /// For a DEL: calls off the ADDs before it.
    pub fn call_off(&self) {
        std::mem::take(&mut *self.deleted()).cancel();
    }

    /// For a refresh or a heal, which hold the slot: cancelled by the first end of the attachment from now on.
    pub fn ended(&self) -> CancellationToken {
        self.events().child_token()
    }

    /// For whoever ends the attachment: calls off its refresh or heal.
    pub fn end(&self) {
        std::mem::take(&mut *self.events()).cancel();
    }

    fn deleted(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.deleted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> std::sync::MutexGuard<'_, CancellationToken> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> AttachmentKey {
        AttachmentKey { container_id: "pod".into(), ifname: "nsm-1".into() }
    }

    #[test]
    fn a_del_calls_off_what_came_before_it_only() {
        let slot = Turns::default().at(&key());
        let before = slot.called_off();
        slot.call_off();
        let after = slot.called_off();
        assert!(before.is_cancelled());
        assert!(!after.is_cancelled());
    }

    #[test]
    fn an_end_calls_off_events_and_no_add() {
        let turns = Turns::default();
        let slot = turns.at(&key());
        let (add, refresh) = (slot.called_off(), slot.ended());
        turns.at(&key()).end();
        assert!(refresh.is_cancelled());
        assert!(!add.is_cancelled() && !slot.ended().is_cancelled());
    }

    #[tokio::test]
    async fn turns_of_one_attachment_come_one_after_another() {
        let turns = Turns::default();
        let (first, second) = (turns.at(&key()), turns.at(&key()));
        let turn = first.turn().await;
        assert!(futures::poll!(Box::pin(second.turn())).is_pending());
        drop(turn);
        let _turn = second.turn().await;
    }

    #[test]
    fn nothing_is_kept_of_an_attachment_whose_operations_have_ended() {
        let turns = Turns::default();
        drop(turns.at(&key()));
        let other = AttachmentKey { ifname: "nsm-2".into(), ..key() };
        let _held = turns.at(&other);
        let slots = turns.slots.lock().unwrap();
        assert_eq!(slots.keys().collect::<Vec<_>>(), [&other]);
    }
}
