//! The two watches: the pods of this node, and all namespaces.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::ApiResource,
    core::{Object, PartialObjectMeta},
    runtime::watcher::{Config, Event},
};
use nsm_cni_types::pods::Annotations;
use serde::Deserialize;

use super::{
    Pods,
    seen::{self, Found, Key},
};
use crate::kubernetes::{Failed, Way, watched};

/// Pods of one page: they are big.
const PODS: u32 = 20;
/// Namespaces of one page: anybody's annotations make them big too.
const NAMESPACES: u32 = 50;
/// Of pods that have ended nothing is read: a node can have thousands.
const LIVING: &str = "status.phase!=Failed,status.phase!=Succeeded";

/// What is read of a pod's specification.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    host_network: bool,
}

/// What is read of a pod's status.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Status {
    #[serde(default)]
    phase: String,
}

/// A pod without the rest.
pub(super) type Trimmed = Object<Spec, Status>;

enum News {
    Pod(Event<Trimmed>),
    Namespace(Event<PartialObjectMeta<Namespace>>),
    Failed(Failed),
}

/// Pods, as the API server calls them.
pub(super) fn kind() -> ApiResource {
    ApiResource::erase::<Pod>(&())
}

/// Follows the cluster until the end.
pub(super) async fn run(pods: Arc<Pods>, way: Way, node: String) {
    let of_pods: Api<Trimmed> = Api::all_with(way.client.clone(), &kind());
    let config = Config::default().fields(&format!("spec.nodeName={node},{LIVING}"));
    let of_pods = watched("pods", of_pods, config, PODS);
    let of_namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(way.client);
    let of_namespaces = watched("namespaces", of_namespaces, Config::default(), NAMESPACES);
    let mut all = futures::stream::select(
        of_pods.map(|event| event.map_or_else(News::Failed, News::Pod)),
        of_namespaces.map(|event| event.map_or_else(News::Failed, News::Namespace)),
    );
    while let Some(news) = all.next().await {
        match news {
            News::Pod(event) => take_pod(&pods, event),
            News::Namespace(event) => take_namespace(&pods, event),
            News::Failed(Failed { why: error, to_be_told, .. }) => {
                if to_be_told {
                    tracing::warn!(error, "the Kubernetes API server cannot be watched: edits of pods wait");
                }
            }
        }
    }
}

fn take_pod(pods: &Pods, event: Event<Trimmed>) {
    let changed = match event {
        Event::Init => {
            pods.seen().begin_pods();
            Vec::new()
        }
        Event::InitApply(object) | Event::Apply(object) => {
            let found = found(&object);
            let key = found.key.clone();
            pods.seen().put_pod(found);
            vec![key]
        }
        Event::InitDone => {
            let mut seen = pods.seen();
            let first = !seen.read.pods;
            let gone = seen.end_pods();
            if first {
                tracing::info!(pods = seen.pods().count(), "the pods of this node have been read");
            }
            gone
        }
        Event::Delete(object) => {
            let key = key(&object);
            pods.seen().remove_pod(&key, &object.uid().unwrap_or_default());
            vec![key]
        }
    };
    pods.moved(changed);
}

fn take_namespace(pods: &Pods, event: Event<PartialObjectMeta<Namespace>>) {
    let one = |name: Arc<str>, asks: Annotations| {
        pods.asking.send_if_modified(|known| {
            let Some(known) = known else { return false };
            if asks.is_empty() {
                known.remove(&name).is_some()
            } else {
                known.insert(name, asks.clone()).as_ref() != Some(&asks)
            }
        });
    };
    match event {
        Event::Init => pods.seen().begin_namespaces(),
        Event::InitApply(object) | Event::Apply(object) => {
            let annotations = seen::asked(|key| object.annotations().get(key).map(String::as_str));
            let name: Arc<str> = object.name_any().into();
            pods.seen().put_namespace(name.clone(), annotations.clone());
            one(name, annotations);
        }
        Event::InitDone => {
            let mut seen = pods.seen();
            seen.end_namespaces();
            let asking = seen.asking();
            drop(seen);
            pods.asking.send_if_modified(|known| {
                let changed = *known != asking;
                *known = asking;
                changed
            });
        }
        Event::Delete(object) => {
            pods.seen().remove_namespace(&object.name_any());
            one(object.name_any().into(), Annotations::default());
        }
    }
    pods.moved(Vec::new());
}

fn key(object: &Trimmed) -> Key {
    Key { namespace: object.namespace().unwrap_or_default().into(), name: object.name_any().into() }
}

/// What is kept of a pod.
pub(super) fn found(object: &Trimmed) -> Found {
    let over = |status: &Status| matches!(&*status.phase, "Succeeded" | "Failed");
    let bare = Found {
        key: key(object),
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        hash: None,
        version: object.metadata.resource_version.as_deref().unwrap_or_default().into(),
        annotations: Annotations::default(),
        networks: nsm_npwg::Annotations::default(),
        status: None,
        network_status: None,
        host_network: object.spec.host_network,
        ending: object.metadata.deletion_timestamp.is_some() || object.status.as_ref().is_some_and(over),
    };
    bare.annotated(|key| object.annotations().get(key).map(String::as_str))
}
