//! DEL: the wire goes, the record goes, the endpoint is told.

use tonic::Status;

use super::{Server, notes::Note};
use crate::{failpoint, state::AttachmentKey};

impl Server {
    /// Ends an attachment; false when there was none. Calls off the ADDs of it that came before.
    pub(super) async fn del_one(&self, key: &AttachmentKey) -> Result<bool, Status> {
        let slot = self.parts.manager.turns.at(key);
        slot.call_off();
        let _turn = slot.turn().await;
        self.end(key).await
    }

    /// Works off an owed DEL, unless an ADD has done so before its turn came: then the attachment is a new one.
    pub(super) async fn del_owed(&self, note: Note) -> Result<(), (AttachmentKey, Status)> {
        let key = note.key().clone();
        let slot = self.parts.manager.turns.at(&key);
        let _turn = slot.turn().await;
        if note.is_owed() { self.settle(&key, note).await.map_err(|status| (key, status)) } else { Ok(()) }
    }

    /// Ends what a note is about, and then the note, for whoever has the attachment's turn.
    pub(super) async fn settle(&self, key: &AttachmentKey, note: Note) -> Result<(), Status> {
        let found = self.end(key).await?;
        note.settle().await;
        tracing::info!(container = key.container_id, ifname = key.ifname, found, "owed DEL done");
        Ok(())
    }

    /// For whoever has the attachment's turn.
    async fn end(&self, key: &AttachmentKey) -> Result<bool, Status> {
        let found = self.parts.manager.detach(key).await?;
        if found {
            failpoint::hit("del.attachment-removed");
        }
        Ok(found)
    }
}
