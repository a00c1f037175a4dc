//! The annotations by which a pod asks for network services, [as they are read](nsm_sdk::annotations), and what the agent makes
//! of them: each wish gets an interface.
//!
//! Guarantees: the same wishes get the same names; a wish without a name keeps the interface that it has.

mod names;

use async_trait::async_trait;
use tokio::time::Instant;

pub use names::{Named, named};
pub use nsm_sdk::annotations::{Annotations, Asked, Error, LONGEST, MOST, Wish};

use crate::state::{AttachmentKey, Pod};

/// Knows the annotations of pods by other means than the CNI call: a watch of the API server.
#[async_trait]
pub trait Elsewhere: Send + Sync + 'static {
    /// What a pod that starts asks for, its namespace's annotations included. `None`: it is not known by `deadline`, which is
    /// waited for; what the pod asks for is then made when it is known.
    async fn asked(&self, pod: &Pod, deadline: Instant) -> Option<Asked>;

    /// What a namespace asks for its pods. `None`: it is not known by `deadline`, which is waited for.
    async fn of_namespace(&self, namespace: &str, deadline: Instant) -> Option<Annotations>;

    /// Hears that a pod's ADD has ended well, whatever it made.
    fn added(&self, _pod: &Pod, _call: &AttachmentKey) {}

    /// Hears that what a pod asks for was refused at its ADD, and why.
    fn refused(&self, _pod: &Pod, _why: &str) {}
}

/// There is no such means: the runtime's word and the host's files are all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

#[async_trait]
impl Elsewhere for Nowhere {
    async fn asked(&self, _: &Pod, _: Instant) -> Option<Asked> {
        None
    }

    async fn of_namespace(&self, _: &str, _: Instant) -> Option<Annotations> {
        None
    }
}

#[cfg(test)]
mod tests;
