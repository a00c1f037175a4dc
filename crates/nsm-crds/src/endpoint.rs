//! `NetworkServiceEndpoint`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Status,
    service::{Labels, labels, name},
};

/// An endpoint: which network services it offers, and under which labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "networkservicemesh.io",
    version = "v1",
    kind = "NetworkServiceEndpoint",
    plural = "networkserviceendpoints",
    shortname = "nse",
    category = "nsm",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    doc = "An endpoint of network services. One with the annotation networkservicemesh.io/node lives while that node's agent renews its lease; any other until its expiration_time, without one for ever.",
    printcolumn = r#"{"name": "Endpoint", "type": "string", "jsonPath": ".spec.name"}"#,
    printcolumn = r#"{"name": "Services", "type": "string", "jsonPath": ".spec.network_service_names"}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".metadata.annotations.networkservicemesh\\.io/node"}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "URL", "type": "string", "jsonPath": ".spec.url", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.network_service_names), has(self.networkServiceNames), has(self.networkServiceName)].filter(x, x).size() <= 1", "message": "network_service_names, networkServiceNames and networkServiceName are spellings of one key: write one of them"},
    {"rule": "!(has(self.network_service_labels) && has(self.networkServiceLabels))", "message": "network_service_labels and networkServiceLabels are two spellings of one key: write one of them"},
    {"rule": "!(has(self.expiration_time) && has(self.expirationTime))", "message": "expiration_time and expirationTime are two spellings of one key: write one of them"},
]))]
#[serde(default)]
pub struct NetworkServiceEndpointSpec {
    /// The endpoint's name, where metadata.name cannot hold it. Default: metadata.name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name")]
    pub name: Option<String>,

    /// The network services that it offers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    pub network_service_names: Option<Vec<String>>,

    /// network_service_names, in camel case.
    #[serde(rename = "networkServiceNames", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "names")]
    pub network_service_names_camel: Option<Vec<String>>,

    /// The one network service, as of 2019.
    #[serde(rename = "networkServiceName", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name")]
    pub network_service_name_2019: Option<String>,

    /// Its labels for each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub network_service_labels: Option<BTreeMap<String, ServiceLabels>>,

    /// network_service_labels, in camel case.
    #[serde(rename = "networkServiceLabels", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 64))]
    pub network_service_labels_camel: Option<BTreeMap<String, ServiceLabels>>,

    /// Where it is asked; agents leave it out for endpoints that only their own node reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub url: Option<String>,

    /// When it is gone unless it registers again. None: it stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Time>,

    /// expiration_time, in camel case.
    #[serde(rename = "expirationTime", skip_serializing_if = "Option::is_none")]
    pub expiration_time_camel: Option<Time>,

    /// When it registered first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial_registration_time: Option<Time>,

    /// initial_registration_time, in camel case.
    #[serde(rename = "initialRegistrationTime", skip_serializing_if = "Option::is_none")]
    pub initial_registration_time_camel: Option<Time>,

    /// Identities that the registration passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub path_ids: Option<Vec<String>>,

    /// path_ids, in camel case.
    #[serde(rename = "pathIds", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub path_ids_camel: Option<Vec<String>>,
}

/// Labels for one network service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ServiceLabels {
    /// The labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub labels: Option<Labels>,
}

/// A time as the Go registry writes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Time {
    /// Seconds since 1970, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<i64>,
    /// Nanoseconds of that second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 999_999_999))]
    pub nanos: Option<i32>,
}

fn names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[^\\s@]+$" },
    })
}
