//! A pod that asks by annotation: 1 to n attachments that its ADD makes, and its DEL ends together with those made later.
//!
//! Guarantees: an ADD makes all or none, also when the agent is killed between two of them: one under way is recorded, and
//! undone at the next start. They are made one after another, as each endpoint has to know which prefixes the pod has by then.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use nsm_netlink::{IfName, Netns};
use nsm_sdk::{Error, Kind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Engine, Made, Spec, cancelled, exists};
use crate::{
    annotations::{self, Annotations, Named, Wish},
    failpoint,
    sandboxes::Sandbox,
    state::{Attachment, AttachmentKey, Inherited, Pod, PodAdd, Records, RoutePolicy, Source},
};

/// What the attachments of a pod have in common.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// The container, and CNI_IFNAME of the chained call.
    pub key: AttachmentKey,
    /// `name` of the network configuration.
    pub network: String,
    /// CNI_NETNS.
    pub netns_path: PathBuf,
    /// Whose they are.
    pub pod: Option<Pod>,
    /// What endpoints may do to the pod's routes.
    pub routes: RoutePolicy,
    /// Interfaces that other plugins made.
    pub taken: BTreeSet<IfName>,
}

impl PodSpec {
    /// Of the pod with this sandbox: also for what a running pod gets later.
    pub fn of(sandbox: &Sandbox) -> Self {
        let record = &sandbox.record;
        Self {
            key: sandbox.call(),
            network: record.network.clone(),
            netns_path: record.netns.clone(),
            pod: Some(sandbox.pod()).filter(|pod| *pod != Pod::default()),
            routes: RoutePolicy { default_route: record.allow_default_route, overlap: record.allow_route_overlap },
            taken: record.taken.iter().filter_map(|name| name.parse().ok()).collect(),
        }
    }

    /// The attachment for one wish.
    pub fn spec(&self, wanted: Named) -> Spec {
        let Named { interface, service, labels } = wanted;
        Spec {
            key: AttachmentKey { container_id: self.key.container_id.clone(), ifname: interface.to_string() },
            interface,
            source: Source::Annotation { ifname: self.key.ifname.clone() },
            network: self.network.clone(),
            netns_path: self.netns_path.clone(),
            network_service: service,
            labels,
            pod: self.pod.clone(),
            mac: None,
            ips: Vec::new(),
            mtu: None,
            routes: self.routes,
        }
    }
}

impl Engine {
    /// What annotations have given the pod so far.
    pub fn of_pod(&self, key: &AttachmentKey) -> Vec<Arc<Attachment>> {
        let mut all = self.parts.manager.attachments.select(|attachment| attachment.is_of_pod(key));
        all.sort_by(|a, b| a.interface.cmp(&b.interface));
        all
    }

    /// ADDs of pods that are under way.
    pub fn pod_adds(&self) -> &Records<PodAdd> {
        &self.parts.pod_adds
    }

    /// Records what the pod has of its namespace, for whoever has the pod's turn. Its DEL ends it.
    pub async fn inherit(&self, key: &AttachmentKey, annotations: Annotations) -> Result<(), Error> {
        let recorded = self.parts.inherited.put(Inherited { key: key.clone(), annotations }).await;
        recorded.map_err(|error| Error::new(if error.is_full() { Kind::Exhausted } else { Kind::Internal }, error))
    }

    /// What the pod has of its namespace, where that is recorded.
    pub fn inherited(&self, key: &AttachmentKey) -> Option<Annotations> {
        self.parts.inherited.get(key).map(|inherited| inherited.annotations.clone())
    }

    /// Which interface each wish gets, with what the pod has already.
    ///
    /// # Errors
    /// [`annotations::Error::Taken`].
    pub fn named(&self, pod: &PodSpec, wishes: &[Wish]) -> Result<Vec<Named>, annotations::Error> {
        let of_container = |one: &Attachment| one.key.container_id == pod.key.container_id;
        let all = self.parts.manager.attachments.select(of_container);
        let (ours, others): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.is_of_pod(&pod.key));
        let mut taken = pod.taken.clone();
        taken.extend(IfName::new(pod.key.ifname.as_str()));
        taken.extend(others.iter().map(|one| one.interface.clone()));
        annotations::named(wishes, ours.iter().map(|one| &***one), &taken)
    }

    /// Makes all attachments of a pod by `deadline`, or none, for whoever has the pod's turn, and records what it has of its
    /// namespace.
    ///
    /// # Errors
    /// [`Kind::Conflict`] where the pod has some already; else the first failure, with the service and the interface.
    pub async fn add_pod(
        &self,
        pod: &PodSpec,
        wishes: &[Wish],
        inherits: Option<Annotations>,
        netns: &Netns,
        deadline: Instant,
        called_off: &CancellationToken,
    ) -> Result<Vec<Made>, Error> {
        self.work_off_note(&pod.key).await?;
        if let Some(known) = self.of_pod(&pod.key).first() {
            return Err(exists(known));
        }
        let wanted = self.named(pod, wishes).map_err(|error| Error::new(Kind::Invalid, error))?;
        if wanted.is_empty() {
            if let Some(inherits) = inherits
                && let Err(error) = self.inherit(&pod.key, inherits).await
            {
                let AttachmentKey { container_id, ifname } = &pod.key;
                tracing::warn!(container = container_id, ifname, %error, "what a pod has of its namespace is not recorded: what counts is what the namespace asks for later");
            }
            return Ok(Vec::new());
        }
        let adds = &self.parts.pod_adds;
        let recorded = adds.put(PodAdd { key: pod.key.clone() }).await;
        recorded.map_err(|error| Error::new(if error.is_full() { Kind::Exhausted } else { Kind::Internal }, error))?;
        let recorded = match inherits {
            Some(inherits) => self.inherit(&pod.key, inherits).await,
            None => Ok(()),
        };
        let made = match recorded {
            Ok(()) => self.make_all(pod, wanted, netns, deadline, called_off).await,
            Err(error) => Err(error),
        };
        let made = if called_off.is_cancelled() { made.and_then(|_| Err(cancelled())) } else { made };
        let ended = match &made {
            Ok(_) => adds.remove(&pod.key).await.map_err(|error| Error::new(Kind::Internal, error)),
            Err(_) => self.end_of_pod(&pod.key).await.map(drop),
        };
        match (made, ended) {
            // With its record the next start would undo what the pod is about to use.
            (Ok(_), Err(error)) => {
                self.end_of_pod(&pod.key).await?;
                Err(error)
            }
            (made, ended) => {
                if let Err(error) = ended {
                    let AttachmentKey { container_id, ifname } = &pod.key;
                    tracing::error!(container = container_id, ifname, %error, "a failed ADD is not undone yet: its records stay until DEL");
                }
                made
            }
        }
    }

    async fn make_all(
        &self,
        pod: &PodSpec,
        wanted: Vec<Named>,
        netns: &Netns,
        deadline: Instant,
        called_off: &CancellationToken,
    ) -> Result<Vec<Made>, Error> {
        let mut all = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let (service, interface) = (wanted.service.clone(), wanted.interface.clone());
            let made = self.add(pod.spec(wanted), netns.clone(), deadline, called_off).await;
            all.push(made.map_err(|error| {
                Error::new(error.kind(), format!("network service {service:?}, interface {interface}: {error}"))
            })?);
            failpoint::hit("pod.one-made");
        }
        Ok(all)
    }

    /// Ends what annotations have given a pod, for whoever has the pod's turn; false when there was nothing.
    pub(super) async fn end_of_pod(&self, key: &AttachmentKey) -> Result<bool, Error> {
        let ends = self.of_pod(key).into_iter().map(|attachment| async move { self.detach(&attachment.key).await });
        let mut found = false;
        for ended in futures::future::join_all(ends).await {
            found |= ended?;
        }
        if self.parts.pod_adds.get(key).is_some() {
            self.parts.pod_adds.remove(key).await.map_err(|error| Error::new(Kind::Internal, error))?;
        }
        if self.parts.inherited.get(key).is_some() {
            self.parts.inherited.remove(key).await.map_err(|error| Error::new(Kind::Internal, error))?;
        }
        Ok(found)
    }

    /// Undoes the ADDs of pods that the agent before this one did not end. Nothing else may work yet.
    pub async fn recover(&self) {
        for add in self.parts.pod_adds.all() {
            let AttachmentKey { container_id, ifname } = &add.key;
            match self.end_of_pod(&add.key).await {
                Ok(found) => {
                    tracing::info!(container = container_id, ifname, found, "an ADD that was cut short is undone");
                }
                Err(error) => {
                    tracing::error!(container = container_id, ifname, %error, "an ADD that was cut short is not undone: DEL tries again");
                }
            }
        }
        self.forget_ended().await;
    }
}
