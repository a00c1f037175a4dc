//! GC: attachments of one network that the runtime no longer knows.

use std::collections::BTreeSet;

use nsm_netlink::Netns;
use nsm_proto::cni::{GcRequest, GcResponse};

use super::Server;
use crate::state::{Attachment, AttachmentKey, blocking};

impl Server {
    /// Without a list only what has lost its namespace goes: absent is not empty.
    pub(super) async fn collect(&self, asked: GcRequest) -> GcResponse {
        let valid: Option<BTreeSet<AttachmentKey>> =
            asked.valid.map(|valid| valid.keys.into_iter().map(AttachmentKey::from).collect());
        let mut answer = GcResponse::default();
        for attachment in self.parts.attachments.all() {
            if attachment.network != asked.network {
                continue;
            }
            let keep = match &valid {
                Some(valid) => valid.contains(&attachment.key),
                None => lives(&attachment).await,
            };
            if keep {
                continue;
            }
            match self.del_one(&attachment.key).await {
                Ok(_) => answer.freed.push(attachment.key.clone().into()),
                Err(status) => answer.errors.push(format!("{}: {}", attachment.key, status.message())),
            }
        }
        tracing::info!(network = asked.network, freed = answer.freed.len(), errors = answer.errors.len(), "GC");
        answer
    }
}

/// Whether the namespace of an attachment is still the one that its path names.
pub(crate) async fn lives(attachment: &Attachment) -> bool {
    let (path, recorded) = (attachment.netns_path.clone(), attachment.netns);
    blocking(move || Netns::open(path)).await.is_ok_and(|netns| netns.id() == recorded)
}
