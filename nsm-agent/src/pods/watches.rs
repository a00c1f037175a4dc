//! The two watches: the pods of this node, and all namespaces.
//!
//! Guarantees: a list is read in pages, and only when a watch cannot go on from where it was, after a pause of random length.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::{
    Api, ResourceExt,
    api::ApiResource,
    core::{Object, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Config, Event},
    },
};
use nsm_cni_types::pods::Annotations;
use serde::Deserialize;

use super::{
    Pods,
    seen::{self, Found, Key},
};
use crate::{
    kubernetes::{Way, chain},
    memory,
};

/// Pods of one page: they are big.
const PODS: u32 = 20;
/// Namespaces of one page: anybody's annotations make them big too.
const NAMESPACES: u32 = 50;
/// Of pods that have ended nothing is read: a node can have thousands.
const LIVING: &str = "status.phase!=Failed,status.phase!=Succeeded";
/// Shortest time between two lines of the log about a watch that does not work.
const QUIET: Duration = Duration::from_secs(30);

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
    Failed(&'static str, watcher::Error),
}

/// Pods, as the API server calls them.
pub(super) fn kind() -> ApiResource {
    ApiResource::erase::<Pod>(&())
}

/// Follows the cluster until the end.
pub(super) async fn run(pods: Arc<Pods>, way: Way, node: String) {
    let of_pods: Api<Trimmed> = Api::all_with(way.client.clone(), &kind());
    let config = Config::default().page_size(PODS).fields(&format!("spec.nodeName={node},{LIVING}"));
    let of_pods = watcher::watcher(of_pods, config).default_backoff();
    let of_namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(way.client);
    let of_namespaces = watcher::watcher(of_namespaces, Config::default().page_size(NAMESPACES)).default_backoff();
    let failed = |what| move |error| News::Failed(what, error);
    let mut all = futures::stream::select(
        of_pods.map(move |event| event.map_or_else(failed("pods"), News::Pod)).boxed(),
        of_namespaces.map(move |event| event.map_or_else(failed("namespaces"), News::Namespace)).boxed(),
    );
    let mut last_line: Option<Instant> = None;
    while let Some(news) = all.next().await {
        match news {
            News::Pod(event) => take_pod(&pods, event),
            News::Namespace(event) => take_namespace(&pods, event),
            News::Failed(what, error) => {
                if last_line.is_none_or(|last| last.elapsed() > QUIET) {
                    last_line = Some(Instant::now());
                    let error = format!("{what}: {}", chain(&error));
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
            memory::give_back_soon();
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
