//! ADD: what the plugin asks, read; then the engine's affair.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nsm_cni_types::Mechanism;
use nsm_netlink::{IfName, Mtu, Netns};
use nsm_proto::cni::{AddRequest, AddResponse};
use nsm_sdk::{Error, Kind, serve::Connection as Socket};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::Server;
use crate::{
    attach::{Spec, answer},
    netns::passed,
    state::{AttachmentKey, Pod, RoutePolicy, Source},
};

/// Longest ADD, whatever the plugin says.
const LONGEST: Duration = Duration::from_mins(2);

impl Server {
    /// Takes the namespace that the plugin passed with its call.
    pub(super) async fn passed_netns(&self, socket: &Socket, url: &str) -> Result<Netns, Status> {
        let id = url.parse::<nsm_fdpass::InodeId>().map_err(|error| Status::invalid_argument(error.to_string()))?;
        let file = socket.inbox.take(id).ok_or_else(|| {
            Status::invalid_argument(format!("the call names the network namespace {url} and did not pass it"))
        })?;
        let known = self.parts.engine.own_netns();
        let taken = passed(Arc::new(file), known).await;
        taken.map_err(|error| Status::invalid_argument(error.to_string()))
    }

    /// Connects, unless it is called off: then nothing is left of it when its turn ends.
    pub(super) async fn add_one(
        &self,
        key: &AttachmentKey,
        asked: AddRequest,
        netns: Netns,
        called_off: CancellationToken,
    ) -> Result<AddResponse, Status> {
        let deadline = deadline(asked.timeout_ms);
        let made = self.parts.engine.add(spec(key, asked)?, netns, deadline, &called_off).await?;
        Ok(answer(&made.attachment, &made.connection, &made.wire))
    }
}

/// When the plugin gives up.
pub(super) fn deadline(timeout_ms: u32) -> Instant {
    Instant::now() + Duration::from_millis(timeout_ms.into()).clamp(Duration::from_secs(1), LONGEST)
}

/// The pod as the plugin names it.
pub(super) fn pod(pod: nsm_proto::cni::Pod) -> Pod {
    Pod { name: pod.name, namespace: pod.namespace, uid: pod.uid }
}

fn spec(key: &AttachmentKey, asked: AddRequest) -> Result<Spec, Error> {
    let invalid = |what: String| Error::new(Kind::Invalid, what);
    // The only one there is: the engine asks for it.
    let Mechanism::Kernel = Mechanism::parse(&asked.mechanism).map_err(|error| invalid(error.to_string()))?;
    let mac = match asked.mac.as_str() {
        "" => None,
        text => Some(text.parse().map_err(|error| invalid(format!("mac {text:?}: {error}")))?),
    };
    let mtu = match asked.mtu {
        0 => None,
        mtu => Some(Mtu::new(mtu).map_err(|error| invalid(error.to_string()))?),
    };
    let interface = if asked.interface.is_empty() { &key.ifname } else { &asked.interface };
    let interface = IfName::new(interface.as_str()).map_err(|error| invalid(error.to_string()))?;
    Ok(Spec {
        key: key.clone(),
        interface,
        source: Source::Configuration,
        network: asked.network,
        netns_path: PathBuf::from(asked.netns_path),
        network_service: asked.network_service,
        labels: asked.labels.into_iter().collect(),
        pod: asked.pod.map(pod),
        mac,
        ips: asked.ips,
        mtu,
        routes: RoutePolicy { default_route: asked.allow_default_route, overlap: asked.allow_route_overlap },
    })
}
