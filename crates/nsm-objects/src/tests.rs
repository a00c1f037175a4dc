//! Both spellings, several documents, nonsense; what is written is read again.

use proptest::prelude::*;

use super::{read::Error, *};

const V1: &str = "
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: { name: secure, namespace: nsm-system, labels: { a: b } }
spec:
  payload: IP
  matches:
    - source_selector: { app: firewall }
      routes: [ { destination_selector: { app: vpn-gateway }, weight: 2 } ]
    - fallthrough: true
      routes: [ { destination_selector: { app: firewall, for: '{{ .podName }}' } } ]
";

fn service(text: &str) -> NetworkService {
    described(text).message
}

fn described(text: &str) -> Service {
    match parse(text).unwrap().remove(0) {
        Object::Service(service) => service,
        Object::Endpoint(endpoint) => panic!("{endpoint:?}"),
    }
}

fn refused(spec: &str) -> String {
    let head = "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: { name: s }\nspec: ";
    parse(&format!("{head}{spec}")).unwrap_err().to_string()
}

#[test]
fn the_spelling_of_v1() {
    let secure = service(V1);
    assert_eq!(secure.matches.len(), 2);
    assert_eq!(secure.matches[0].source_selector["app"], "firewall");
    assert_eq!(secure.matches[0].routes[0].weight, 2);
    assert!(secure.matches[1].fallthrough);
}

#[test]
fn the_spellings_of_2019_mean_the_same() {
    let head = "apiVersion: networkservicemesh.io/v1alpha1\nkind: NetworkService\nmetadata: { name: s }\nspec:\n  payload: IP\n";
    let v1 = "  matches: [ { source_selector: { app: firewall }, routes: [ { destination_selector: { app: gw } } ] } ]";
    let headings = "  matches:
    - match:
      sourceSelector:
        app: firewall
      route:
        - destination:
          destinationSelector:
            app: gw";
    let nested = "  matches:
    - match:
        sourceSelector: { app: firewall }
        route:
          - destination:
              destinationSelector: { app: gw }";
    let expected = service(&format!("{head}{v1}"));
    assert_eq!(service(&format!("{head}{headings}")), expected);
    assert_eq!(service(&format!("{head}{nested}")), expected);
}

#[test]
fn several_documents_and_lists() {
    let nse = "apiVersion: networkservicemesh.io/v1
kind: NetworkServiceEndpoint
metadata: { name: e }
spec:
  network_service_names: [secure]
  network_service_labels: { secure: { labels: { app: firewall } } }
  url: tcp://10.0.0.7:5001
  expiration_time: { seconds: 2000000000, nanos: 5 }
";
    let objects = parse(&format!("---\n{V1}\n---\n{nse}\n---\n")).unwrap();
    assert_eq!(objects.iter().map(Object::name).collect::<Vec<_>>(), ["secure", "e"]);
    let Object::Endpoint(endpoint) = &objects[1] else { panic!("{objects:?}") };
    assert_eq!(endpoint.network_service_labels["secure"].labels["app"], "firewall");
    assert_eq!(endpoint.expiration_time.unwrap().nanos, 5);
    let items = "{apiVersion: v1, kind: List, items: [{apiVersion: networkservicemesh.io/v1, kind: NetworkService, metadata: {name: s}}]}";
    assert_eq!(parse(items).unwrap()[0].name(), "s");
}

#[test]
fn nonsense_is_refused_by_name() {
    for (spec, text) in [
        ("{ payload: TEA }", "document 1: spec.payload: \"TEA\": expected IP or ETHERNET"),
        ("{ machtes: [] }", "spec.machtes: []: expected one of the keys"),
        ("{ matches: {} }", "spec.matches: {}: expected a list"),
        (
            "{ matches: [ { source_selector: { port: 80 } } ] }",
            "spec.matches[0].source_selector.port: 80: expected a string, quoted",
        ),
        (
            "{ matches: [ { routes: [ { weight: -1 } ] } ] }",
            "spec.matches[0].routes[0].weight: -1: expected a whole number",
        ),
        ("{ matches: [], match: [] }", "only one of it and"),
        (
            "{ allowed_client_namespaces: [ Shop ] }",
            "spec.allowed_client_namespaces: \"Shop\": expected names of namespaces, or * for all",
        ),
        ("{ allowed_endpoint_namespaces: [ 7 ] }", "spec.allowed_endpoint_namespaces[0]: 7: expected a string"),
        (
            "{ allowed_client_namespaces: [ a ], allowedClientNamespaces: [ b ] }",
            "expected only one of it and spec.allowed_client_namespaces",
        ),
        ("{ name: a b }", "spec.name: \"a b\": expected a name of 1 to 253 bytes"),
    ] {
        assert!(refused(spec).contains(text), "{spec}: {}", refused(spec));
    }
    assert_eq!(parse("").unwrap_err(), Error::Empty);
    assert!(matches!(parse("{"), Err(Error::Syntax(_))));
    let other = parse("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {}}").unwrap_err().to_string();
    assert!(other.contains("apiVersion: \"v1\": expected networkservicemesh.io/v1"), "{other}");
}

#[test]
fn what_is_written_is_read_again() {
    let open = described(V1);
    assert!(open.access.is_default());
    let closed = Access { clients: Some(vec!["shop".into()]), endpoints: Some(Vec::new()) };
    for secure in [open.clone(), Service { access: closed, ..open }] {
        let written = crate::document(SERVICE, "secure", &crate::service_spec(&secure.message, &secure.access));
        assert_eq!(described(&written.to_string()), secure);
        assert_eq!(described(&serde_saphyr::to_string(&written).unwrap()), secure);
    }
}

#[test]
fn a_spelling_that_says_nothing_contradicts_nothing() {
    let spec = serde_json::json!({ "matches": null, "match": [ { "fallthrough": true } ] });
    assert_eq!(crate::service("s", &spec).unwrap().message.matches.len(), 1);
    assert!(crate::service("s", &serde_json::json!({ "matches": null, "match": null })).is_ok());
}

#[test]
fn a_name_that_metadata_cannot_hold_stands_in_the_spec() {
    let spec = serde_json::json!({ "name": "Firewall_1", "network_service_names": ["secure"] });
    assert_eq!(crate::endpoint("firewall-1-5f0c", &spec).unwrap().name, "Firewall_1");
    let spec = serde_json::json!({ "payload": "TEA" });
    assert_eq!(crate::service("s", &spec).unwrap_err().to_string(), "spec.payload: \"TEA\": expected IP or ETHERNET");
}

#[test]
fn who_may_use_and_serve_it() {
    let spec = serde_json::json!({ "allowedClientNamespaces": ["shop", "*"], "allowed_endpoint_namespaces": [] });
    let access = crate::service("s", &spec).unwrap().access;
    assert_eq!(access, Access { clients: Some(vec!["shop".into(), "*".into()]), endpoints: Some(Vec::new()) });
    let nothing = serde_json::json!({ "allowed_client_namespaces": null });
    assert!(crate::service("s", &nothing).unwrap().access.is_default());
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".{0,200}") {
        let _ = parse(&text);
    }
}
