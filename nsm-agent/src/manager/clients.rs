//! Whose pod a client is: what decides which network services it may use.

use std::sync::Arc;

use nsm_fdpass::InodeId;
use nsm_netlink::NetnsId;
use nsm_sdk::{Call, Error};

use super::Ids;
use crate::{
    registry::{Party, Pods},
    state::{Attachment, Owner, Records},
};

/// Tells whose pod a client is.
#[derive(Clone)]
pub struct Clients {
    ids: Arc<Ids>,
    attachments: Records<Attachment>,
    pods: Arc<dyn Pods>,
}

impl Clients {
    /// By who calls, what the runtime said of attachments, and the pods of this node.
    pub fn new(ids: Arc<Ids>, attachments: Records<Attachment>, pods: Arc<dyn Pods>) -> Self {
        Self { ids, attachments, pods }
    }

    /// Whose pod makes this call.
    pub async fn calling(&self, call: &Call) -> Result<Party, Error> {
        Ok(self.of(&self.ids.owner(call)?).await)
    }

    /// Whose pod that owner is.
    pub async fn of(&self, owner: &Owner) -> Party {
        match owner {
            Owner::Attachment(key) => {
                Party::of_pod(self.attachments.get(key).and_then(|attachment| attachment.pod.clone()).as_ref())
            }
            Owner::Pod(netns) => self.in_netns(*netns).await,
            Owner::Host { pod: Some(uid), .. } => Party::of_pod(self.pods.pod_with(*uid).await.as_ref()),
            Owner::Host { .. } if self.ids.acts_for_others(owner) => Party::Operator,
            Owner::Host { .. } => Party::Unknown,
        }
    }

    /// Whose pod has that namespace.
    pub async fn in_netns(&self, netns: NetnsId) -> Party {
        Party::of_pod(self.pods.pod_of(InodeId { dev: netns.dev, ino: netns.ino }).await.as_ref())
    }
}
