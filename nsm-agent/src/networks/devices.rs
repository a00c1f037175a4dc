//! Which devices the kubelet has given a pod: its pod-resources API, version 1, on a unix socket of the node.
//!
//! Guarantees: asked only for a pod that wants a device, at most once for a plan; every call has a bound, and so has its answer.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use nsm_proto::podresources::{
    ListPodResourcesRequest, PodResources, pod_resources_lister_client::PodResourcesListerClient,
};
use tokio::time::Instant;

use crate::state::Pod;

/// Where the kubelet answers.
pub const SOCKET: &str = "/var/lib/kubelet/pod-resources/kubelet.sock";
/// Longest answer, in bytes: as much as other readers of it take.
const LONGEST: usize = 16 << 20;

/// The devices of one pod by resource, in order.
pub(super) type OfPod = HashMap<String, Vec<String>>;

/// The kubelet's word on devices. Clones share it.
#[derive(Debug, Clone)]
pub struct Devices {
    socket: Arc<Path>,
}

impl Devices {
    /// Asks there.
    pub fn at(socket: PathBuf) -> Self {
        Self { socket: socket.into() }
    }

    /// The devices of a pod.
    pub(super) async fn of_pod(&self, pod: &Pod, until: Instant) -> Result<OfPod, String> {
        let path = self.socket.display();
        let connected = nsm_fdpass::connect(&self.socket, until).await;
        let connected = connected.map_err(|error| {
            format!(
                "the kubelet's pod-resources API cannot be asked: {error}; mount its directory, or set --pod-resources"
            )
        })?;
        let mut kubelet = PodResourcesListerClient::new(connected.channel).max_decoding_message_size(LONGEST);
        let answer = tokio::time::timeout_at(until, kubelet.list(ListPodResourcesRequest {})).await;
        let all = match answer {
            Ok(Ok(answer)) => answer.into_inner().pod_resources,
            Ok(Err(status)) => {
                return Err(format!("the kubelet at {path} answered {:?}: {}", status.code(), status.message()));
            }
            Err(_) => return Err(format!("the kubelet at {path} did not answer in time")),
        };
        let of_pod = all.into_iter().find(|one| one.name == pod.name && one.namespace == pod.namespace);
        Ok(of_pod.map(by_resource).unwrap_or_default())
    }
}

fn by_resource(pod: PodResources) -> OfPod {
    let mut all = OfPod::new();
    for devices in pod.containers.into_iter().flat_map(|container| container.devices) {
        all.entry(devices.resource_name).or_default().extend(devices.device_ids);
    }
    for devices in all.values_mut() {
        devices.sort();
        devices.dedup();
    }
    all
}

#[cfg(test)]
mod tests {
    use nsm_proto::podresources::{ContainerDevices, ContainerResources};

    use super::*;

    #[test]
    fn devices_of_all_containers_in_order() {
        let devices = |resource: &str, ids: &[&str]| ContainerDevices {
            resource_name: resource.into(),
            device_ids: ids.iter().map(ToString::to_string).collect(),
        };
        let container = |devices| ContainerResources { devices, ..ContainerResources::default() };
        let pod = PodResources {
            containers: vec![
                container(vec![devices("x/a", &["2", "1"]), devices("x/b", &["9"])]),
                container(vec![devices("x/a", &["0"])]),
            ],
            ..PodResources::default()
        };
        let all = by_resource(pod);
        assert_eq!((all["x/a"].as_slice(), all["x/b"].len()), (&["0".to_owned(), "1".into(), "2".into()][..], 1));
    }
}
