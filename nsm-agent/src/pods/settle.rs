//! What follows from a pod as it was seen last.

use std::sync::Arc;

use super::{
    Pods,
    events::{About, Reason},
    seen::Key,
};

/// Looks at each pod that has changed, until the end.
pub(super) async fn run(pods: Arc<Pods>) {
    loop {
        for key in pods.unsettled().await {
            settle(&pods, &key);
        }
    }
}

fn settle(pods: &Pods, key: &Key) {
    let found = pods.seen().pod(key).cloned();
    let Some(found) = found else { return pods.events.forget(key) };
    if found.host_network && !found.annotations.is_empty() && !found.ending {
        pods.events.tell(
            About::from(&*found),
            Reason::HostNetwork,
            "nothing is made for the pod's annotation of network services: the pod has no network of its own; set hostNetwork: false, \
             or remove the annotation",
        );
    }
}
