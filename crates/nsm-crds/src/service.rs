//! `NetworkService`.

use std::collections::BTreeMap;

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Status;

/// Labels, or what they are to be.
pub(crate) type Labels = BTreeMap<String, String>;

/// A network service: its name, what it carries, and which clients get which endpoints.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema, CustomResource)]
#[kube(
    group = "networkservicemesh.io",
    version = "v1",
    kind = "NetworkService",
    plural = "networkservices",
    shortname = "netsvc",
    category = "nsm",
    namespaced,
    status = "Status",
    derive = "PartialEq",
    doc = "A network service, found by its name in all namespaces: the oldest of a name counts.",
    printcolumn = r#"{"name": "Service", "type": "string", "jsonPath": ".spec.name", "priority": 1}"#,
    printcolumn = r#"{"name": "Payload", "type": "string", "jsonPath": ".spec.payload"}"#,
    printcolumn = r#"{"name": "Clients", "type": "string", "jsonPath": ".spec.allowed_client_namespaces", "priority": 1}"#,
    printcolumn = r#"{"name": "Endpoints", "type": "string", "jsonPath": ".spec.allowed_endpoint_namespaces", "priority": 1}"#,
    printcolumn = r#"{"name": "Accepted", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Accepted\")].status"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#
)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!(has(self.matches) && has(self.match))", "message": "matches and match are two spellings of one key: write one of them"},
    {"rule": "!(has(self.path_ids) && has(self.pathIds))", "message": "path_ids and pathIds are two spellings of one key: write one of them"},
    {"rule": "!(has(self.allowed_client_namespaces) && has(self.allowedClientNamespaces))", "message": "allowed_client_namespaces and allowedClientNamespaces are two spellings of one key: write one of them"},
    {"rule": "!(has(self.allowed_endpoint_namespaces) && has(self.allowedEndpointNamespaces))", "message": "allowed_endpoint_namespaces and allowedEndpointNamespaces are two spellings of one key: write one of them"},
]))]
#[serde(default)]
pub struct NetworkServiceSpec {
    /// The service's name, where metadata.name cannot hold it. Default: metadata.name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "name")]
    pub name: Option<String>,

    /// What the service carries. Default: IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["IP", "ETHERNET"]))]
    pub payload: Option<String>,

    /// Which clients get which endpoints: the first match that fits the client's labels decides. None: every endpoint fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub matches: Option<Vec<Match>>,

    /// matches, as of 2019.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub r#match: Option<Vec<Match>>,

    /// Namespaces whose pods may use the service; * for all. Default: as the agents' --service-access says, all unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespaces")]
    pub allowed_client_namespaces: Option<Vec<String>>,

    /// allowed_client_namespaces, in camel case.
    #[serde(rename = "allowedClientNamespaces", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespaces")]
    pub allowed_client_namespaces_camel: Option<Vec<String>>,

    /// Namespaces whose pods may serve it; * for all. Default: as the agents' --service-access says, all unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespaces")]
    pub allowed_endpoint_namespaces: Option<Vec<String>>,

    /// allowed_endpoint_namespaces, in camel case.
    #[serde(rename = "allowedEndpointNamespaces", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "namespaces")]
    pub allowed_endpoint_namespaces_camel: Option<Vec<String>>,

    /// Identities that the registration passed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub path_ids: Option<Vec<String>>,

    /// path_ids, in camel case.
    #[serde(rename = "pathIds", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub path_ids_camel: Option<Vec<String>>,
}

/// A rule: for clients with these labels, endpoints with those.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.source_selector), has(self.sourceSelector), has(self.match) && (has(self.match.source_selector) || has(self.match.sourceSelector))].filter(x, x).size() <= 1", "message": "source_selector may be written once, in one spelling"},
    {"rule": "!(has(self.routes) && has(self.route))", "message": "routes and route are two spellings of one key: write one of them"},
]))]
#[serde(default)]
pub struct Match {
    /// In the spelling of NSM v1.
    #[serde(flatten)]
    pub here: MatchFields,

    /// The heading of 2019, with the rest under it or beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#match: Option<MatchFields>,
}

/// What a match says, beside or under the heading of 2019.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MatchFields {
    /// Labels that the client must have. None: any client.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub source_selector: Option<Labels>,

    /// source_selector, as of 2019.
    #[serde(rename = "sourceSelector", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub source_selector_2019: Option<Labels>,

    /// Endpoints with one of these fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub routes: Option<Vec<Destination>>,

    /// routes, as of 2019.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub route: Option<Vec<Destination>>,

    /// Whether the next match is looked at when no endpoint fits this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallthrough: Option<bool>,

    /// Labels of forwarders, as of the Go implementation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Metadata>,
}

/// Labels of forwarders.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Metadata {
    /// The labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub labels: Option<Labels>,
}

/// Endpoints that fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "[has(self.destination_selector), has(self.destinationSelector), has(self.destination) && (has(self.destination.destination_selector) || has(self.destination.destinationSelector))].filter(x, x).size() <= 1", "message": "destination_selector may be written once, in one spelling"},
]))]
#[serde(default)]
pub struct Destination {
    /// In the spelling of NSM v1.
    #[serde(flatten)]
    pub here: DestinationFields,

    /// The heading of 2019, with the rest under it or beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<DestinationFields>,
}

/// What a destination says, beside or under the heading of 2019.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct DestinationFields {
    /// Labels that the endpoint must have; values may be templates over the client's labels: {{ .podName }}.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub destination_selector: Option<Labels>,

    /// destination_selector, as of 2019.
    #[serde(rename = "destinationSelector", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub destination_selector_2019: Option<Labels>,

    /// How often this route's turn comes, beside the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "weight")]
    pub weight: Option<u32>,
}

/// A name that the registry takes.
pub(crate) fn name(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string", "nullable": true, "minLength": 1, "maxLength": 253, "pattern": r"^[^\s@]+$",
    })
}

/// Labels within the registry's bounds.
pub(crate) fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 256,
        "additionalProperties": { "type": "string", "maxLength": 253 },
    })
}

/// Names of namespaces, or a star.
fn namespaces(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "array",
        "nullable": true,
        "maxItems": 256,
        "items": { "type": "string", "maxLength": 63, "pattern": r"^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$" },
    })
}

fn weight(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "integer", "format": "int64", "minimum": 0, "maximum": u32::MAX })
}
