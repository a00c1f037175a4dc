//! What Find looks for: an object whose unset fields fit anything.

use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};

/// Whether the service is one that the template asks for.
pub(super) fn service(template: &NetworkService, service: &NetworkService) -> bool {
    (template.name.is_empty() || template.name == service.name)
        && (template.payload.is_empty() || template.payload == service.payload)
        && (template.matches.is_empty() || template.matches == service.matches)
}

/// Whether the endpoint is one that the template asks for.
pub(super) fn endpoint(template: &NetworkServiceEndpoint, endpoint: &NetworkServiceEndpoint) -> bool {
    (template.name.is_empty() || template.name == endpoint.name)
        && template.network_service_names.iter().all(|name| endpoint.network_service_names.contains(name))
        && template.network_service_labels.iter().all(|(service, wanted)| {
            let have = endpoint.network_service_labels.get(service);
            wanted.labels.iter().all(|(key, value)| have.and_then(|have| have.labels.get(key)) == Some(value))
        })
        && endpoint.url.contains(&template.url)
        && template
            .expiration_time
            .is_none_or(|wanted| endpoint.expiration_time.is_some_and(|time| time.seconds == wanted.seconds))
}

#[cfg(test)]
mod tests {
    use nsm_proto::registry::NetworkServiceLabels;

    use super::*;

    fn nse() -> NetworkServiceEndpoint {
        let labels = NetworkServiceLabels {
            labels: [("app", "firewall"), ("zone", "a")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        };
        NetworkServiceEndpoint {
            name: "nse-1".into(),
            network_service_names: vec!["one".into(), "two".into()],
            network_service_labels: [("one".to_owned(), labels)].into(),
            url: "tcp://10.0.0.7:5001".into(),
            ..NetworkServiceEndpoint::default()
        }
    }

    #[test]
    fn every_set_field_must_fit() {
        let fits = |change: fn(&mut NetworkServiceEndpoint)| {
            let mut template = NetworkServiceEndpoint::default();
            change(&mut template);
            endpoint(&template, &nse())
        };
        assert!(fits(|_| ()));
        assert!(fits(|t| t.name = "nse-1".into()));
        assert!(!fits(|t| t.name = "nse".into()), "names are equal, not contained");
        assert!(fits(|t| t.network_service_names = vec!["two".into()]));
        assert!(!fits(|t| t.network_service_names = vec!["two".into(), "three".into()]));
        assert!(fits(|t| t.url = "10.0.0.7".into()));
        assert!(!fits(|t| t.url = "unix://".into()));
        assert!(fits(|t| {
            let zone = NetworkServiceLabels { labels: [("zone".to_owned(), "a".to_owned())].into() };
            t.network_service_labels.insert("one".into(), zone);
        }));
        assert!(!fits(|t| {
            let zone = NetworkServiceLabels { labels: [("zone".to_owned(), "a".to_owned())].into() };
            t.network_service_labels.insert("two".into(), zone);
        }));
        assert!(!fits(|t| t.expiration_time = Some(prost_types::Timestamp { seconds: 1, nanos: 0 })));
    }
}
