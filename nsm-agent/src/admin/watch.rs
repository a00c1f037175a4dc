//! A list that is sent anew whenever one of two numbers moves.

use futures::{Stream, stream};
use nsm_proto::admin::WatchEvent;
use tokio::sync::watch::Receiver;
use tonic::Status;

/// `list` at once, and again after each change that altered it. Ends when either side ends.
pub(super) fn events(
    registry: Receiver<u64>,
    node: Receiver<u64>,
    list: impl Fn() -> Result<WatchEvent, Status> + Send + Sync + 'static,
) -> impl Stream<Item = Result<WatchEvent, Status>> + Send {
    let start = (registry, node, list, None::<WatchEvent>);
    stream::try_unfold(start, |(mut registry, mut node, list, mut last)| async move {
        loop {
            registry.borrow_and_update();
            node.borrow_and_update();
            let now = list()?;
            if last.as_ref() != Some(&now) {
                last = Some(now.clone());
                return Ok(Some((now, (registry, node, list, last))));
            }
            let alive = tokio::select! {
                changed = registry.changed() => changed.is_ok(),
                changed = node.changed() => changed.is_ok(),
            };
            if !alive {
                return Ok(None);
            }
        }
    })
}
