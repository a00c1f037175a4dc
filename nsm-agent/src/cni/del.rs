//! DEL: the wire goes, the record goes, the endpoint is told.

use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Close};
use tonic::Status;

use super::Server;
use crate::{failpoint, manager::ForAttachment, state::AttachmentKey};

impl Server {
    /// Ends an attachment; false when there was none. Calls off an ADD of it that is under way.
    pub(crate) async fn del_one(&self, key: &AttachmentKey) -> Result<bool, Status> {
        let slot = self.slot(key);
        if let Some(adding) = slot.adding().as_ref() {
            adding.cancel();
        }
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

    /// An ADD works off the DEL that is still owed for the same key first, or it would end the new attachment.
    pub(super) async fn work_off_note(&self, key: &AttachmentKey) -> Result<(), Status> {
        if let Some(note) = self.parts.notes.find(key).await {
            self.end(key).await?;
            note.settle().await;
        }
        Ok(())
    }
}
