//! What follows from a pod as it was seen last.

use std::sync::Arc;

use super::{
    Pods,
    events::{About, Reason},
    follow::Follower,
    seen::Key,
};

/// Looks at each pod that has changed, until the end.
pub(super) async fn run(pods: Arc<Pods>, follower: Arc<Follower>) {
    let (mut sandboxes, mut asking) = (follower.sandboxes(), pods.asking.subscribe());
    follower.look_at_sandboxes().await;
    loop {
        tokio::select! {
            unsettled = pods.unsettled() => {
                for (key, call) in unsettled.added {
                    follower.added(&key, &call);
                }
                for key in unsettled.keys {
                    pods.tell_if_seen(&key);
                    if settle(&pods, &key) {
                        follower.look(&key);
                    } else {
                        follower.forget(&key);
                    }
                }
            }
            changed = sandboxes.changed() => match changed {
                Ok(()) => follower.look_at_sandboxes().await,
                Err(_) => return,
            },
            changed = asking.changed() => match changed {
                Ok(()) => follower.look_at_sandboxes().await,
                Err(_) => return,
            },
        }
    }
}

/// Says what there is to be said of a pod; false: it has gone.
fn settle(pods: &Pods, key: &Key) -> bool {
    let found = pods.seen().pod(key).cloned();
    let Some(found) = found else {
        pods.events.forget(key);
        return false;
    };
    if found.host_network && !found.annotations.is_empty() && !found.ending {
        pods.events.tell(
            About::from(&*found),
            Reason::HostNetwork,
            "nothing is made for the pod's annotation of network services: the pod has no network of its own; set hostNetwork: false, \
             or remove the annotation",
        );
    }
    true
}
