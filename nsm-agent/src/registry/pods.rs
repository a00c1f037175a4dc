//! Which pod a network namespace belongs to.

use async_trait::async_trait;
use nsm_fdpass::InodeId;

use crate::state::Pod;

/// What the agent knows of its node's pods.
#[async_trait]
pub trait Pods: Send + Sync + 'static {
    /// The pod that has this network namespace, if that is known.
    async fn pod_of(&self, netns: InodeId) -> Option<Pod>;
}

/// Nobody knows any.
#[async_trait]
impl Pods for () {
    async fn pod_of(&self, _: InodeId) -> Option<Pod> {
        None
    }
}
