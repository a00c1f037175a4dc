//! YAML documents: `NetworkService` and `NetworkServiceEndpoint`, as kubectl takes them.
//!
//! Guarantees: both spellings are read, NSM v1's (`matches`, `source_selector`, `routes`, `destination_selector`) and that of
//! the 2019 manifests (`match`, `sourceSelector`, `route`, `destination`, `destinationSelector`, nested either way). What is not
//! understood is refused with its place, its value and what was expected; nothing is dropped silently.

mod endpoint;
mod fields;
mod service;
#[cfg(test)]
mod tests;

use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use serde_json::Value;

use crate::{kind::Kind, object::API_VERSION};
use fields::Fields;

/// What a document is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Object {
    Service(NetworkService),
    Endpoint(NetworkServiceEndpoint),
}

impl Object {
    /// Its kind.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::Endpoint(_) => Kind::Endpoint,
        }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Service(service) => &service.name,
            Self::Endpoint(endpoint) => &endpoint.name,
        }
    }
}

/// What is wrong with a document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// No YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense there.
    #[error("document {document}: {place}: {value}: expected {expected}")]
    Value {
        /// Which document, from 1.
        document: usize,
        /// Path of the key.
        place: String,
        /// What stands there, cut to a readable length.
        value: String,
        /// What would do.
        expected: String,
    },
    /// Nothing to do.
    #[error("no NetworkService and no NetworkServiceEndpoint in it")]
    Empty,
}

/// All objects of a text of one or several documents.
pub(crate) fn parse(text: &str) -> Result<Vec<Object>, Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| Error::Syntax(error.to_string()))?;
    let mut objects = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        if !document.is_null() {
            read(document, "", &mut objects).map_err(|wrong| wrong.in_document(at + 1))?;
        }
    }
    if objects.is_empty() { Err(Error::Empty) } else { Ok(objects) }
}

fn read(document: &Value, place: &str, objects: &mut Vec<Object>) -> Result<(), fields::Wrong> {
    let mut fields = Fields::of(document, place)?;
    let (kind, version) = (fields.text(&["kind"])?, fields.text(&["apiVersion"])?);
    if kind == "List" {
        for (item, place) in fields.list(&["items"])? {
            read(item, &place, objects)?;
        }
        return Ok(());
    }
    if ![API_VERSION, "networkservicemesh.io/v1alpha1"].contains(&version.as_str()) {
        return Err(fields.wrong("apiVersion", &version.into(), API_VERSION));
    }
    let mut metadata = fields.object(&["metadata"])?;
    let name = metadata.text(&["name"])?;
    if name.is_empty() || name.len() > 253 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(metadata.wrong("name", &name.into(), "a name of 1 to 253 bytes without blanks"));
    }
    // Labels, annotations, namespace and what an API server adds are kubectl's.
    metadata.ignore_rest();
    let mut spec = fields.object(&["spec"])?;
    spec.same_name(&name)?;
    objects.push(match kind.as_str() {
        "NetworkService" => Object::Service(service::read(name, spec)?),
        "NetworkServiceEndpoint" => Object::Endpoint(endpoint::read(name, spec)?),
        _ => return Err(fields.wrong("kind", &kind.into(), "NetworkService or NetworkServiceEndpoint")),
    });
    fields.ignore(&["status"]);
    fields.end()
}
