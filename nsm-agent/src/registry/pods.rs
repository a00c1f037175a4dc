//! Which pod a network namespace, or a process in the host's, belongs to.

use async_trait::async_trait;
use nsm_fdpass::InodeId;

use super::Owner;
use crate::{processes::PodUid, state::Pod};

/// What the agent knows of its node's pods.
#[async_trait]
pub trait Pods: Send + Sync + 'static {
    /// The pod that has this network namespace, if that is known.
    async fn pod_of(&self, netns: InodeId) -> Option<Pod>;

    /// The pod that a kubelet knows by this uid, if it has been seen.
    async fn pod_with(&self, uid: PodUid) -> Option<Pod>;

    /// The pod of who registers, if there is one and it is known.
    async fn pod_of_owner(&self, owner: Owner) -> Option<Pod> {
        match owner {
            Owner::Operator | Owner::Elsewhere | Owner::Departed => None,
            Owner::Peer { netns, .. } => self.pod_of(netns).await,
            Owner::PodOfHost(uid) => self.pod_with(uid).await,
        }
    }
}

/// Nobody knows any.
#[async_trait]
impl Pods for () {
    async fn pod_of(&self, _: InodeId) -> Option<Pod> {
        None
    }

    async fn pod_with(&self, _: PodUid) -> Option<Pod> {
        None
    }
}
