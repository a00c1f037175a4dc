//! GC: what the calls of one network have that the runtime no longer knows.
//!
//! Guarantees: without a list only what has lost its namespace goes, as absent is not empty. What becomes of a call is
//! decided in its turn (`attach/over.rs`): an ADD under way is waited for, a moment. What an annotation gave a pod is valid as long as the
//! pod's call is.

use std::{collections::BTreeSet, time::Duration};

use nsm_proto::cni::{GcRequest, GcResponse};
use tokio::time::Instant;

use super::Server;
use crate::{attach::Over, state::AttachmentKey};

/// Longest wait for the turn at one call.
const PATIENCE: Duration = Duration::from_secs(2);

/// Longest wait for all of them.
const LONGEST: Duration = Duration::from_secs(10);

/// Calls that the runtime still knows.
type Valid = BTreeSet<AttachmentKey>;

impl Server {
    /// Frees what is no longer valid, and reports each.
    pub(super) async fn collect(&self, asked: GcRequest) -> GcResponse {
        let valid: Option<Valid> = asked.valid.map(|valid| valid.keys.into_iter().map(AttachmentKey::from).collect());
        let over = if valid.is_some() { Over::Forgotten } else { Over::IfGone };
        let valid = valid.unwrap_or_default();
        let (engine, mut answer) = (&self.parts.engine, GcResponse::default());
        let end = Instant::now() + LONGEST;
        for call in engine.calls_of(&asked.network).await.difference(&valid) {
            let by = end.min(Instant::now() + PATIENCE);
            match engine.collect(call, &asked.network, over, by).await {
                Ok(freed) => answer.freed.extend(freed.into_iter().map(Into::into)),
                Err(error) => answer.errors.push(format!("{call}: {error}")),
            }
        }
        engine.prune().await;
        tracing::info!(network = asked.network, freed = answer.freed.len(), errors = answer.errors.len(), "GC");
        answer
    }
}
