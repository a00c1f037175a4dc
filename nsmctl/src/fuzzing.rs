//! A door for fuzz targets: the reader of documents. No part of the API.

use nsm_proto::admin::Endpoint;

use crate::{
    manifest::{Object, parse},
    object,
};

/// Reads documents; what they say is shown as a document that says the same.
pub fn manifest(text: &str) {
    let Ok(objects) = parse(text) else { return };
    for object in objects {
        let (shown, object) = match object {
            // Whom an object came through is not shown.
            Object::Service(mut service) => {
                service.path_ids.clear();
                (object::service(&service), Object::Service(service))
            }
            Object::Endpoint(mut endpoint) => {
                endpoint.path_ids.clear();
                let shown = Endpoint { endpoint: Some(endpoint.clone()), ..Endpoint::default() };
                (object::endpoint(&shown), Object::Endpoint(endpoint))
            }
        };
        let shown = shown.to_string();
        assert_eq!(parse(&shown), Ok(vec![object]), "{shown}");
    }
}
