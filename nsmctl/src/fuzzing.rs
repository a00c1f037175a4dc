//! A door for fuzz targets: the reader of documents. No part of the API.

use nsm_objects::{Object, parse};
use nsm_proto::admin::Endpoint;

use crate::object;

/// Reads documents; what they say is shown as a document that says the same.
pub fn manifest(text: &str) {
    let Ok(objects) = parse(text) else { return };
    for object in objects {
        let shown = match &object {
            Object::Service(service) => {
                object::service(&service.message, object::sent(service.clone()).access.as_ref())
            }
            Object::Endpoint(endpoint) => {
                object::endpoint(&Endpoint { endpoint: Some(endpoint.clone()), ..Endpoint::default() })
            }
        };
        let shown = shown.to_string();
        assert_eq!(parse(&shown), Ok(vec![object]), "{shown}");
    }
}
