//! ADD of a pod that may ask by annotation: what it asks for, from whoever knows it.
//!
//! Guarantees: annotations that the runtime gave are the pod's; the namespace's come from the host's files, which outlive this
//! agent. Without the runtime's word, or before the files are there, whoever watches the API server is waited for, for half of the
//! ADD's time at most; what is not known by then the pod starts without, and gets when it is known.

use std::{collections::BTreeSet, path::PathBuf};

use nsm_netlink::{IfName, Netns};
use nsm_proto::cni::{AddPodRequest, AddResponse};
use nsm_sdk::{Error, Kind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    Server,
    add::{deadline, pod},
};
use crate::{
    annotations::{Annotations, Asked},
    attach::{Made, PodSpec, answer},
    manager::Slot,
    state::{AttachmentKey, Pod, RoutePolicy},
};

impl Server {
    /// Makes what the pod asks for, all or nothing.
    pub(super) async fn add_pod_one(
        &self,
        key: &AttachmentKey,
        slot: &Slot,
        asked: AddPodRequest,
        netns: Netns,
        called_off: CancellationToken,
    ) -> Result<AddResponse, Status> {
        let deadline = deadline(asked.timeout_ms);
        let given = asked.annotations.clone();
        let spec = spec(key, asked);
        let _turn = tokio::select! {
            turn = slot.turn() => turn,
            () = called_off.cancelled() => return Err(Status::cancelled("called off: by DEL, or because the plugin has gone")),
            () = tokio::time::sleep_until(deadline) => {
                return Err(Status::unavailable(format!("another operation on pod {key} did not end in time")));
            }
        };
        let made = self.make_for_pod(given, &spec, &netns, deadline, &called_off).await;
        match (&made, &spec.pod) {
            (Ok(_), Some(pod)) => self.parts.elsewhere.added(pod, key),
            (Err(status), Some(pod)) if !called_off.is_cancelled() => {
                self.parts.elsewhere.refused(pod, status.message());
            }
            _ => {}
        }
        Ok(joined(&made?))
    }

    async fn make_for_pod(
        &self,
        given: Option<nsm_proto::cni::Annotations>,
        spec: &PodSpec,
        netns: &Netns,
        deadline: Instant,
        called_off: &CancellationToken,
    ) -> Result<Vec<Made>, Status> {
        let Known { asked, inherits } = self.asked(given, spec.pod.as_ref(), deadline).await?;
        let wishes = asked.wishes().map_err(|error| Error::new(Kind::Invalid, error))?;
        Ok(self.parts.engine.add_pod(spec, &wishes, inherits, netns, deadline, called_off).await?)
    }

    /// What the pod asks for.
    async fn asked(
        &self,
        given: Option<nsm_proto::cni::Annotations>,
        pod: Option<&Pod>,
        deadline: Instant,
    ) -> Result<Known, Status> {
        let now = Instant::now();
        let half = now + deadline.saturating_duration_since(now) / 2;
        let Some(given) = given else {
            let Some(pod) = pod else { return Ok(Known::default()) };
            let asked = self.parts.elsewhere.asked(pod, half).await;
            if asked.is_none() {
                tracing::warn!(
                    pod = pod.name,
                    namespace = pod.namespace,
                    "the runtime gives no annotations, and nobody knows yet what this pod asks for: it starts without"
                );
            }
            let inherits = asked.as_ref().map(|asked| asked.namespace.clone());
            return Ok(Known { asked: asked.unwrap_or_default(), inherits });
        };
        let of_pod = Annotations::of(|key| match key {
            nsm_cni_types::pods::ANNOTATION => Some(given.services.as_str()),
            nsm_cni_types::pods::ANNOTATION_2019 => Some(given.services_2019.as_str()),
            _ => None,
        });
        let Some(pod) = pod else {
            return Ok(Known { asked: Asked { pod: of_pod, ..Asked::default() }, inherits: None });
        };
        let written = self.parts.namespaces.annotations(pod.namespace.clone()).await.map_err(|error| {
            Status::internal(format!("the annotations of namespace {:?} cannot be read: {error}", pod.namespace))
        })?;
        let inherits = match written {
            Some(none) if none.is_empty() => None,
            Some(written) => Some(written),
            None => {
                let seen = self.parts.elsewhere.of_namespace(&pod.namespace, half).await;
                if seen.is_none() {
                    tracing::warn!(
                        pod = pod.name,
                        namespace = pod.namespace,
                        "nobody knows yet what the namespace of this pod asks for: it starts without"
                    );
                }
                seen
            }
        };
        let namespace = inherits.clone().unwrap_or_default();
        Ok(Known { asked: Asked { pod: of_pod, namespace }, inherits })
    }
}

/// What is known of a pod that starts.
#[derive(Default)]
struct Known {
    asked: Asked,
    /// What the pod is to keep of its namespace: of one that the files say nothing of also that it asks for nothing.
    inherits: Option<Annotations>,
}

fn spec(key: &AttachmentKey, asked: AddPodRequest) -> PodSpec {
    PodSpec {
        key: key.clone(),
        network: asked.network,
        netns_path: PathBuf::from(asked.netns_path),
        pod: asked.pod.map(pod),
        routes: RoutePolicy { default_route: asked.allow_default_route, overlap: asked.allow_route_overlap },
        // What is no interface's name for us cannot be asked for either.
        taken: asked.taken.into_iter().filter_map(|name| IfName::new(name).ok()).collect::<BTreeSet<_>>(),
    }
}

/// One result of all that was made, in the order of the wishes.
fn joined(made: &[Made]) -> AddResponse {
    let mut all = AddResponse::default();
    for one in made {
        let one = answer(&one.attachment, &one.connection, &one.wire);
        let before = u32::try_from(all.interfaces.len()).unwrap_or(u32::MAX);
        all.interfaces.extend(one.interfaces);
        all.ips.extend(one.ips.into_iter().map(|mut ip| {
            ip.interface = ip.interface.saturating_add(before);
            ip
        }));
        all.routes.extend(one.routes);
        if let Some(dns) = one.dns {
            let joined = all.dns.get_or_insert_default();
            joined.nameservers.extend(dns.nameservers);
            joined.search.extend(dns.search);
        }
    }
    all
}
