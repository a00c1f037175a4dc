//! What follows from a pod as it was seen last.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep_until};

use super::{
    Pods,
    events::{About, Reason},
    follow::Follower,
    seen::Key,
};

/// From a change among the records of sandboxes to the look at them. Records come as ADDs begin: many at a time, and nothing is
/// to be done for them before their ADDs have ended.
const TOGETHER: Duration = Duration::from_millis(50);

/// Looks at each pod that has changed, until the end.
pub(super) async fn run(pods: Arc<Pods>, follower: Arc<Follower>) {
    let (mut sandboxes, mut asking) = (follower.sandboxes(), pods.asking.subscribe());
    follower.look_at_sandboxes().await;
    let mut look_at = None;
    loop {
        tokio::select! {
            () = when(look_at) => {
                look_at = None;
                follower.look_at_sandboxes().await;
            }
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
            changed = sandboxes.changed(), if look_at.is_none() => match changed {
                Ok(()) => look_at = Some(Instant::now() + TOGETHER),
                Err(_) => return,
            },
            changed = asking.changed() => match changed {
                Ok(()) => follower.look_at_sandboxes().await,
                Err(_) => return,
            },
        }
    }
}

async fn when(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
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
