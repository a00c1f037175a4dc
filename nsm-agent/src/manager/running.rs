//! How many calls of one peer run at a time.
//!
//! Guarantees: a call counts as long as anything of it runs, whether its caller still waits for it or not; one too many is refused
//! at once, with RESOURCE_EXHAUSTED. What one peer does leaves room for others, and what all of them do leaves root on the host
//! its own: the runtime's and the operator's calls are not counted.

use std::sync::Arc;

use async_trait::async_trait;
use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Close, Element, Error, Kind, Next, Request};

use super::Ids;
use crate::{
    share::{CALLS, CALLS_IN_ALL, Share, Shares},
    state::Owner,
};

/// The element.
pub(super) struct Running {
    ids: Arc<Ids>,
    shares: Arc<Shares<Owner>>,
}

/// A call's place: a note, so that it goes with the last that works for the call.
#[derive(Debug, Clone)]
struct Place(#[expect(dead_code, reason = "held until it is dropped")] Arc<Share<Owner>>);

impl Running {
    /// Nothing runs yet.
    pub(super) fn new(ids: Arc<Ids>) -> Self {
        Self { ids, shares: Shares::new("calls", CALLS).in_all(CALLS_IN_ALL) }
    }

    fn enter(&self, call: &Call) -> Result<(), Error> {
        let owner = self.ids.owner(call)?;
        if let Some(share) = self.ids.share(&owner, &self.shares).map_err(|full| Error::new(Kind::Exhausted, full))? {
            call.note(Place(Arc::new(share)));
        }
        Ok(())
    }
}

#[async_trait]
impl Element for Running {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        self.enter(&request.call)?;
        next.request(request).await
    }

    async fn close(&self, close: Close, next: Next) -> Result<(), Error> {
        self.enter(&close.call)?;
        next.close(close).await
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::fd::OwnedFd, time::Duration};

    use nsm_fdpass::{Asked, InodeId, Peer, PeerNetns};
    use nsm_netlink::NetnsId;
    use nsm_sdk::{begin::Begin, chain, serve::Caller};
    use tokio::sync::Semaphore;

    use super::*;

    /// Holds the Requests of one pod until there are permits.
    struct Gate(Arc<Semaphore>);

    #[async_trait]
    impl Element for Gate {
        async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
            if request.connection.id.starts_with("held") {
                self.0.acquire().await.unwrap().forget();
            }
            next.request(request).await
        }
    }

    fn request(netns: u64, id: String) -> Request {
        let fd: OwnedFd = File::open("/proc/self/ns/net").unwrap().into();
        let netns = PeerNetns { fd: Arc::new(fd), id: InodeId { dev: 4, ino: netns } };
        let call = Call::new(Duration::from_secs(10));
        call.note(Caller::Peer(Arc::new(Peer {
            netns: Some(netns),
            pid: 1,
            uid: 0,
            gid: 0,
            process: nsm_fdpass::Process::Unseen,
            asked: Asked::default(),
        })));
        Request { connection: Connection { id, ..Connection::default() }, preferences: Vec::new(), call }
    }

    #[tokio::test]
    async fn a_call_counts_until_nothing_of_it_runs() {
        let gate = Arc::new(Semaphore::new(0));
        let running = Running::new(Ids::new("boot", NetnsId { dev: 4, ino: 1 }));
        let chain = chain![running, Begin::new().quiet(), Gate(gate.clone())];
        for number in 0..CALLS {
            // Its caller hangs up at once.
            let mut call = Box::pin(chain.request(request(2, format!("held-{number}"))));
            assert!(futures::poll!(&mut call).is_pending());
        }
        let full = chain.request(request(2, "one-more".into())).await.unwrap_err();
        assert_eq!(full.kind(), Kind::Exhausted);
        assert!(full.to_string().contains(&format!("{CALLS} calls")), "{full}");
        // Another pod, and root on the host, are served.
        chain.request(request(3, "other".into())).await.unwrap();
        chain.request(request(1, "host".into())).await.unwrap();
        gate.add_permits(CALLS);
        let served = async {
            while chain.request(request(2, "again".into())).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), served).await.expect("what has ended does not count");
    }
}
