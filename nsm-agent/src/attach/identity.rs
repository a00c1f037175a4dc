//! Who a pod is to its endpoints when its sandbox is made again.
//!
//! Guarantees: at most one attachment has a pod's identity for an interface; the newest sandbox is the pod. Turns are taken in
//! one order: the new attachment's, the identity's, the earlier attachment's. Whoever has the last one waits for none of the
//! others: an ADD records its attachment only while it has the identity's.

use std::sync::Arc;

use nsm_sdk::Error;

use super::Engine;
use crate::{
    manager::Slot,
    state::{Attachment, AttachmentKey},
};

impl Engine {
    /// The turn of the pod's identity for this interface, where it has one that outlives its sandbox.
    pub(super) fn identity(&self, attachment: &Attachment) -> Option<Arc<Slot>> {
        if attachment.client_id == attachment.key.client_id() {
            return None;
        }
        // Not the name of any attachment: no container id is empty.
        let key = AttachmentKey { container_id: String::new(), ifname: attachment.client_id.clone() };
        Some(self.parts.manager.turns.at(&key))
    }

    /// Ends the attachment that an earlier sandbox of the same pod still has, for whoever has the identity's turn.
    pub(super) async fn end_earlier_sandbox(&self, attachment: &Attachment) -> Result<(), Error> {
        let manager = &self.parts.manager;
        let earlier = |other: &Attachment| other.client_id == attachment.client_id && other.key != attachment.key;
        while let Some(earlier) = manager.attachments.find(earlier) {
            let slot = manager.turns.at(&earlier.key);
            let _turn = slot.turn().await;
            if self.end_one(&earlier.key).await? {
                let (container, before) = (&attachment.key.container_id, &earlier.key.container_id);
                tracing::info!(
                    container,
                    before,
                    ifname = attachment.key.ifname,
                    "the pod has a new sandbox: the attachment of the one before is ended"
                );
            }
        }
        Ok(())
    }
}
