//! GC: attachments of one network that the runtime no longer knows.
//!
//! Guarantees: without a list only what has lost its namespace goes, as absent is not empty. What becomes of an attachment is
//! decided in its turn: an ADD under way is waited for, a moment, and an attachment that is a new one by then is judged as such. What an
//! annotation gave a pod is valid as long as the pod's call is.

use std::{collections::BTreeSet, time::Duration};

use nsm_proto::cni::{GcRequest, GcResponse};
use nsm_sdk::{Error, Kind};
use tokio::time::Instant;

use super::Server;
use crate::state::AttachmentKey;

/// Longest wait for the turn at one attachment.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest wait for all of them.
const LONGEST: Duration = Duration::from_secs(10);

/// Attachments that the runtime still knows.
type Valid = BTreeSet<AttachmentKey>;

impl Server {
    /// Frees what is no longer valid, and reports each.
    pub(super) async fn collect(&self, asked: GcRequest) -> GcResponse {
        let valid: Option<Valid> = asked.valid.map(|valid| valid.keys.into_iter().map(AttachmentKey::from).collect());
        let mut answer = GcResponse::default();
        let end = Instant::now() + LONGEST;
        for attachment in self.parts.engine.manager().attachments.all() {
            if attachment.network != asked.network {
                continue;
            }
            match self.free_unless_valid(&attachment.key, &asked.network, valid.as_ref(), end).await {
                Ok(true) => answer.freed.push(attachment.key.clone().into()),
                Ok(false) => {}
                Err(error) => answer.errors.push(format!("{}: {error}", attachment.key)),
            }
        }
        tracing::info!(network = asked.network, freed = answer.freed.len(), errors = answer.errors.len(), "GC");
        answer
    }

    async fn free_unless_valid(
        &self,
        key: &AttachmentKey,
        network: &str,
        valid: Option<&Valid>,
        end: Instant,
    ) -> Result<bool, Error> {
        let manager = self.parts.engine.manager();
        // The pod's turn comes before its attachment's.
        let pod = manager.attachments.get(key).and_then(|attachment| attachment.pod_key());
        let pods_slot = pod.map(|pod| manager.turns.at(&pod));
        let slot = manager.turns.at(key);
        let turns = async {
            let pods_turn = match &pods_slot {
                Some(slot) => Some(slot.turn().await),
                None => None,
            };
            (pods_turn, slot.turn().await)
        };
        let Ok(_turns) = tokio::time::timeout_at(end.min(Instant::now() + PATIENCE), turns).await else {
            return Err(Error::new(
                Kind::Unavailable,
                "another operation on it has not ended yet: the next GC looks again",
            ));
        };
        let Some(attachment) = manager.attachments.get(key).filter(|attachment| attachment.network == network) else {
            return Ok(false);
        };
        let keep = match valid {
            Some(valid) => valid.contains(&attachment.call_key()),
            None => !manager.pods_netns(&attachment).await.is_gone(),
        };
        if keep { Ok(false) } else { manager.detach(key).await }
    }
}
