//! The embedded registry: ownership, durability, expiry, watches.

mod boots;
mod disk;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use futures::StreamExt;
use nsm_fdpass::InodeId;
use nsm_proto::registry::{Match, NetworkService, NetworkServiceEndpoint};
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::{processes::PodUid, state::Pod};

const SOON: Duration = Duration::from_secs(10);

fn peer(ino: u64) -> Owner {
    Owner::Peer { netns: InodeId { dev: 4, ino }, uid: 0 }
}

fn by(owner: Owner) -> Registrant {
    Registrant { owner, process: None, netns: None, socket: None, term: Term::Renewed { token: None } }
}

fn service(name: &str) -> NetworkService {
    NetworkService { name: name.into(), ..NetworkService::default() }
}

fn endpoint(name: &str) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: vec!["s".into()],
        url: "tcp://10.0.0.1:5001".into(),
        ..NetworkServiceEndpoint::default()
    }
}

fn settings(dir: &Path) -> Settings {
    let access = ServiceAccess::AnyNamespace;
    Settings { dir: dir.to_owned(), boot_id: "boot".into(), max_life: Duration::from_mins(1), access }
}

async fn open(dir: &TempDir) -> Registrar {
    Embedded::open(settings(dir.path()), Arc::new(())).await.unwrap()
}

async fn next<K: watch::Watched>(watch: &mut Watch<K>) -> Change<K> {
    timeout(SOON, watch.next()).await.expect("a change in time").expect("the watch is open")
}

#[tokio::test]
async fn who_goes_by_itself_does_not_return() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let returns = || registry.directory().may_return("e");
    registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
    assert!(registry.unregister_endpoint("e", Owner::Operator).await.unwrap());
    assert!(returns(), "its process was not asked");
    for other in [Owner::Operator, peer(2)] {
        assert!(!registry.unregister_endpoint("e", other).await.unwrap());
        assert!(returns());
    }
    assert!(!registry.unregister_endpoint("e", peer(1)).await.unwrap());
    assert!(!returns());
    registry.shutdown().await;
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    registry.register_service(service("s"), peer(1)).await.unwrap();
    registry.register_endpoint(endpoint("tcp"), by(peer(1))).await.unwrap();
    let registered = NetworkServiceEndpoint { url: "inode://4/5".into(), ..endpoint("unix") };
    let socket = Arc::new(std::os::fd::OwnedFd::from(fs::File::open("/dev/null").unwrap()));
    registry.register_endpoint(registered, Registrant { socket: Some(socket), ..by(peer(1)) }).await.unwrap();
    assert!(registry.directory().endpoint("unix").unwrap().unreachable().is_none());
    registry.shutdown().await;

    let again = open(&dir).await;
    let directory = again.directory();
    assert_eq!(directory.service("s").unwrap().owner, peer(1));
    assert_eq!(directory.service("s").unwrap().message.payload, "IP");
    assert_eq!(directory.endpoint("tcp").unwrap().standing(), Standing::Foreign);
    assert_eq!(directory.endpoint("unix").unwrap().standing(), Standing::Returning, "its socket is lost");
    let late = again.register_endpoint(endpoint("unix"), by(peer(2))).await.unwrap_err();
    assert!(matches!(late, Error::Taken { .. }), "the owner is remembered: {late}");
    again.shutdown().await;
}

#[tokio::test]
async fn objects_belong_to_who_registered_them() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
    let error = registry.register_endpoint(endpoint("e"), by(peer(2))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "endpoint \"e\" belongs to user 0 in network namespace 1: take another name, or have its owner unregister it"
    );
    assert!(matches!(registry.unregister_endpoint("e", peer(2)).await, Err(Error::NotYours { .. })));
    assert_eq!(registry.unregister_endpoint("unknown", peer(2)).await, Ok(false));
    let again = registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
    assert_eq!(again.outcome, Outcome::Unchanged);
    assert_eq!(registry.unregister_endpoint("e", Owner::Operator).await, Ok(true));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_start_up_registration_erases_no_matches() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let matched = NetworkService { matches: vec![Match { fallthrough: true, ..Match::default() }], ..service("s") };
    assert_eq!(
        registry.apply_service(matched.clone(), Some(Access::default())).await.unwrap().outcome,
        Outcome::Created
    );
    for owner in [peer(1), Owner::Operator] {
        let answer = registry.register_service(service("s"), owner).await.unwrap();
        assert_eq!(answer.object.message.matches.len(), 1, "{owner}");
    }
    let other = NetworkService { matches: vec![Match::default()], ..service("s") };
    assert!(matches!(registry.register_service(other, peer(1)).await, Err(Error::Taken { .. })));
    assert_eq!(registry.apply_service(matched, Some(Access::default())).await.unwrap().outcome, Outcome::Unchanged);
    registry.shutdown().await;
}

#[tokio::test]
async fn an_abandoned_service_can_be_taken_over() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    registry.register_service(service("s"), peer(1)).await.unwrap();
    registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
    let other = NetworkService { matches: vec![Match::default()], ..service("s") };
    assert!(registry.register_service(other.clone(), peer(2)).await.is_err());
    registry.unregister_endpoint("e", peer(1)).await.unwrap();
    assert_eq!(registry.register_service(other, peer(2)).await.unwrap().object.owner, peer(2));
    registry.shutdown().await;
}

/// Pods of namespaces that are named after their network namespace: those below 10 are `a`'s, of 99 nothing is known.
struct Tenants;

#[async_trait]
impl Pods for Tenants {
    async fn pod_of(&self, netns: InodeId) -> Option<Pod> {
        let namespace = match netns.ino {
            0..10 => "a",
            99 => return None,
            _ => "b",
        };
        Some(Pod { namespace: namespace.into(), ..Pod::default() })
    }

    async fn pod_with(&self, _: PodUid) -> Option<Pod> {
        None
    }
}

#[tokio::test]
async fn an_abandoned_service_goes_to_nobody_of_another_namespace() {
    for access in [ServiceAccess::AnyNamespace, ServiceAccess::OwnNamespace] {
        let dir = TempDir::new().unwrap();
        let settings = Settings { access, ..settings(dir.path()) };
        let registry = Embedded::open(settings, Arc::new(Tenants)).await.unwrap();
        registry.register_service(service("s"), peer(1)).await.unwrap();
        registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
        registry.unregister_endpoint("e", peer(1)).await.unwrap();
        let other = NetworkService { matches: vec![Match::default()], ..service("s") };
        let namespace = registry.directory().service("s").unwrap().namespace.clone();
        assert_eq!(namespace.as_deref(), Some("a"));
        for owner in [peer(1), Owner::Departed] {
            registry.put_service(Service { owner, namespace: namespace.clone(), ..testing::open(service("s")) });
            for stranger in [peer(10), peer(99)] {
                let taken = registry.register_service(other.clone(), stranger).await;
                assert!(matches!(taken, Err(Error::Taken { .. })), "{access:?} {owner} {stranger}: {taken:?}");
                let removed = registry.unregister_service("s", stranger).await;
                assert!(matches!(removed, Err(Error::NotYours { .. })), "{access:?} {owner} {stranger}: {removed:?}");
            }
        }
        // Who may offer it does not hold up those whose it is.
        let offered = registry.register_endpoint(endpoint("f"), by(peer(10))).await;
        assert_eq!(offered.is_ok(), access == ServiceAccess::AnyNamespace);
        assert_eq!(registry.register_service(other, peer(2)).await.unwrap().object.owner, peer(2));
        registry.shutdown().await;
    }
}

#[tokio::test]
async fn a_service_with_access_lists_is_the_operators_whoever_registered_it() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let access = Access { clients: Some(vec!["shop".into()]), endpoints: None };
    let listed = |name: &str| Service { owner: peer(1), access: access.clone(), ..testing::open(service(name)) };
    registry.restore_service(listed("s"));
    registry.put_service(listed("t"));
    for name in ["s", "t"] {
        let other = NetworkService { matches: vec![Match::default()], ..service(name) };
        for owner in [peer(1), peer(2)] {
            assert!(matches!(registry.unregister_service(name, owner).await, Err(Error::NotYours { .. })), "{owner}");
            let taken = registry.register_service(other.clone(), owner).await;
            assert!(matches!(taken, Err(Error::Taken { .. })), "{owner}");
            assert_eq!(registry.register_service(service(name), owner).await.unwrap().outcome, Outcome::Unchanged);
        }
        assert_eq!(registry.directory().service(name).unwrap().access, access);
    }
    assert!(registry.directory().state().idle_services().is_empty(), "it is nobody's to tidy away");
    registry.shutdown().await;
}

#[tokio::test]
async fn an_endpoint_lives_no_longer_than_its_token_and_is_told_to_watchers() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let mut watch = registry.directory().watch_endpoints(endpoint("e")).unwrap();
    let token = Some(SystemTime::now() + Duration::from_millis(300));
    let short = Registrant { term: Term::Renewed { token }, ..by(peer(1)) };
    registry.register_endpoint(endpoint("e"), short.clone()).await.unwrap();
    assert!(matches!(next(&mut watch).await, Change::Current(entry) if entry.message.name == "e"));
    assert!(matches!(next(&mut watch).await, Change::Gone(last) if last.name == "e"));
    assert!(registry.directory().endpoint("e").is_none());
    let asked = NetworkServiceEndpoint { expiration_time: Some((SystemTime::now() + SOON).into()), ..endpoint("f") };
    let answer = registry.register_endpoint(asked.clone(), by(peer(1))).await.unwrap();
    let given = answer.object.message.expiration_time.unwrap().seconds - asked.expiration_time.unwrap().seconds;
    assert!(given.abs() <= 1, "{given}");
    registry.shutdown().await;
    assert!(timeout(SOON, watch.next()).await.unwrap().is_none(), "watches end with the registry");
}

#[tokio::test]
async fn a_watch_begins_with_what_is_there_and_skips_what_nobody_saw() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    registry.register_endpoint(endpoint("a"), by(peer(1))).await.unwrap();
    let of_service = NetworkServiceEndpoint { network_service_names: vec!["s".into()], ..Default::default() };
    let mut watch = registry.directory().watch_endpoints(of_service).unwrap();
    registry.register_endpoint(endpoint("b"), by(peer(1))).await.unwrap();
    registry.unregister_endpoint("b", peer(1)).await.unwrap();
    let other = NetworkServiceEndpoint { network_service_names: vec!["t".into()], ..endpoint("c") };
    registry.register_endpoint(other, by(peer(1))).await.unwrap();
    registry.register_endpoint(endpoint("d"), by(peer(1))).await.unwrap();
    assert!(matches!(next(&mut watch).await, Change::Current(entry) if entry.message.name == "a"));
    assert!(matches!(next(&mut watch).await, Change::Current(entry) if entry.message.name == "d"));
    let moved = NetworkServiceEndpoint { network_service_names: vec!["t".into()], ..endpoint("a") };
    registry.register_endpoint(moved, by(peer(1))).await.unwrap();
    assert!(matches!(next(&mut watch).await, Change::Gone(last) if last.name == "a"));
    drop(watch);
    assert_eq!(registry.directory().counts(), (0, 3, 0));
    registry.shutdown().await;
}

#[tokio::test]
async fn a_wide_watch_looks_up_what_there_is_as_it_is_read() {
    let directory = testing::directory([service("s")], (0..1000).map(|number| endpoint(&format!("e-{number:03}"))));
    let of_service = NetworkServiceEndpoint { network_service_names: vec!["s".into()], ..Default::default() };
    let nobodys = NetworkServiceEndpoint { url: "nobody's".into(), ..Default::default() };
    for template in [NetworkServiceEndpoint::default(), of_service] {
        let mut watch = directory.watch_endpoints(template).unwrap();
        assert_eq!(directory.state().endpoint_watchers.unread(), 0, "nothing is copied for who may never read");
        assert!(matches!(next(&mut watch).await, Change::Current(entry) if entry.message.name == "e-000"));
        directory.take_endpoint("e-500");
        let last = directory.endpoint("e-999").unwrap();
        directory.renew_endpoint(&last);
        let mut told = std::collections::BTreeSet::from(["e-000".to_owned()]);
        for _ in 0..998 {
            let Change::Current(entry) = next(&mut watch).await else { panic!("nobody went that was seen") };
            assert!(told.insert(entry.message.name.clone()), "{} is told once", entry.message.name);
        }
        assert!(!told.contains("e-500") && told.contains("e-999"));
        directory.put_endpoint(&{
            let (message, place) = (endpoint("e-500").into(), directory.state().next_place());
            let (owner, reach, party) = (Owner::Operator, Reach::Url, Party::Operator);
            Arc::new(Entry { message, owner, reach, party, netns: None, process: None, place, deadline: None })
        });
        assert!(matches!(next(&mut watch).await, Change::Current(entry) if entry.message.name == "e-500"));
    }
    let mut watch = directory.watch_endpoints(nobodys).unwrap();
    assert!(timeout(Duration::from_millis(1), watch.next()).await.is_err());
}

#[tokio::test]
async fn other_domains_and_paths_of_peers_are_refused() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    assert!(matches!(registry.directory().find_services(&service("s@d")), Err(Error::OtherDomain(_))));
    let path = NetworkServiceEndpoint { url: "unix:///run/other.sock".into(), ..endpoint("e") };
    assert!(matches!(registry.register_endpoint(path.clone(), by(peer(1))).await, Err(Error::Invalid { .. })));
    registry.register_endpoint(path, Registrant::operator()).await.unwrap();
    let named = NetworkServiceEndpoint { url: "inode://1/2".into(), ..endpoint("f") };
    assert!(matches!(registry.register_endpoint(named, by(peer(1))).await, Err(Error::NotPassed(_))));
    registry.shutdown().await;
}

#[tokio::test]
async fn services_of_pods_that_have_gone_go_too() {
    let dir = TempDir::new().unwrap();
    let registry = open(&dir).await;
    let other = NetworkServiceEndpoint { network_service_names: vec!["offered".into()], ..endpoint("e") };
    registry.register_endpoint(other, Registrant { owner: peer(3), ..Registrant::operator() }).await.unwrap();
    registry.register_service(service("offered"), peer(1)).await.unwrap();
    registry.register_service(service("idle"), peer(1)).await.unwrap();
    registry.register_service(service("alive"), peer(2)).await.unwrap();
    registry.apply_service(service("operators"), None).await.unwrap();
    let known = || registry.directory().find_services(&NetworkService::default()).unwrap();
    tokio::time::pause();
    for _ in 0..20 {
        tokio::time::advance(Duration::from_mins(10)).await;
        tokio::time::resume();
        registry.register_service(service("alive"), peer(2)).await.unwrap();
        tokio::time::pause();
    }
    tokio::time::resume();
    timeout(SOON, async {
        while known().len() > 3 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("what nobody offers is removed");
    let names: Vec<_> = known().iter().map(|service| service.message.name.clone()).collect();
    assert_eq!(names, ["alive", "offered", "operators"]);
    registry.shutdown().await;
}

/// Every namespace is the pod of that name, by its inode.
struct Named(&'static [(u64, &'static str)]);

#[async_trait]
impl Pods for Named {
    async fn pod_of(&self, netns: InodeId) -> Option<Pod> {
        let (_, namespace) = self.0.iter().find(|(ino, _)| *ino == netns.ino)?;
        Some(Pod { namespace: (*namespace).to_owned(), ..Pod::default() })
    }

    async fn pod_with(&self, _: PodUid) -> Option<Pod> {
        None
    }
}

#[tokio::test]
async fn who_may_not_serve_a_service_is_not_registered() {
    let dir = TempDir::new().unwrap();
    let open = || Embedded::open(settings(dir.path()), Arc::new(Named(&[(1, "good"), (2, "bad")])));
    let registry = open().await.unwrap();
    let access = Access { clients: None, endpoints: Some(vec!["good".into()]) };
    registry.apply_service(service("s"), Some(access.clone())).await.unwrap();
    registry.shutdown().await;
    drop(registry);
    // What was said is known after a restart, and no registration of the service changes it.
    let registry = open().await.unwrap();
    registry.register_service(service("s"), peer(2)).await.unwrap();
    assert_eq!(registry.directory().service("s").unwrap().access, access);
    registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
    for unknown in [2, 3] {
        let error = registry.register_endpoint(endpoint("f"), by(peer(unknown))).await.unwrap_err();
        assert!(matches!(error, Error::MayNot(_)) && error.kind() == Kind::Denied, "{error}");
    }
    registry.register_endpoint(endpoint("operators"), Registrant::operator()).await.unwrap();
    // A rule that changes counts when the endpoint registers again.
    registry.apply_service(service("s"), Some(Access { endpoints: Some(Vec::new()), ..access })).await.unwrap();
    let error = registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap_err();
    assert!(error.to_string().contains("namespace good may not serve network service \"s\""), "{error}");
    assert!(registry.directory().endpoint("e").is_some(), "it lives as long as it would have without asking");
}

#[tokio::test]
async fn services_of_their_own_namespace_only() {
    let dir = TempDir::new().unwrap();
    let own = Settings { access: ServiceAccess::OwnNamespace, ..settings(dir.path()) };
    let registry = Embedded::open(own, Arc::new(Named(&[(1, "good"), (2, "bad")]))).await.unwrap();
    registry.register_service(service("s"), peer(1)).await.unwrap();
    registry.register_endpoint(endpoint("e"), by(peer(1))).await.unwrap();
    let error = registry.register_endpoint(endpoint("f"), by(peer(2))).await.unwrap_err();
    assert!(error.to_string().contains("it is for its own namespace good"), "{error}");
}
