//! NetworkAttachmentDefinitions, as they were last seen.
//!
//! Guarantees: of each its configuration and its resource's name are kept, of all together at most [`MOST`] bytes; what is bigger is
//! known to be there and asked for when a pod wants it. While a list is read, a page of it is here as well, of [`PAGE`] definitions. The
//! definition of their kind may be missing, and come later: until it does, the API server is asked for nothing.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    runtime::watcher::{Config, Event},
};
use nsm_npwg::{Definition, RESOURCE_NAME};
use tokio::{sync::watch, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::kubernetes::{Answer, Failed, Failure, Way, bounded, watched};

/// Definitions of one page. Whoever writes them makes each as big as the API server keeps them, and while a page is read it is here some
/// three times: as bytes, once more, and as objects.
const PAGE: u32 = 5;
/// Most bytes of all that is kept.
const MOST: usize = 32 << 20;
/// Most bytes of one that is kept.
const MOST_OF_ONE: usize = 64 << 10;
/// Their kind, as the API server calls it.
const DEFINITIONS: &str = "network-attachment-definitions";
/// What defines their kind.
const KIND: &str = "metadata.name=network-attachment-definitions.k8s.cni.cncf.io";
/// How long not to ask for them where nobody tells that their kind has come.
const UNTOLD: Duration = Duration::from_mins(5);

/// The cluster's definitions. Clones share them.
#[derive(Clone)]
pub struct Definitions {
    client: Client,
    seen: Arc<Mutex<Seen>>,
    /// Whether all have been read once, or there is nothing to be read.
    read: watch::Sender<bool>,
}

/// What is known of a definition that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kept {
    /// All that matters.
    Here(Arc<Definition>),
    /// That it is there.
    There,
}

type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Seen {
    all: HashMap<Key, Kept>,
    bytes: usize,
    /// While a list is read: what it had.
    listed: Option<HashSet<Key>>,
}

impl Seen {
    fn put(&mut self, key: Key, definition: Definition) {
        if let Some(listed) = &mut self.listed {
            listed.insert(key.clone());
        }
        self.remove(&key);
        let bytes = size(&definition);
        let kept = if bytes > MOST_OF_ONE || self.bytes + bytes > MOST {
            Kept::There
        } else {
            self.bytes += bytes;
            Kept::Here(Arc::new(definition))
        };
        self.all.insert(key, kept);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(Kept::Here(definition)) = self.all.remove(key) {
            self.bytes -= size(&definition);
        }
    }

    fn end_list(&mut self) {
        let listed = self.listed.take().unwrap_or_default();
        let gone: Vec<Key> = self.all.keys().filter(|key| !listed.contains(*key)).cloned().collect();
        for key in &gone {
            self.remove(key);
        }
    }
}

fn size(definition: &Definition) -> usize {
    definition.config.len() + definition.resource_name.as_ref().map_or(0, String::len)
}

impl Definitions {
    /// Starts to read.
    pub fn watch(way: Way, tasks: &TaskTracker, stop: &CancellationToken) -> Self {
        let all = Self { client: way.client, seen: Arc::default(), read: watch::Sender::new(false) };
        tasks.spawn(stop.clone().run_until_cancelled_owned(all.clone().run()));
        all
    }

    /// Waits until all have been read once.
    pub(super) async fn read(&self, until: Instant) -> Result<(), String> {
        let mut read = self.read.subscribe();
        match tokio::time::timeout_at(until, read.wait_for(|read| *read)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err("NetworkAttachmentDefinitions have not been read yet: is the API server away?".to_owned())
            }
        }
    }

    /// What was seen of a definition; none: nothing.
    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<Kept> {
        self.seen().all.get(&(namespace.into(), name.into())).cloned()
    }

    /// Asks the API server for a definition; none: there is none.
    pub(super) async fn ask(&self, namespace: &str, name: &str, until: Instant) -> Result<Option<Definition>, String> {
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &kind());
        let asked = tokio::time::timeout_at(until, bounded(api.get(name))).await;
        match asked.unwrap_or_else(|_| Err(Failure::Away("no answer in time".to_owned()))) {
            Ok(object) => Ok(Some(definition(&object))),
            Err(Failure::Missing(_)) => Ok(None),
            Err(error) => Err(format!("NetworkAttachmentDefinition \"{namespace}/{name}\" cannot be read: {error}")),
        }
    }

    async fn run(self) {
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &kind());
        let mut events = watched(DEFINITIONS, api, Config::default(), PAGE);
        while let Some(event) = events.next().await {
            let Failed { why: error, answer, to_be_told } = match event {
                Ok(event) => {
                    self.take(event);
                    continue;
                }
                Err(failed) => failed,
            };
            match answer {
                // Nobody has installed their kind: until somebody does, there are none.
                Some(Answer::Missing) => {
                    *self.seen() = Seen::default();
                    self.read.send_replace(true);
                }
                // Whoever wants one is told why it cannot be read.
                Some(Answer::Refused) => drop(self.read.send_replace(true)),
                None => {}
            }
            if answer == Some(Answer::Missing) {
                self.kind_is_there().await;
            } else if to_be_told {
                tracing::warn!(error, "NetworkAttachmentDefinitions cannot be watched: what was seen last counts");
            }
        }
    }

    /// Waits until somebody installs their kind, or has: it is served a moment later.
    async fn kind_is_there(&self) {
        let kind = GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let api: Api<DynamicObject> = Api::all_with(self.client.clone(), &ApiResource::from_gvk(&kind));
        let mut events = watched("customresourcedefinitions", api, Config::default().fields(KIND), PAGE);
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::InitApply(_) | Event::Apply(_)) => return,
                Err(Failed { answer: Some(Answer::Refused), why: error, .. }) => {
                    tracing::warn!(
                        error,
                        "whether NetworkAttachmentDefinitions are installed cannot be watched: see deploy/rbac.yaml"
                    );
                    return tokio::time::sleep(UNTOLD).await;
                }
                Ok(Event::Init | Event::InitDone | Event::Delete(_)) | Err(_) => {}
            }
        }
    }

    fn take(&self, event: Event<DynamicObject>) {
        let mut seen = self.seen();
        match event {
            Event::Init => seen.listed = Some(HashSet::new()),
            Event::InitApply(object) | Event::Apply(object) => seen.put(key(&object), definition(&object)),
            Event::Delete(object) => seen.remove(&key(&object)),
            Event::InitDone => {
                seen.end_list();
                let (count, bytes) = (seen.all.len(), seen.bytes);
                drop(seen);
                if !self.read.send_replace(true) {
                    tracing::info!(count, bytes, "NetworkAttachmentDefinitions have been read");
                }
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// NetworkAttachmentDefinitions, as the API server calls them.
fn kind() -> ApiResource {
    let kind = GroupVersionKind::gvk("k8s.cni.cncf.io", "v1", "NetworkAttachmentDefinition");
    ApiResource::from_gvk_with_plural(&kind, DEFINITIONS)
}

fn key(object: &DynamicObject) -> Key {
    (object.namespace().unwrap_or_default().into(), object.name_any().into())
}

fn definition(object: &DynamicObject) -> Definition {
    let config = object.data["spec"]["config"].as_str().unwrap_or_default();
    let resource_name = object.annotations().get(RESOURCE_NAME).filter(|name| !name.is_empty()).cloned();
    Definition { config: config.to_owned(), resource_name }
}

#[cfg(test)]
mod tests {
    use kube::client::Body;
    use serde_json::json;
    use tonic::codegen::http::{Request, Response};

    use super::*;

    /// What an API server keeps of an object at most (etcd's request limit).
    const LARGEST: usize = 3 << 19;

    /// An API server with so many definitions, whose watches say nothing. It tells how many are asked for at once.
    fn server(count: usize) -> (Client, Arc<Mutex<Vec<usize>>>) {
        let asked: Arc<Mutex<Vec<usize>>> = Arc::default();
        let pages = asked.clone();
        let answer = move |request: Request<Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            let value = |key: &str| {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| *name == key).map(|(_, value)| value.parse::<usize>())
            };
            let page = value("watch").is_none().then(|| {
                let first = value("continue").map_or(0, Result::unwrap);
                let limit = value("limit").map_or(usize::MAX, Result::unwrap);
                pages.lock().unwrap().push(limit);
                let end = first.saturating_add(limit).min(count);
                let items = (first..end).map(|place| {
                    json!({"metadata": {"name": place.to_string(), "namespace": "n"}, "spec": {"config": "{}"}})
                });
                let next = (end < count).then(|| end.to_string());
                json!({"metadata": {"resourceVersion": "1", "continue": next}, "items": items.collect::<Vec<_>>()})
            });
            async move {
                match page {
                    Some(page) => Ok::<_, tower::BoxError>(Response::new(Body::from(page.to_string().into_bytes()))),
                    None => std::future::pending().await,
                }
            }
        };
        (Client::new(tower::service_fn(answer), "n"), asked)
    }

    #[tokio::test]
    async fn a_page_of_the_largest_that_there_may_be_fits_into_memory() {
        let (client, asked) = server(13);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let way = Way { client, namespace: "n".into() };
        let definitions = Definitions::watch(way, &tasks, &stop);
        definitions.read(Instant::now() + Duration::from_secs(20)).await.unwrap();
        let asked = asked.lock().unwrap().clone();
        let at_once = asked.iter().max().map(|most| most * LARGEST * 3);
        assert!(at_once.is_some_and(|bytes| bytes <= MOST), "{asked:?} definitions at once");
        assert!((0..13).all(|place| matches!(definitions.get("n", &place.to_string()), Some(Kept::Here(_)))));
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }

    fn of(config: &str) -> Definition {
        Definition { config: config.to_owned(), resource_name: None }
    }

    #[test]
    fn no_more_is_kept_than_is_allowed() {
        let mut seen = Seen::default();
        let key = |name: &str| -> Key { ("n".into(), name.into()) };
        seen.put(key("long"), of(&"x".repeat(MOST_OF_ONE + 1)));
        assert_eq!((seen.all.get(&key("long")), seen.bytes), (Some(&Kept::There), 0));
        for place in 0..(MOST / MOST_OF_ONE) + 10 {
            seen.put(key(&place.to_string()), of(&"x".repeat(MOST_OF_ONE)));
        }
        assert_eq!(seen.bytes, MOST);
        seen.put(key("0"), of("short"));
        assert_eq!(seen.bytes, MOST - MOST_OF_ONE + 5);
        seen.listed = Some(HashSet::from([key("0")]));
        seen.end_list();
        assert_eq!((seen.all.len(), seen.bytes), (1, 5));
    }

    #[test]
    fn an_object_without_configuration_is_one() {
        let object = |value| definition(&serde_json::from_value(value).unwrap());
        assert_eq!(object(json!({"metadata": {"name": "a"}})), Definition::default());
        let full =
            json!({"metadata": {"name": "a", "annotations": {RESOURCE_NAME: "x.com/d"}}, "spec": {"config": "{}"}});
        assert_eq!(object(full), Definition { config: "{}".into(), resource_name: Some("x.com/d".into()) });
        assert_eq!(object(json!({"metadata": {"name": "a"}, "spec": {"config": 1}})), Definition::default());
    }
}
