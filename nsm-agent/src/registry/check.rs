//! Bounds of what peers may register. Names and labels come from anywhere: each is checked before anything is kept.

use std::collections::BTreeMap;

use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use prost::Message;

use super::Error;
use crate::candidates::Template;

/// Longest name or label, in bytes.
pub(super) const NAME_BYTES: usize = 253;
/// Most services of one endpoint.
pub(super) const SERVICES: usize = 64;
/// Most labels of one endpoint or selector.
pub(super) const LABELS: usize = 256;
/// Most matches of one service, routes of one match, path ids of one object.
pub(super) const PARTS: usize = 256;
/// Largest object, encoded.
pub(super) const OBJECT_BYTES: usize = 64 * 1024;
/// Most services of one template, most labels of it: nobody looks for endpoints by more than a few.
const TEMPLATE_PARTS: usize = 8;
/// Largest template, encoded. It is compared with what is registered while everybody else waits.
const TEMPLATE_BYTES: usize = 8 * 1024;

/// Checks a service, and gives it the payload that one without has.
pub(super) fn service(service: &mut NetworkService) -> Result<(), Error> {
    name("name", &service.name)?;
    if service.payload.is_empty() {
        nsm_proto::payload::IP.clone_into(&mut service.payload);
    }
    if ![nsm_proto::payload::IP, nsm_proto::payload::ETHERNET].contains(&service.payload.as_str()) {
        return Err(invalid("payload", &service.payload, "IP or ETHERNET"));
    }
    count("matches", service.matches.len(), PARTS)?;
    for (at, found) in service.matches.iter().enumerate() {
        selector(&format!("matches[{at}].source_selector"), &found.source_selector)?;
        count(&format!("matches[{at}].routes"), found.routes.len(), PARTS)?;
        for (to, route) in found.routes.iter().enumerate() {
            selector(&format!("matches[{at}].routes[{to}].destination_selector"), &route.destination_selector)?;
        }
        if let Some(metadata) = &found.metadata {
            labels(&format!("matches[{at}].metadata.labels"), &metadata.labels)?;
        }
    }
    path_ids(&service.path_ids)?;
    size(service.encoded_len())
}

/// Checks an endpoint.
pub(super) fn endpoint(endpoint: &NetworkServiceEndpoint) -> Result<(), Error> {
    name("name", &endpoint.name)?;
    count("network_service_names", endpoint.network_service_names.len(), SERVICES)?;
    if endpoint.network_service_names.is_empty() {
        return Err(invalid("network_service_names", "", "at least one network service"));
    }
    for (at, service) in endpoint.network_service_names.iter().enumerate() {
        name(&format!("network_service_names[{at}]"), service)?;
    }
    let mut total = 0;
    for (service, of_service) in &endpoint.network_service_labels {
        name("network_service_labels", service)?;
        labels(&format!("network_service_labels[{service:?}].labels"), &of_service.labels)?;
        total += of_service.labels.len();
    }
    count("network_service_labels", total, LABELS)?;
    if endpoint.url.len() > 4096 || endpoint.url.chars().any(char::is_control) {
        return Err(invalid("url", &endpoint.url, "a URL of at most 4096 bytes"));
    }
    for (field, time) in [
        ("expiration_time", &endpoint.expiration_time),
        ("initial_registration_time", &endpoint.initial_registration_time),
    ] {
        if let Some(time) = time
            && std::time::SystemTime::try_from(*time).is_err()
        {
            return Err(invalid(field, &format!("{}.{}", time.seconds, time.nanos), "a time that can be represented"));
        }
    }
    path_ids(&endpoint.path_ids)?;
    size(endpoint.encoded_len())
}

/// Checks what a peer looks for among services.
pub(super) fn service_template(template: &NetworkService) -> Result<(), Error> {
    template_size(template.encoded_len())?;
    template_name("name", &template.name)?;
    count("matches", template.matches.len(), PARTS)?;
    path_ids(&template.path_ids)
}

/// Checks what a peer looks for among endpoints; what it says twice counts once.
pub(super) fn endpoint_template(template: &mut NetworkServiceEndpoint) -> Result<(), Error> {
    template_size(template.encoded_len())?;
    template_name("name", &template.name)?;
    let services = &mut template.network_service_names;
    services.sort_unstable();
    services.dedup();
    count("network_service_names", services.len(), TEMPLATE_PARTS)?;
    for (at, service) in services.iter().enumerate() {
        name(&format!("network_service_names[{at}]"), service)?;
    }
    let mut total = 0;
    for (service, of_service) in &template.network_service_labels {
        name("network_service_labels", service)?;
        labels(&format!("network_service_labels[{service:?}].labels"), &of_service.labels)?;
        total += of_service.labels.len().max(1);
    }
    count("network_service_labels", total, TEMPLATE_PARTS)?;
    path_ids(&template.path_ids)
}

fn template_name(field: &str, value: &str) -> Result<(), Error> {
    if value.is_empty() { Ok(()) } else { name(field, value) }
}

fn template_size(bytes: usize) -> Result<(), Error> {
    if bytes > TEMPLATE_BYTES {
        return Err(invalid("template", &format!("{bytes} bytes"), &format!("at most {TEMPLATE_BYTES} bytes")));
    }
    Ok(())
}

/// Refuses names of other domains in what is looked for.
pub(crate) fn own_domain<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<(), Error> {
    match names.into_iter().find(|name| name.as_ref().contains('@')) {
        Some(name) => Err(Error::OtherDomain(shown(name.as_ref()))),
        None => Ok(()),
    }
}

fn name(field: &str, name: &str) -> Result<(), Error> {
    if name.contains('@') {
        return Err(Error::OtherDomain(shown(name)));
    }
    if name.is_empty() || name.len() > NAME_BYTES || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(invalid(field, name, "1 to 253 bytes without blanks and control characters"));
    }
    Ok(())
}

fn selector(field: &str, selector: &BTreeMap<String, String>) -> Result<(), Error> {
    labels(field, selector)?;
    for (key, value) in selector {
        if let Err(error) = Template::parse(value) {
            return Err(invalid(&format!("{field}[{key:?}]"), value, &error.to_string()));
        }
    }
    Ok(())
}

fn labels(field: &str, labels: &BTreeMap<String, String>) -> Result<(), Error> {
    count(field, labels.len(), LABELS)?;
    for (key, value) in labels {
        if key.is_empty() || key.len() > NAME_BYTES || key.chars().any(char::is_control) {
            return Err(invalid(field, key, "keys of 1 to 253 bytes without control characters"));
        }
        if value.len() > NAME_BYTES || value.chars().any(char::is_control) {
            let field = format!("{field}[{key:?}]");
            return Err(invalid(&field, value, "at most 253 bytes without control characters"));
        }
    }
    Ok(())
}

fn path_ids(ids: &[String]) -> Result<(), Error> {
    count("path_ids", ids.len(), PARTS)
}

fn count(field: &str, have: usize, most: usize) -> Result<(), Error> {
    if have > most {
        return Err(invalid(field, &format!("{have} entries"), &format!("at most {most}")));
    }
    Ok(())
}

fn size(bytes: usize) -> Result<(), Error> {
    if bytes > OBJECT_BYTES {
        return Err(invalid("object", &format!("{bytes} bytes"), &format!("at most {OBJECT_BYTES} bytes")));
    }
    Ok(())
}

fn invalid(field: &str, value: &str, expected: &str) -> Error {
    Error::Invalid { field: field.to_owned(), value: shown(value), expected: expected.to_owned() }
}

/// Enough of a peer's text to recognise it.
fn shown(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str) -> NetworkServiceEndpoint {
        NetworkServiceEndpoint {
            name: name.into(),
            network_service_names: vec!["firewall".into()],
            ..NetworkServiceEndpoint::default()
        }
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(endpoint(&of("nse-1")), Ok(()));
        for name in ["", "a b", "a\nb", &"x".repeat(300)] {
            assert!(matches!(endpoint(&of(name)), Err(Error::Invalid { .. })), "{name:?}");
        }
        assert!(matches!(endpoint(&of("nse@other.domain")), Err(Error::OtherDomain(_))));
    }

    #[test]
    fn lists_are_bounded() {
        let mut many = of("nse");
        many.network_service_names = (0..65).map(|n| format!("s{n}")).collect();
        assert!(endpoint(&many).unwrap_err().to_string().contains("65 entries"));
        many.network_service_names.clear();
        assert!(endpoint(&many).is_err());
    }

    #[test]
    fn templates_are_bounded() {
        let of = |names: Vec<String>| NetworkServiceEndpoint { network_service_names: names, ..Default::default() };
        let mut repeated = of(vec!["s".into(); 100]);
        endpoint_template(&mut repeated).unwrap();
        assert_eq!(repeated.network_service_names, ["s"], "one comparison, not a hundred");
        let mut flood = of(vec!["s".into(); 350_000]);
        assert!(endpoint_template(&mut flood).unwrap_err().to_string().contains("at most 8192 bytes"));
        let mut many = of((0..9).map(|n| format!("s{n}")).collect());
        assert!(endpoint_template(&mut many).unwrap_err().to_string().contains("9 entries"));
        assert!(matches!(endpoint_template(&mut of(vec!["s@d".into()])), Err(Error::OtherDomain(_))));
        assert_eq!(endpoint_template(&mut of(vec![])), Ok(()), "anything");
        let service = NetworkService { path_ids: vec!["x".repeat(100); 100], ..NetworkService::default() };
        assert!(service_template(&service).is_err());
    }

    #[test]
    fn a_service_without_payload_carries_ip() {
        let mut plain = NetworkService { name: "firewall".into(), ..NetworkService::default() };
        service(&mut plain).unwrap();
        assert_eq!(plain.payload, "IP");
        plain.payload = "TEA".into();
        assert!(service(&mut plain).unwrap_err().to_string().contains("IP or ETHERNET"));
    }
}
