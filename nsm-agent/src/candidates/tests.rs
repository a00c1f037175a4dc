//! Choice and explanation agree; matches, fallthrough, weights and turns do what they say.

use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    sync::Arc,
    time::Instant,
};

use nsm_objects::Access;
use nsm_proto::registry::{Destination, Match, Metadata, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels};
use nsm_sdk::Kind;
use proptest::prelude::*;

use super::*;
use crate::registry::{Party, testing};

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn endpoint(name: &str, labels: BTreeMap<String, String>) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint {
        name: name.to_owned(),
        network_service_names: vec!["s".to_owned()],
        network_service_labels: [("s".to_owned(), NetworkServiceLabels { labels })].into(),
        ..NetworkServiceEndpoint::default()
    }
}

fn route(destination_selector: BTreeMap<String, String>) -> Destination {
    Destination { destination_selector, weight: 0 }
}

fn found(source_selector: BTreeMap<String, String>, routes: Vec<Destination>) -> Match {
    Match { source_selector, routes, ..Match::default() }
}

fn directory(matches: Vec<Match>, endpoints: Vec<NetworkServiceEndpoint>) -> Arc<Directory> {
    let service = NetworkService { name: "s".to_owned(), matches, ..NetworkService::default() };
    testing::directory([service], endpoints)
}

fn names(directory: &Arc<Directory>, labels: &BTreeMap<String, String>) -> Vec<String> {
    let wanted = Wanted { service: "s", labels, endpoint: "", client: &Party::Unknown };
    candidates(directory, wanted).into_iter().flatten().map(|entry| entry.message.name.clone()).collect()
}

fn firewalls() -> Vec<NetworkServiceEndpoint> {
    vec![
        endpoint("gateway", labels([("app", "gateway")])),
        endpoint("firewall-1", labels([("app", "firewall")])),
        endpoint("firewall-2", labels([("app", "firewall")])),
    ]
}

#[test]
fn the_first_match_that_fits_decides() {
    let chain = vec![
        found(labels([("app", "firewall")]), vec![route(labels([("app", "gateway")]))]),
        found(labels([]), vec![route(labels([("app", "firewall")]))]),
    ];
    let directory = directory(chain, firewalls());
    assert_eq!(names(&directory, &labels([("app", "firewall")])), ["gateway"]);
    assert_eq!(names(&directory, &labels([])), ["firewall-1", "firewall-2"]);
    assert_eq!(names(&directory, &labels([])), ["firewall-2", "firewall-1"], "the next request begins with the next");
    let fits = |app, endpoint| fits(&directory, "s", &labels([("app", app)]), endpoint);
    assert!(fits("firewall", "gateway") && !fits("firewall", "firewall-1"));
    assert!(fits("other", "firewall-1") && !fits("other", "gateway"));
    assert!(fits("other", "nobody"), "nobody can say");
}

#[test]
fn without_matches_all_fit_and_without_a_fitting_match_none() {
    assert_eq!(names(&directory(vec![], firewalls()), &labels([])).len(), 3);
    let strict = directory(vec![found(labels([("a", "b")]), vec![route(labels([]))])], firewalls());
    let wanted = Wanted { service: "s", labels: &labels([("a", "c")]), endpoint: "", client: &Party::Unknown };
    let error = candidates(&strict, wanted).unwrap_err();
    assert_eq!(error.to_string(), "no endpoint of \"s\" matches a=c; 3 registered: nsmctl describe networkservice s");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(matches!(
        candidates(&strict, Wanted { service: "t", ..wanted }),
        Err(Error::NoService(name)) if name == "t"
    ));
}

#[test]
fn fallthrough_goes_on_and_metadata_lets_all_through() {
    let none = || found(labels([]), vec![route(labels([("app", "none")]))]);
    let last = || Match { metadata: Some(Metadata::default()), ..Match::default() };
    let through = directory(vec![Match { fallthrough: true, ..none() }, last()], firewalls());
    assert_eq!(names(&through, &labels([])).len(), 3);
    let stops = directory(vec![none(), last()], firewalls());
    assert_eq!(names(&stops, &labels([])).len(), 0);
    assert_eq!(names(&directory(vec![Match::default()], firewalls()), &labels([])).len(), 0);
}

#[test]
fn a_lost_endpoint_stops_fallthrough_and_says_that_it_returns() {
    let first = found(labels([]), vec![route(labels([("app", "firewall")]))]);
    let matches = vec![Match { fallthrough: true, ..first }, found(labels([]), vec![route(labels([]))])];
    let mut lost = endpoint("firewall", labels([("app", "firewall")]));
    lost.url = "inode://4/5".into();
    let directory = directory(matches, vec![lost, endpoint("gateway", labels([("app", "gateway")]))]);
    let error =
        candidates(&directory, Wanted { service: "s", labels: &labels([]), endpoint: "", client: &Party::Unknown })
            .unwrap_err();
    assert!(error.returning(), "{error}");
    assert!(error.to_string().contains("firewall: its socket was lost"), "{error}");
}

#[test]
fn an_endpoint_that_cannot_be_called_is_no_candidate_and_says_why() {
    let far = |name: &str| {
        let url = format!("tcp://{name}:5001");
        NetworkServiceEndpoint { url, ..endpoint(name, labels([("app", "firewall")])) }
    };
    let first = found(labels([]), vec![route(labels([("app", "firewall")]))]);
    let matches = vec![Match { fallthrough: true, ..first }, found(labels([]), vec![route(labels([]))])];
    let directory = directory(matches, vec![far("one"), far("two"), endpoint("gateway", labels([("app", "gateway")]))]);
    let error =
        candidates(&directory, Wanted { service: "s", labels: &labels([]), endpoint: "", client: &Party::Unknown })
            .unwrap_err();
    let text = error.to_string();
    assert!(text.contains("one: its URL \"tcp://one:5001\" is none") && text.contains("two: its URL"), "{text}");
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(!error.returning(), "nobody comes back by waiting");
    let explained = explain(&directory, "s", &labels([]), &Party::Unknown).unwrap();
    assert!(explained.endpoints.iter().all(|endpoint| !endpoint.candidate), "{explained:?}");
    assert!(explained.endpoints[0].reason.contains("tcp://one:5001"), "{explained:?}");
}

#[test]
fn another_domain_is_refused_by_name() {
    let directory = directory(vec![], firewalls());
    for wanted in [
        Wanted { service: "s@example.org", labels: &labels([]), endpoint: "", client: &Party::Unknown },
        Wanted { service: "s", labels: &labels([]), endpoint: "gateway@example.org", client: &Party::Unknown },
    ] {
        let error = candidates(&directory, wanted).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid, "{error}");
        assert!(error.to_string().contains("@example.org"), "{error}");
    }
    assert_eq!(service(&directory, "s@example.org").unwrap_err().kind(), Kind::Invalid);
    assert_eq!(explain(&directory, "s@example.org", &labels([]), &Party::Unknown).unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn to_look_takes_no_turn() {
    let directory = directory(vec![], firewalls());
    let wanted = Wanted { service: "s", labels: &labels([]), endpoint: "", client: &Party::Unknown };
    let foreseen =
        || -> Vec<String> { foreseen(&directory, wanted).unwrap().map(|entry| entry.message.name.clone()).collect() };
    for _ in 0..4 {
        let seen = foreseen();
        assert_eq!(seen, foreseen());
        assert_eq!(seen, names(&directory, &labels([])), "what was foreseen is what is done");
    }
}

#[test]
fn a_selector_can_ask_for_the_clients_own_labels() {
    let matches = vec![found(labels([]), vec![route(labels([("for", "{{ .podName }}")]))])];
    let endpoints = vec![endpoint("a", labels([("for", "a")])), endpoint("b", labels([("for", "b")]))];
    let directory = directory(matches, endpoints);
    assert_eq!(names(&directory, &labels([("podName", "b")])), ["b"]);
    assert_eq!(names(&directory, &labels([])).len(), 0);
    let explained = explain(&directory, "s", &labels([]), &Party::Unknown).unwrap();
    assert!(explained.endpoints[0].reason.contains("the client has no label podName"), "{explained:?}");
}

#[test]
fn a_named_endpoint_is_the_only_one() {
    let directory = directory(vec![], firewalls());
    let wanted = Wanted { service: "s", labels: &labels([]), endpoint: "gateway", client: &Party::Unknown };
    let only: Vec<_> = candidates(&directory, wanted).unwrap().map(|entry| entry.message.name.clone()).collect();
    assert_eq!(only, ["gateway"]);
    let unknown = candidates(&directory, Wanted { endpoint: "other", ..wanted }).unwrap_err();
    assert_eq!(unknown.kind(), Kind::NotFound, "{unknown}");
}

#[test]
fn a_named_endpoint_must_offer_the_service() {
    let services = ["s", "t"].map(|name| NetworkService { name: name.to_owned(), ..NetworkService::default() });
    let directory = testing::directory(services, firewalls());
    let wanted = Wanted { service: "t", labels: &labels([]), endpoint: "gateway", client: &Party::Unknown };
    let error = candidates(&directory, wanted).unwrap_err();
    assert_eq!(error.to_string(), "endpoint \"gateway\" does not offer network service \"t\", but s");
    assert_eq!(error.kind(), Kind::Invalid);
}

#[test]
fn weights_share_the_turns() {
    let weighed = |app: &str, weight| Destination { destination_selector: labels([("app", app)]), weight };
    let directory =
        directory(vec![found(labels([]), vec![weighed("firewall", 3), weighed("gateway", 1)])], firewalls());
    let mut turns = BTreeMap::<String, usize>::new();
    for _ in 0..40 {
        let order = names(&directory, &labels([]));
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), 3, "all are candidates: {order:?}");
        *turns.entry(order[0].clone()).or_default() += 1;
    }
    assert_eq!(turns["gateway"], 10);
    assert_eq!(turns["firewall-1"] + turns["firewall-2"], 30);
    assert!(turns["firewall-1"].abs_diff(turns["firewall-2"]) <= 1, "{turns:?}");
}

#[test]
fn explanations_say_what_is_missing() {
    let matches = vec![
        found(labels([("app", "firewall")]), vec![]),
        found(labels([]), vec![route(labels([("app", "gateway")]))]),
    ];
    let explained = explain(&directory(matches, firewalls()), "s", &labels([]), &Party::Unknown).unwrap();
    assert_eq!(explained.matches[0].reason, "label app=firewall is missing");
    assert_eq!(explained.decided_by, Some(1));
    let reasons: Vec<_> = explained.endpoints.iter().map(|verdict| verdict.reason.as_str()).collect();
    assert_eq!(
        reasons,
        ["has app=gateway", "label app is firewall, not gateway", "label app is firewall, not gateway"]
    );
    assert_eq!(explained.summary, "match 1 decides for a client without labels: 1 of 3 endpoints are candidates");
}

fn any_labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[abc]", "[xyz]", 0..3)
}

fn any_selector() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = prop_oneof![4 => "[xyz]", 1 => Just("{{ .a }}".to_owned()), 1 => Just("{{ oops".to_owned())];
    prop::collection::btree_map("[abc]", value, 0..3)
}

fn any_match() -> impl Strategy<Value = Match> {
    let routes = prop::collection::vec((any_selector(), 0..3_u32), 0..3);
    (any_selector(), routes, any::<bool>(), any::<bool>()).prop_map(
        |(source_selector, routes, fallthrough, metadata)| {
            let routes = routes.into_iter();
            Match {
                source_selector,
                routes: routes
                    .map(|(destination_selector, weight)| Destination { destination_selector, weight })
                    .collect(),
                fallthrough,
                metadata: metadata.then(Metadata::default),
            }
        },
    )
}

proptest! {
    #[test]
    fn choice_and_explanation_agree(
        matches in prop::collection::vec(any_match(), 0..4),
        endpoints in prop::collection::vec((any_labels(), prop::bool::weighted(0.2)), 0..8),
        client in any_labels(),
        turns in 0..4_usize,
    ) {
        let endpoints = endpoints.into_iter().enumerate().map(|(at, (labels, lost))| {
            let url = if lost { "inode://1/2" } else { "unix:///run/nse.sock" };
            NetworkServiceEndpoint { url: url.into(), ..endpoint(&format!("nse-{at}"), labels) }
        });
        let directory = directory(matches, endpoints.collect());
        for _ in 0..turns {
            names(&directory, &client);
        }
        let wanted = Wanted { service: "s", labels: &client, endpoint: "", client: &Party::Unknown };
        let first = foreseen(&directory, wanted).ok().and_then(|mut all| all.next()).map(|e| e.message.name.clone());
        let chosen = names(&directory, &client);
        let explained = explain(&directory, "s", &client, &Party::Unknown).unwrap();
        let fit: BTreeSet<_> = explained.endpoints.iter().filter(|e| e.candidate).map(|e| e.name.clone()).collect();
        prop_assert_eq!(chosen.iter().cloned().collect::<BTreeSet<_>>(), fit.clone());
        prop_assert_eq!(chosen.len(), fit.len(), "nobody is tried twice: {:?}", chosen);
        prop_assert_eq!(chosen.first(), first.as_ref(), "what was foreseen is what is done");
    }

    #[test]
    fn templates_never_panic(text in any::<String>()) {
        let _ = Template::parse(&text);
    }
}

/// Median time of Find for the service and the choice of a candidate, by these matches.
fn choice_ns(count: usize, matches: &[Match]) -> u128 {
    let endpoints = (0..count).map(|at| {
        let zone = format!("zone-{}", at % 5);
        endpoint(
            &format!("nse-{at}"),
            labels([("app", "firewall"), ("zone", &zone), ("podName", &format!("pod-{at}"))]),
        )
    });
    let directory = directory(matches.to_vec(), endpoints.collect());
    let client = labels([("zone", "zone-3")]);
    let template = NetworkService { name: "s".into(), ..NetworkService::default() };
    let mut times: Vec<_> = (0..2001)
        .map(|_| {
            let start = Instant::now();
            black_box(directory.find_services(&template).unwrap());
            let chosen =
                candidates(&directory, Wanted { service: "s", labels: &client, endpoint: "", client: &Party::Unknown });
            let _ = black_box(chosen.map(|mut all| all.next()));
            start.elapsed().as_nanos()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2]
}

/// How much more the choice takes among 10,000 endpoints than among ten.
fn growth(matches: &[Match]) -> f64 {
    // Neighbours on the machine disturb single measurements: the best of five is the code's own.
    let ratio =
        |(few, many): (u128, u128)| f64::from(u32::try_from(many).unwrap()) / f64::from(u32::try_from(few).unwrap());
    (0..5).map(|_| ratio((choice_ns(10, matches), choice_ns(10_000, matches)))).fold(f64::MAX, f64::min)
}

#[test]
fn ten_thousand_endpoints_cost_what_ten_cost() {
    let selector = labels([("app", "firewall"), ("zone", "{{ .zone }}")]);
    let growth = growth(&[found(labels([]), vec![route(selector)])]);
    println!("find and choice at 10,000 endpoints against 10: {growth:.2}");
    assert!(growth <= 1.5, "{growth:.2}");
}

#[test]
fn that_none_of_ten_thousand_fits_costs_what_none_of_ten_does() {
    let nobody = || found(labels([]), vec![route(labels([("app", "nobody's")]))]);
    let falls = Match { fallthrough: true, ..nobody() };
    let selector = labels([("app", "firewall"), ("zone", "{{ .zone }}")]);
    for matches in [vec![falls.clone(), found(labels([]), vec![route(selector)])], vec![falls, nobody()]] {
        let growth = growth(&matches);
        println!("find and choice past a match without endpoints, at 10,000 against 10: {growth:.2}");
        assert!(growth <= 1.5, "{growth:.2}");
    }
}

/// A service of the namespace `home` for clients and endpoints of the namespaces `client` and `good`.
fn closed(matches: Vec<Match>) -> Service {
    let service = NetworkService { name: "s".to_owned(), matches, ..NetworkService::default() };
    let access = Access { clients: Some(vec!["client".into()]), endpoints: Some(vec!["good".into()]) };
    Service { access, namespace: Some("home".into()), ..testing::open(service) }
}

fn of(namespace: &str, endpoint: NetworkServiceEndpoint) -> (NetworkServiceEndpoint, Party) {
    (endpoint, Party::Namespace(namespace.into()))
}

#[test]
fn who_may_not_use_it_gets_nobody() {
    let directory = testing::directory_of([closed(vec![])], [of("good", endpoint("e", labels([])))]);
    for (client, allowed) in [("client", true), ("other", false)] {
        let client = Party::Namespace(client.into());
        let named = Wanted { service: "s", labels: &labels([]), endpoint: "e", client: &client };
        for wanted in [named, Wanted { endpoint: "", ..named }] {
            let chosen = candidates(&directory, wanted).map(Iterator::count);
            let refused = || chosen.clone().unwrap_err();
            assert_eq!(chosen.is_ok(), allowed, "{chosen:?}");
            assert!(allowed || (refused().kind() == Kind::Denied && refused().to_string().contains("namespace other")));
        }
        let explained = explain(&directory, "s", &labels([]), &client).unwrap();
        assert_eq!(explained.endpoints[0].candidate, allowed, "{explained:?}");
    }
}

#[test]
fn who_may_not_serve_it_is_never_chosen_and_decides_nothing() {
    // Whoever calls itself the firewall would send clients into the void, or past the real one.
    let falls = Match { fallthrough: true, ..found(labels([]), vec![route(labels([("app", "firewall")]))]) };
    let chain = || vec![falls.clone(), found(labels([]), vec![route(labels([("app", "gateway")]))])];
    let of_all = [of("bad", firewalls().remove(1)), of("good", firewalls().remove(0))];
    let directory = testing::directory_of([closed(chain())], of_all);
    let client = Party::Namespace("client".into());
    let chosen = |directory: &Arc<Directory>| {
        let wanted = Wanted { service: "s", labels: &labels([]), endpoint: "", client: &client };
        candidates(directory, wanted).map(|found| found.map(|entry| entry.message.name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(chosen(&directory).unwrap(), ["gateway"]);
    let explained = explain(&directory, "s", &labels([]), &client).unwrap();
    let bad = explained.endpoints.iter().find(|endpoint| endpoint.name == "firewall-1").unwrap();
    assert!(bad.reason.contains("namespace bad may not serve") && !bad.candidate, "{bad:?}");
    let named = Wanted { service: "s", labels: &labels([]), endpoint: "firewall-1", client: &client };
    assert_eq!(candidates(&directory, named).unwrap_err().kind(), Kind::Denied);
    // The rule changes: it is the firewall from now on, and then the gateway is not.
    let with = |names: &[&str]| {
        let endpoints = Some(names.iter().map(|name| (*name).to_owned()).collect());
        let access = Access { clients: None, endpoints };
        testing::put_service(&directory, Service { access, ..closed(chain()) });
    };
    with(&["good", "bad"]);
    assert_eq!(chosen(&directory).unwrap(), ["firewall-1"]);
    with(&[]);
    let error = chosen(&directory).unwrap_err();
    assert!(matches!(&error, Error::MayNotServe { each, .. } if each.len() == 1), "{error}");
    testing::take_service(&directory, "s");
    assert!(matches!(chosen(&directory), Err(Error::NoService(_))));
    testing::put_service(&directory, testing::open(NetworkService { name: "s".into(), ..NetworkService::default() }));
    assert_eq!(chosen(&directory).unwrap().len(), 2, "without a rule, everybody");
}
