//! Pods of a cluster, with the user's own credentials.
//!
//! Guarantee: each call takes the time of `--timeout` at most.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::api::core::v1;
use kube::{
    Api, Client,
    api::{Patch, PatchParams, WatchEvent, WatchParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::PartialObjectMeta,
};
use nsm_apiserver::{Failure, bounded, chain};
use serde_json::{Map, Value, json};
use tokio_stream::StreamExt;

use crate::{cli, error::Error};

/// Longest watch, in seconds; another follows.
const WATCH: u32 = 60;

/// The pods of one namespace.
pub(super) struct Cluster {
    pods: Api<v1::Pod>,
    namespace: String,
    timeout: Duration,
}

/// A pod, as far as it matters.
pub(super) struct Pod(PartialObjectMeta<v1::Pod>);

impl Pod {
    pub(super) fn annotations(&self) -> Option<&BTreeMap<String, String>> {
        self.0.metadata.annotations.as_ref()
    }
}

impl Cluster {
    /// As kubectl finds it: `--kubeconfig`, `KUBECONFIG`, the file in the home directory, or the pod's own account.
    pub(super) async fn connect(on: &cli::OnPod, timeout: Duration) -> Result<Self, Error> {
        let options = KubeConfigOptions { context: on.context.clone(), ..KubeConfigOptions::default() };
        let wrong = |error: &dyn std::error::Error| Error::Cluster(format!("no way to a cluster: {}", chain(error)));
        let config = match &on.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|error| wrong(&error))?;
                kube::Config::from_custom_kubeconfig(file, &options).await.map_err(|error| wrong(&error))?
            }
            None if on.context.is_some() => {
                kube::Config::from_kubeconfig(&options).await.map_err(|error| wrong(&error))?
            }
            None => kube::Config::infer().await.map_err(|error| wrong(&error))?,
        };
        let namespace = on.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| wrong(&error))?;
        Ok(Self { pods: Api::namespaced(client, &namespace), namespace, timeout })
    }

    /// The pod of that name.
    pub(super) async fn pod(&self, name: &str) -> Result<Pod, Error> {
        match self.bounded(self.pods.get_metadata_opt(name)).await? {
            Some(pod) => Ok(Pod(pod)),
            None => Err(Error::Refused(format!(
                "pod {name:?} is not in namespace {}: name its namespace with -n",
                self.namespace
            ))),
        }
    }

    /// Changes annotations of a pod; false when somebody else wrote since it was read.
    pub(super) async fn annotate(&self, pod: &Pod, annotations: Map<String, Value>) -> Result<bool, Error> {
        let metadata = &pod.0.metadata;
        let change = json!({ "metadata": {
            "uid": metadata.uid, "resourceVersion": metadata.resource_version, "annotations": annotations,
        } });
        let name = metadata.name.as_deref().unwrap_or_default();
        let patch = Patch::Merge(change);
        let parameters = PatchParams::default();
        match bounded(self.timeout, self.pods.patch_metadata(name, &parameters, &patch)).await {
            Ok(_) => Ok(true),
            Err(Failure::Conflict(_)) => Ok(false),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
        Ok(bounded(self.timeout, call).await?)
    }

    /// Looks at a pod with each of its changes, until `enough` says so. Without a bound.
    pub(super) async fn follow(&self, name: &str, mut enough: impl FnMut(&Pod) -> bool) -> Result<(), Error> {
        loop {
            let pod = self.pod(name).await?;
            if enough(&pod) {
                return Ok(());
            }
            let version = pod.0.metadata.resource_version.unwrap_or_default();
            let of_pod = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(WATCH);
            let changes = self.bounded(self.pods.watch_metadata(&of_pod, &version)).await?;
            let mut changes = std::pin::pin!(changes);
            while let Some(change) = changes.next().await {
                match change {
                    Ok(WatchEvent::Added(pod) | WatchEvent::Modified(pod)) => {
                        if enough(&Pod(pod)) {
                            return Ok(());
                        }
                    }
                    Ok(WatchEvent::Bookmark(_)) => {}
                    // Gone, or it cannot go on from there: what is there is read again.
                    Ok(WatchEvent::Deleted(_) | WatchEvent::Error(_)) | Err(_) => break,
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
