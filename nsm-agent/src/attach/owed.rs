//! DELs that were owed while the agent was away are worked off.
//!
//! Guarantees: within a second of the agent's return; an ADD of the same attachment works its note off first. A DEL that fails is
//! tried again, with a growing pause.

use std::{io, time::Duration};

use futures::StreamExt;
use nsm_sdk::Error;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::{
    notes::{Changes, Note},
    state::AttachmentKey,
};

/// Most DELs that are worked off at the same time.
const AT_ONCE: usize = 32;
/// First and longest pause before a DEL that failed is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

impl Engine {
    /// Works off the notes that are there and those that come, until `stop`.
    pub async fn work_off_notes(self, changes: io::Result<Changes>, stop: CancellationToken) {
        let mut changes = match changes {
            Ok(changes) => changes,
            Err(error) => {
                tracing::error!(%error, "owed DELs are not watched: each ADD and start of the agent still works them off");
                self.work_off_all().await;
                return;
            }
        };
        let mut pause = PAUSES.0;
        loop {
            let failed = self.work_off_all().await;
            let again = async {
                match failed {
                    0 => std::future::pending().await,
                    _ => tokio::time::sleep(pause).await,
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.next() => if change.is_none() { return },
                () = again => {}
            }
            pause = if failed == 0 { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
        }
    }

    /// How many DELs failed.
    async fn work_off_all(&self) -> usize {
        // Side by side: one whose ADD still runs waits for that.
        let work = |note: Note| async move {
            let done = self.del_owed(note).await;
            if let Err((key, error)) = &done {
                tracing::error!(
                    container = key.container_id,
                    ifname = key.ifname,
                    %error,
                    "owed DEL failed: the note stays, and is tried again"
                );
            }
            usize::from(done.is_err())
        };
        let outcomes = futures::stream::iter(self.parts.notes.notes().await).map(work).buffer_unordered(AT_ONCE);
        outcomes.fold(0, async |failed, one| failed + one).await
    }

    /// Works off an owed DEL, unless an ADD has done so before its turn came: then the attachment is a new one.
    async fn del_owed(&self, note: Note) -> Result<(), (AttachmentKey, Error)> {
        let key = note.key().clone();
        let slot = self.parts.manager.turns.at(&key);
        let _turn = slot.turn().await;
        if note.is_owed() { self.settle(&key, note).await.map_err(|error| (key, error)) } else { Ok(()) }
    }

    /// Works off the DEL that is still owed for the same key, or it would end the new attachment.
    pub(super) async fn work_off_note(&self, key: &AttachmentKey) -> Result<(), Error> {
        match self.parts.notes.of(key).await {
            // Its way leads back here by way of the pod's other attachments, none of which owes anything.
            Some(note) => Box::pin(self.settle(key, note)).await,
            None => Ok(()),
        }
    }

    /// Ends what a note is about, and then the note, for whoever has the turn.
    pub(super) async fn settle(&self, key: &AttachmentKey, note: Note) -> Result<(), Error> {
        let found = self.end(key).await?;
        note.settle().await;
        tracing::info!(container = key.container_id, ifname = key.ifname, found, "owed DEL done");
        Ok(())
    }
}
