//! From what a pod has to what it asks for.
//!
//! Guarantees: what is as wanted is not touched; what cannot be had keeps nothing else waiting for longer than one try; of a
//! namespace's pods at most [`SHARE`] attachments are made at the same time.

use std::{sync::Arc, time::Duration};

use nsm_netlink::Netns;
use nsm_sdk::{Error, Kind};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{AT_ONCE, Follower, Missing};
use crate::{
    annotations::{Asked, Named},
    attach::PodSpec,
    pods::{
        events::{About, Reason},
        seen::Found,
    },
};

/// Most attachments that are made at the same time in one namespace.
const SHARE: usize = AT_ONCE / 2;
/// Longest wait for one attachment.
const ATTACHING: Duration = Duration::from_secs(15);

impl Follower {
    /// Makes and ends what is to be made and ended, for whoever has the pod's turn. Answers what is missing then; none when it was
    /// called off.
    pub(super) async fn converge(
        &self,
        found: &Arc<Found>,
        spec: &PodSpec,
        netns: &Netns,
        called_off: &CancellationToken,
    ) -> Option<Vec<Missing>> {
        let namespace = self.engine.inherited(&spec.key).unwrap_or_default();
        let asked = Asked { pod: found.annotations.clone(), namespace };
        let wanted = asked.wishes().and_then(|wishes| self.engine.named(spec, &wishes));
        let mut wanted = match wanted {
            Ok(wanted) => wanted,
            Err(error) => {
                let why = format!("nothing is changed: {error}");
                tracing::warn!(pod = %found.key, %error, "the annotations of a pod cannot be followed");
                self.pods.events.tell(About::from(&**found), Reason::Refused, &why);
                return Some(Vec::new());
            }
        };
        let attached = self.engine.of_pod(&spec.key);
        let unwanted = attached.iter().filter(|one| !wanted.iter().any(|wanted| wanted.is(one)));
        let mut missing = Vec::new();
        for one in unwanted {
            match self.engine.detach(&one.key).await {
                Ok(_) => {
                    tracing::info!(pod = %found.key, ifname = %one.interface, service = one.network_service, "detached");
                }
                Err(error) => missing.push(Missing {
                    service: one.network_service.clone(),
                    interface: one.interface.to_string(),
                    why: format!("it is not detached yet: {error}"),
                }),
            }
        }
        // What failed last comes last, so that it keeps nothing else waiting.
        let failed = self.missing(&found.key);
        wanted.sort_by_key(|wanted| failed.iter().position(|one| one.interface == wanted.interface.as_str()));
        wanted.retain(|wanted| !attached.iter().any(|one| wanted.is(one)));
        let mut wanted = wanted.into_iter();
        while let Some(next) = wanted.next() {
            if called_off.is_cancelled() || self.stop.is_cancelled() {
                return None;
            }
            if let Err((refused, error)) = self.attach(found, spec, next, netns, called_off).await {
                if called_off.is_cancelled() || self.sandbox(found).await.is_none() {
                    return None;
                }
                let Named { service, interface, .. } = refused;
                tracing::warn!(pod = %found.key, service, ifname = %interface, %error, "not attached yet");
                let why = format!("network service {service:?}, interface {interface}: {error}");
                self.pods.events.tell(About::from(&**found), Reason::Refused, &why);
                let refused = Missing { service, interface: interface.to_string(), why: error.to_string() };
                // One that does not answer is enough of a round: the others come before it in the next one.
                if error.kind() == Kind::Deadline {
                    let before = |next: &Named| failed.iter().find(|one| one.interface == next.interface.as_str());
                    missing.extend(wanted.as_slice().iter().filter_map(before).cloned());
                    missing.push(refused);
                    break;
                }
                missing.push(refused);
            }
        }
        Some(missing)
    }

    async fn attach(
        &self,
        found: &Found,
        spec: &PodSpec,
        wanted: Named,
        netns: &Netns,
        called_off: &CancellationToken,
    ) -> Result<(), (Named, Error)> {
        // A place for one attachment, not for all that a pod asks for; of a namespace's pods half of the places at most.
        let share = self.share_of(&found.key.namespace);
        let (Ok(_share), Ok(_place)) = (share.acquire().await, self.places.acquire().await) else {
            return Err((wanted, Error::new(Kind::Unavailable, "the agent is ending")));
        };
        let (deadline, began) = (Instant::now() + ATTACHING, Instant::now());
        let made = self.engine.add(spec.spec(wanted.clone()), netns.clone(), deadline, called_off).await;
        let made = made.map_err(|error| (wanted, error))?;
        let (service, duration_ms) = (made.attachment.network_service, crate::cni::milliseconds(began.elapsed()));
        tracing::info!(pod = %found.key, ifname = %made.attachment.interface, service, duration_ms, "attached");
        Ok(())
    }

    /// The places of a namespace's pods.
    fn share_of(&self, namespace: &Arc<str>) -> Arc<Semaphore> {
        let mut state = self.state();
        state.shares.retain(|_, share| Arc::strong_count(share) > 1);
        state.shares.entry(namespace.clone()).or_insert_with(|| Arc::new(Semaphore::new(SHARE))).clone()
    }
}
