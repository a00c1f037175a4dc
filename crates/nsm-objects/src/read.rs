//! Reading: a text of several documents, or the parts of an object that an API server holds.

mod endpoint;
mod fields;
mod service;

use nsm_proto::registry::NetworkServiceEndpoint;
use serde_json::Value;

use crate::{API_VERSION, API_VERSION_2019, ENDPOINT, Object, SERVICE, Service};
use fields::Fields;
pub use fields::Wrong;

/// What is wrong with a document.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No YAML.
    #[error("{0}")]
    Syntax(String),
    /// A value that makes no sense there.
    #[error("document {document}: {wrong}")]
    Value {
        /// Which document, from 1.
        document: usize,
        /// What is wrong in it.
        wrong: Wrong,
    },
    /// Nothing to do.
    #[error("no NetworkService and no NetworkServiceEndpoint in it")]
    Empty,
}

/// All objects of a text of one or several documents.
pub fn parse(text: &str) -> Result<Vec<Object>, Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| Error::Syntax(error.to_string()))?;
    let mut objects = Vec::new();
    for (at, document) in documents.iter().enumerate() {
        if !document.is_null() {
            read(document, "", &mut objects).map_err(|wrong| Error::Value { document: at + 1, wrong })?;
        }
    }
    if objects.is_empty() { Err(Error::Empty) } else { Ok(objects) }
}

fn read(document: &Value, place: &str, objects: &mut Vec<Object>) -> Result<(), Wrong> {
    let mut fields = Fields::of(document, place)?;
    let (kind, version) = (fields.text(&["kind"])?, fields.text(&["apiVersion"])?);
    if kind == "List" {
        for (item, place) in fields.list(&["items"])? {
            read(item, &place, objects)?;
        }
        return Ok(());
    }
    if ![API_VERSION, API_VERSION_2019].contains(&version.as_str()) {
        return Err(fields.wrong("apiVersion", &version.into(), API_VERSION));
    }
    let mut metadata = fields.object(&["metadata"])?;
    let name = metadata.text(&["name"])?;
    metadata.check_name("name", &name)?;
    // Labels, annotations, namespace and what an API server adds are kubectl's.
    metadata.ignore_rest();
    let spec = fields.object(&["spec"])?;
    objects.push(match kind.as_str() {
        SERVICE => Object::Service(service::read(name, spec)?),
        ENDPOINT => Object::Endpoint(endpoint::read(name, spec)?),
        _ => return Err(fields.wrong("kind", &kind.into(), "NetworkService or NetworkServiceEndpoint")),
    });
    fields.ignore(&["status"]);
    fields.end()
}

/// A network service of an API server: `name` is that of its metadata, which one in `spec` overrules.
pub fn service(name: &str, spec: &Value) -> Result<Service, Wrong> {
    service::read(name.to_owned(), Fields::of(spec, "spec")?)
}

/// An endpoint of an API server: `name` is that of its metadata, which one in `spec` overrules.
pub fn endpoint(name: &str, spec: &Value) -> Result<NetworkServiceEndpoint, Wrong> {
    endpoint::read(name.to_owned(), Fields::of(spec, "spec")?)
}
