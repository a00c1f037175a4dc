//! Which pod a network namespace belongs to.

use nsm_fdpass::InodeId;

use crate::state::{Attachment, Pod, Records};

/// What the agent knows of its node's pods.
pub trait Pods: Send + Sync + 'static {
    /// The pod that has this network namespace, if that is known.
    fn pod_of(&self, netns: InodeId) -> Option<Pod>;
}

/// Nobody knows any.
impl Pods for () {
    fn pod_of(&self, _: InodeId) -> Option<Pod> {
        None
    }
}

/// Pods that the CNI plugin has brought.
impl Pods for Records<Attachment> {
    fn pod_of(&self, netns: InodeId) -> Option<Pod> {
        let of_pod = |record: &Attachment| {
            let named = record.pod.as_ref().is_some_and(|pod| !pod.name.is_empty() && !pod.namespace.is_empty());
            named && (record.netns.dev, record.netns.ino) == (netns.dev, netns.ino)
        };
        self.find(of_pod).and_then(|record| record.pod.clone())
    }
}
