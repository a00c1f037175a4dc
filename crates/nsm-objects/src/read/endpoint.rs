//! `spec` of a `NetworkServiceEndpoint`.

use nsm_proto::registry::{NetworkServiceEndpoint, NetworkServiceLabels};
use prost_types::Timestamp;
use serde_json::Value;

use super::fields::{Fields, Wrong};

/// Reads an endpoint.
pub(super) fn read(name: String, mut spec: Fields<'_>) -> Result<NetworkServiceEndpoint, Wrong> {
    let name = spec.name(name)?;
    let mut names = spec.texts(&["network_service_names", "networkServiceNames"])?;
    let single = spec.optional_text(&["networkServiceName"])?;
    if !single.is_empty() {
        names.push(single);
    }
    if names.is_empty() {
        return Err(spec.wrong("network_service_names", &Value::Null, "a list of at least one network service"));
    }
    let by_service = spec.object(&["network_service_labels", "networkServiceLabels"])?;
    let mut labels = std::collections::BTreeMap::new();
    for (service, value) in by_service.entries() {
        let mut of_service = Fields::of(value, &by_service.place_of(service))?;
        labels.insert(service.clone(), NetworkServiceLabels { labels: of_service.labels(&["labels"])? });
        of_service.end()?;
    }
    let url = spec.optional_text(&["url"])?;
    let expiration_time = time(&mut spec, &["expiration_time", "expirationTime"])?;
    let initial_registration_time = time(&mut spec, &["initial_registration_time", "initialRegistrationTime"])?;
    let path_ids = spec.texts(&["path_ids", "pathIds"])?;
    spec.end()?;
    Ok(NetworkServiceEndpoint {
        name,
        network_service_names: names,
        network_service_labels: labels,
        url,
        expiration_time,
        initial_registration_time,
        path_ids,
    })
}

fn time(spec: &mut Fields<'_>, keys: &[&'static str]) -> Result<Option<Timestamp>, Wrong> {
    let Some(mut time) = spec.optional_object(keys)? else { return Ok(None) };
    let seconds = time.number(&["seconds"], "seconds since 1970")?;
    let nanos = time.number(&["nanos"], "nanoseconds")?;
    time.end()?;
    Ok(Some(Timestamp { seconds, nanos }))
}
