//! DEL: the wire goes, the record goes, the endpoint is told.

use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Close};
use tonic::Status;

use super::{Server, notes::Note};
use crate::{failpoint, manager::ForAttachment, state::AttachmentKey};

impl Server {
    /// Ends an attachment; false when there was none. Calls off the ADDs of it that came before.
    pub(crate) async fn del_one(&self, key: &AttachmentKey) -> Result<bool, Status> {
        let slot = self.slot(key);
        std::mem::take(&mut *slot.deleted()).cancel();
        let _turn = slot.turn.lock().await;
        self.end(key).await
    }

    /// The same for whoever has the attachment's turn.
    pub(super) async fn end(&self, key: &AttachmentKey) -> Result<bool, Status> {
        let Some(attachment) = self.parts.attachments.get(key) else { return Ok(false) };
        let call = Call::default();
        call.note(ForAttachment(key.clone()));
        let connection = Connection {
            id: attachment.client_id.clone(),
            network_service: attachment.network_service.clone(),
            ..Connection::default()
        };
        self.parts.chain.close(Close { connection, call }).await?;
        self.parts.attachments.remove(key).await.map_err(|error| Status::internal(error.to_string()))?;
        failpoint::hit("del.attachment-removed");
        Ok(true)
    }

    /// Works off an owed DEL, unless an ADD has done so before its turn came: then the attachment is a new one.
    pub(super) async fn del_owed(&self, note: Note) -> Result<(), (AttachmentKey, Status)> {
        let key = note.key().clone();
        let slot = self.slot(&key);
        let _turn = slot.turn.lock().await;
        if note.is_owed() { self.settle(&key, note).await.map_err(|status| (key, status)) } else { Ok(()) }
    }

    /// An ADD works off the DEL that is still owed for the same key first, or it would end the new attachment.
    pub(super) async fn work_off_note(&self, key: &AttachmentKey) -> Result<(), Status> {
        match self.parts.notes.find(key).await {
            Some(note) => self.settle(key, note).await,
            None => Ok(()),
        }
    }

    async fn settle(&self, key: &AttachmentKey, note: Note) -> Result<(), Status> {
        let found = self.end(key).await?;
        note.settle().await;
        tracing::info!(container = key.container_id, ifname = key.ifname, found, "owed DEL done");
        Ok(())
    }
}
