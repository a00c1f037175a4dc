//! What is said about network services and endpoints: a condition `Accepted` on the object, an event where the definition has no status.
//!
//! Every agent sees the same and would say the same. Each waits for a moment of its own before it speaks, and does not when
//! another has spoken: a service costs a write or two, however many nodes there are, and nothing at rest. Of endpoints only those that do
//! not count are told so, and that they do again; of a node's, that node's agent speaks alone.

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
    jiff,
};
use kube::{
    Api,
    api::{ApiResource, Patch, PatchParams, PostParams},
};
use nsm_objects::Service;
use nsm_proto::registry::NetworkServiceEndpoint;
use serde_json::json;

use super::{
    api::Server,
    objects::{Found, Key, Told},
};
use crate::kubernetes::{Failure, REPORTER, bounded, reporting_instance};

/// Type of the condition.
pub(super) const ACCEPTED: &str = "Accepted";

/// What is to be said about a service, given the one of its name that counts.
pub(super) fn verdict(service: &Found<Service>, counts: Option<&Found<Service>>) -> Told {
    match (&service.message, counts) {
        (Err(why), _) => Told { accepted: false, reason: "Invalid".into(), message: why.clone() },
        (Ok(_), Some(first)) if first.key != service.key => Told {
            accepted: false,
            reason: "NameTaken".into(),
            message: format!(
                "network service {:?} of namespace {} is older and counts: take another name, or delete one of the two",
                service.name, first.key.namespace
            ),
        },
        (Ok(_), _) => Told {
            accepted: true,
            reason: "Accepted".into(),
            message: format!("network service {:?} is found from all namespaces", service.name),
        },
    }
}

/// What is to be said about an endpoint, given the one of its name that counts for all, the node where it is served all the same, as it
/// lives there, and why it may not serve.
pub(super) fn verdict_of_endpoint(
    endpoint: &Found<NetworkServiceEndpoint>,
    counts: Option<&Found<NetworkServiceEndpoint>>,
    served_on: Option<&str>,
    refused: Option<String>,
) -> Told {
    match (&endpoint.message, counts, refused) {
        (Err(why), ..) => Told { accepted: false, reason: "Invalid".into(), message: why.clone() },
        (Ok(_), Some(first), None) if first.key != endpoint.key && served_on.is_some() => Told {
            accepted: false,
            reason: "NameTaken".into(),
            message: format!(
                "endpoint {:?} of namespace {} is older and counts on all nodes but {}, where this one lives and is served: take another \
                 name, or delete one of the two",
                endpoint.name,
                first.key.namespace,
                served_on.unwrap_or_default()
            ),
        },
        (Ok(_), Some(first), _) if first.key != endpoint.key => Told {
            accepted: false,
            reason: "NameTaken".into(),
            message: format!(
                "endpoint {:?} of namespace {} is older and counts: take another name, or delete one of the two",
                endpoint.name, first.key.namespace
            ),
        },
        (Ok(_), _, Some(why)) => Told { accepted: false, reason: "NotAllowed".into(), message: why },
        (Ok(_), _, None) => Told {
            accepted: true,
            reason: "Accepted".into(),
            message: format!("endpoint {:?} is found from all nodes", endpoint.name),
        },
    }
}

/// Says it.
pub(super) async fn say<M>(server: &Server, kind: &ApiResource, object: &Found<M>, told: &Told) -> Result<(), Failure> {
    let condition = json!({
        "type": ACCEPTED,
        "status": if told.accepted { "True" } else { "False" },
        "reason": told.reason,
        "message": told.message,
        "observedGeneration": object.generation,
        "lastTransitionTime": Time(jiff::Timestamp::now()),
    });
    // The uid: a precondition, so that the verdict about one object is not written on its successor.
    let patch = json!({ "metadata": { "uid": &*object.uid }, "status": { "conditions": [condition] } });
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(server.client.clone(), &object.key.namespace, kind);
    match bounded(api.patch_status(&object.key.name, &PatchParams::default(), &Patch::Merge(patch))).await {
        // Another has its place: the next event tells.
        Err(Failure::Conflict(_)) => Ok(()),
        // The definition has no status. The same is answered when the object is gone: an event about it does no harm.
        Err(Failure::Missing(_)) if told.accepted => Ok(()),
        Err(Failure::Missing(_)) => event(server, kind, object, told).await,
        done => done.map(drop),
    }
}

async fn event<M>(server: &Server, kind: &ApiResource, object: &Found<M>, told: &Told) -> Result<(), Failure> {
    let Key { namespace, name } = &object.key;
    let now = jiff::Timestamp::now();
    let event = Event {
        // The same event of another agent has the same name.
        metadata: ObjectMeta {
            name: Some(format!("{name}.{}.{}", told.reason.to_lowercase(), object.uid)),
            namespace: Some(namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some(nsm_objects::API_VERSION.into()),
            kind: Some(kind.kind.clone()),
            name: Some(name.to_string()),
            namespace: Some(namespace.to_string()),
            uid: Some(object.uid.to_string()),
            ..ObjectReference::default()
        },
        type_: Some("Warning".into()),
        reason: Some(told.reason.clone()),
        message: Some(told.message.clone()),
        source: Some(EventSource { component: Some("nsm-agent".into()), host: None }),
        event_time: Some(MicroTime(now)),
        reporting_component: Some(REPORTER.into()),
        reporting_instance: Some(reporting_instance(&server.node)),
        action: Some("Register".into()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        ..Event::default()
    };
    let events: Api<Event> = Api::namespaced(server.client.clone(), namespace);
    match bounded(events.create(&PostParams::default(), &event)).await {
        Err(Failure::Conflict(_)) => Ok(()),
        done => done.map(drop),
    }
}
