//! The API server: reading and writing our objects, and what its refusals mean.
//!
//! Guarantees: every call has a bound. A write that is not known to have failed may have been done: writes are made so that doing
//! them again is the same. Nothing that the API server holds is trusted to have a shape.

use std::sync::Arc;

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, PostParams, Preconditions},
    core::GroupVersionKind,
};
use nsm_proto::registry::NetworkServiceEndpoint;
use serde_json::{Map, Value, json};

use super::{
    names,
    objects::{Found, Key, Told},
};
use crate::{
    kubernetes::{Failure, bounded},
    registry::Error,
    state,
};

/// How often a write is tried again when somebody else wrote at the same time.
const TRIES: usize = 5;

/// Ways to our kinds of objects.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) client: Client,
    /// Whose agent writes.
    pub(super) node: Arc<str>,
    pub(super) services: ApiResource,
    pub(super) endpoints: ApiResource,
}

/// What is to be written.
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) spec: Map<String, Value>,
    /// Annotations that are set; `None` takes one away.
    pub(super) annotations: Vec<(&'static str, Option<String>)>,
    pub(super) owner: Option<OwnerReference>,
    /// Fields that stay as they are where there is an object.
    pub(super) kept: &'static [&'static str],
}

impl Server {
    pub(super) fn new(client: Client, node: Arc<str>) -> Self {
        let of = |kind: &str, plural: &str| {
            ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(nsm_objects::GROUP, "v1", kind), plural)
        };
        Self {
            client,
            node,
            services: of(nsm_objects::SERVICE, "networkservices"),
            endpoints: of(nsm_objects::ENDPOINT, "networkserviceendpoints"),
        }
    }

    fn of(&self, kind: &ApiResource, namespace: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), namespace, kind)
    }

    /// Creates the object, or puts this into the place of what is there.
    pub(super) async fn put(&self, kind: &ApiResource, wanted: &Wanted) -> Result<DynamicObject, Error> {
        let api = self.of(kind, &wanted.key.namespace);
        let mut conflict = None;
        for _ in 0..TRIES {
            let there = bounded(api.get_opt(&wanted.key.name)).await?;
            let written = match there {
                None => bounded(api.create(&PostParams::default(), &wanted.fresh(kind))).await,
                Some(object) => {
                    let object = wanted.over(object);
                    bounded(api.replace(&wanted.key.name, &PostParams::default(), &object)).await
                }
            };
            match written {
                Err(Failure::Conflict(why)) => conflict = Some(why),
                done => return Ok(done?),
            }
        }
        Err(Error::Away(format!("{} is written by others all the time: {}", wanted.key, conflict.unwrap_or_default())))
    }

    /// Deletes the object of that identity; one that is not there is fine.
    pub(super) async fn delete(&self, kind: &ApiResource, key: &Key, uid: Option<&str>) -> Result<(), Error> {
        let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { preconditions, ..DeleteParams::default() };
        match bounded(self.of(kind, &key.namespace).delete(&key.name, &parameters)).await {
            // Of another identity: what was meant is gone.
            Ok(_) | Err(Failure::Missing(_) | Failure::Conflict(_)) => Ok(()),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Whose an object is.
    pub(super) async fn owners(&self, kind: &ApiResource, key: &Key) -> Result<Vec<OwnerReference>, Error> {
        let found = bounded(self.of(kind, &key.namespace).get_metadata_opt(&key.name)).await?;
        Ok(found.and_then(|found| found.metadata.owner_references).unwrap_or_default())
    }

    /// The reference to a pod as owner, if the API server has that very pod. A static pod is known to runtimes by its
    /// configuration's hash, and here by its mirror.
    pub(super) async fn owner(&self, pod: &state::Pod) -> Result<Option<OwnerReference>, Error> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        let Some(found) = bounded(pods.get_metadata_opt(&pod.name)).await? else { return Ok(None) };
        let hash = found.annotations().get("kubernetes.io/config.hash");
        let uid = found.uid().unwrap_or_default();
        if uid.is_empty() || (uid != pod.uid && hash != Some(&pod.uid)) {
            return Ok(None);
        }
        Ok(Some(OwnerReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            name: pod.name.clone(),
            uid,
            ..OwnerReference::default()
        }))
    }
}

impl Wanted {
    fn fresh(&self, kind: &ApiResource) -> DynamicObject {
        let metadata = ObjectMeta {
            name: Some(self.key.name.to_string()),
            namespace: Some(self.key.namespace.to_string()),
            owner_references: self.owner.clone().map(|owner| vec![owner]),
            ..ObjectMeta::default()
        };
        let mut object = DynamicObject::new(&self.key.name, kind).data(json!({ "spec": self.spec }));
        object.metadata = metadata;
        self.annotate(&mut object);
        object
    }

    /// What others have written into the metadata stays.
    fn over(&self, mut object: DynamicObject) -> DynamicObject {
        let mut spec = self.spec.clone();
        let there = object.data.get("spec");
        let kept = self.kept.iter().filter_map(|field| Some(((*field).to_owned(), there?.get(field)?.clone())));
        spec.extend(kept.collect::<Vec<_>>());
        object.data["spec"] = Value::Object(spec);
        if let Some(owner) = &self.owner {
            object.metadata.owner_references = Some(vec![owner.clone()]);
        }
        object.metadata.managed_fields = None;
        self.annotate(&mut object);
        object
    }

    fn annotate(&self, object: &mut DynamicObject) {
        for (key, value) in &self.annotations {
            match value {
                Some(value) => drop(object.annotations_mut().insert((*key).to_owned(), value.clone())),
                None => drop(object.annotations_mut().remove(*key)),
            }
        }
    }
}

/// A network service as the API server has it.
pub(super) fn service(object: &DynamicObject) -> Found<nsm_objects::Service> {
    let read = nsm_objects::service(&object.name_any(), spec(object)).map_err(|wrong| wrong.to_string());
    let checked = read.and_then(|mut service| match crate::registry::check::service(&mut service.message) {
        Ok(()) => Ok(service),
        Err(error) => Err(error.to_string()),
    });
    let name = checked.as_ref().ok().map(|service| service.message.name.clone());
    found(object, name, checked.map(Arc::new))
}

/// An endpoint as the API server has it.
pub(super) fn endpoint(object: &DynamicObject) -> Found<NetworkServiceEndpoint> {
    let read = nsm_objects::endpoint(&object.name_any(), spec(object)).map_err(|wrong| wrong.to_string());
    let checked = read.and_then(|endpoint| match crate::registry::check::endpoint(&endpoint) {
        Ok(()) => Ok(endpoint),
        Err(error) => Err(error.to_string()),
    });
    let name = checked.as_ref().ok().map(|endpoint| endpoint.name.clone());
    found(object, name, checked.map(Arc::new))
}

fn spec(object: &DynamicObject) -> &Value {
    object.data.get("spec").unwrap_or(&Value::Null)
}

fn found<M>(object: &DynamicObject, name: Option<String>, message: Result<Arc<M>, String>) -> Found<M> {
    let key = key(object);
    if let Err(why) = &message {
        tracing::warn!(object = %key, error = why, "an object cannot be read and counts for nothing");
    }
    let annotation = |name: &str| object.annotations().get(name).map(String::as_str);
    Found {
        uid: object.metadata.uid.as_deref().unwrap_or_default().into(),
        created: object.creation_timestamp().map_or(0, |time| time.0.as_second()),
        generation: object.metadata.generation.unwrap_or_default(),
        name: name.map_or_else(|| key.name.clone(), Into::into),
        message,
        node: annotation(names::NODE).map(Into::into),
        registrant: annotation(names::REGISTRANT).map(Into::into),
        told: told(object),
        key,
    }
}

/// Where an object is.
pub(super) fn key(object: &DynamicObject) -> Key {
    Key { namespace: object.namespace().unwrap_or_default().into(), name: object.name_any().into() }
}

fn told(object: &DynamicObject) -> Option<Told> {
    let conditions = object.data.get("status")?.get("conditions")?.as_array()?;
    let condition = conditions.iter().find(|condition| condition["type"] == super::told::ACCEPTED)?;
    let text = |key: &str| condition[key].as_str().unwrap_or_default().to_owned();
    Some(Told { accepted: condition["status"] == "True", reason: text("reason"), message: text("message") })
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Away(why) | Failure::Conflict(why) => Self::Away(why),
            Failure::Missing(why) => {
                Self::Away(format!("{why} (are the namespace and the definitions of deploy/crds.yaml there?)"))
            }
            Failure::Forbidden(why) => Self::Forbidden(why),
            Failure::Invalid(why) => Self::Refused(why),
        }
    }
}
