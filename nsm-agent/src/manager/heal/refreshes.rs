//! The element that tells the healer of refreshes of the CNI plugin's connections that failed.

use async_trait::async_trait;
use nsm_proto::connection::{Connection, State};
use nsm_sdk::{Close, Element, Error, Next, Request, begin::Origin};
use tokio::sync::mpsc::UnboundedSender;

use crate::{manager::ForAttachment, state::AttachmentKey};

/// A refresh that failed.
pub(crate) struct NotRefreshed {
    /// Of this attachment's connection.
    pub(crate) attachment: AttachmentKey,
}

/// The element. Its place is right behind the `begin` of the attachments.
pub(crate) struct Refreshes(pub(crate) UnboundedSender<NotRefreshed>);

#[async_trait]
impl Element for Refreshes {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let by_event = request.call.noted::<Origin>() == Some(Origin::Event);
        let call = request.call.clone();
        let reselects = request.connection.state() == State::ReselectRequested;
        let outcome = next.request(request).await;
        if by_event
            && !reselects
            && outcome.is_err()
            && let Some(ForAttachment(attachment)) = call.noted()
        {
            // The healer has gone when the agent is ending.
            let _ = self.0.send(NotRefreshed { attachment });
        }
        outcome
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        next.close(close).await
    }
}
