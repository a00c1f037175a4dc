use futures::{FutureExt, StreamExt};
use nsm_proto::connection::{Path as Segments, PathSegment};

use super::*;
use crate::{Call, begin::Begin, chain, fail_at::fail_at};

fn connection(id: &str) -> Connection {
    let segment = |name: &str, id: &str| PathSegment { name: name.into(), id: id.into(), ..PathSegment::default() };
    let path = Segments { index: 1, path_segments: vec![segment("nsc", &format!("c-{id}")), segment("nsmgr", id)] };
    Connection { id: id.into(), network_service: "service".into(), path: Some(path), ..Connection::default() }
}

fn request(id: &str) -> Request {
    Request { connection: connection(id), preferences: Vec::new(), call: Call::default() }
}

fn close(id: &str) -> Close {
    Close { connection: connection(id), call: Call::default() }
}

fn all() -> Filter {
    Arc::new(|_| true)
}

/// What lies ready: kind, ids, state of the first.
fn ready(watch: &mut Watch) -> Vec<(ConnectionEventType, Vec<String>, Option<State>)> {
    let mut seen = Vec::new();
    while let Some(Some(Ok(event))) = watch.next().now_or_never() {
        let state = event.connections.values().next().map(Connection::state);
        seen.push((event.r#type(), event.connections.into_keys().collect(), state));
    }
    seen
}

fn news(kind: ConnectionEventType, id: &str, state: State) -> (ConnectionEventType, Vec<String>, Option<State>) {
    (kind, vec![id.into()], Some(state))
}

#[tokio::test]
async fn a_watcher_sees_the_present_and_then_each_change() {
    let monitor = Monitor::new();
    let chain = chain![Begin::new(), monitor.clone()];
    let mut early = monitor.watch(MonitorScopeSelector::default(), all());
    assert_eq!(ready(&mut early), [(ConnectionEventType::InitialStateTransfer, vec![], None)]);
    chain.request(request("1")).await.unwrap();
    assert_eq!(ready(&mut early), [news(ConnectionEventType::Update, "1", State::Up)]);
    let mut late = monitor.watch(MonitorScopeSelector::default(), all());
    assert_eq!(ready(&mut late), [news(ConnectionEventType::InitialStateTransfer, "1", State::Up)]);
    assert!(monitor.announce("1", State::Down));
    assert!(!monitor.announce("2", State::Down));
    assert_eq!(ready(&mut late), [news(ConnectionEventType::Update, "1", State::Down)]);
    chain.close(close("1")).await.unwrap();
    chain.close(close("1")).await.unwrap();
    assert_eq!(ready(&mut late), [news(ConnectionEventType::Delete, "1", State::Down)]);
}

#[tokio::test]
async fn a_reselect_is_no_delete_unless_it_fails() {
    let monitor = Monitor::new();
    // Request; Close and Request of a good reselect; Close and Request of a bad one.
    let chain = chain![Begin::new(), monitor.clone(), fail_at(5)];
    chain.request(request("1")).await.unwrap();
    let mut watch = monitor.watch(MonitorScopeSelector::default(), all());
    ready(&mut watch);
    let mut reselect = request("1");
    reselect.connection.set_state(State::ReselectRequested);
    chain.request(reselect.clone()).await.unwrap();
    assert_eq!(ready(&mut watch), [news(ConnectionEventType::Update, "1", State::Up)]);
    chain.request(reselect).await.unwrap_err();
    assert_eq!(ready(&mut watch), [news(ConnectionEventType::Delete, "1", State::Up)]);
}

#[tokio::test]
async fn nobody_sees_what_is_not_its_own() {
    let monitor = Monitor::new();
    let mut watch = monitor.watch(MonitorScopeSelector::default(), Arc::new(|c| c.id == "mine"));
    for id in ["mine", "theirs"] {
        monitor.adopt(connection(id));
        monitor.forget(id);
        monitor.adopt(connection(id));
    }
    let seen = ready(&mut watch);
    assert!(seen.iter().all(|(_, ids, _)| ids.iter().all(|id| id == "mine")), "{seen:?}");
    let mut later = monitor.watch(MonitorScopeSelector::default(), Arc::new(|c| c.id == "mine"));
    assert_eq!(ready(&mut later)[0].1, ["mine"]);
}

#[tokio::test]
async fn a_guard_may_refuse_a_watcher() {
    let monitor = Monitor::guarded(|_| Err(Status::permission_denied("not yours")));
    let refused = monitor.monitor_connections(tonic::Request::new(MonitorScopeSelector::default())).await;
    assert_eq!(refused.err().unwrap().code(), tonic::Code::PermissionDenied);
}

#[tokio::test]
async fn a_slow_watcher_gets_the_latest_and_a_lost_one_is_cut_off() {
    let monitor = Monitor::new();
    let mut slow = monitor.watch(MonitorScopeSelector::default(), all());
    ready(&mut slow);
    for _ in 0..10 * MAX_PENDING {
        monitor.adopt(connection("1"));
        monitor.announce("1", State::Down);
    }
    assert_eq!(ready(&mut slow), [news(ConnectionEventType::Update, "1", State::Down)]);
    for number in 0..=MAX_PENDING {
        monitor.adopt(connection(&format!("n{number}")));
    }
    let status = slow.next().await.unwrap().unwrap_err();
    assert_eq!(status.code(), tonic::Code::Aborted);
    assert!(slow.next().await.is_none());
    monitor.adopt(connection("1"));
    assert!(monitor.lock().watchers.is_empty());
}

#[tokio::test]
async fn a_waiting_watcher_is_woken_and_a_shutdown_ends_it() {
    let monitor = Monitor::new();
    let mut watch = monitor.watch(MonitorScopeSelector::default(), all());
    ready(&mut watch);
    let waiting = tokio::spawn(async move {
        let first = watch.next().await.unwrap().unwrap();
        (first.r#type(), watch.next().await.unwrap().unwrap_err().code())
    });
    tokio::task::yield_now().await;
    monitor.adopt(connection("1"));
    tokio::task::yield_now().await;
    monitor.shut_down();
    assert_eq!(waiting.await.unwrap(), (ConnectionEventType::Update, tonic::Code::Unavailable));
    let mut late = monitor.watch(MonitorScopeSelector::default(), all());
    assert_eq!(late.next().await.unwrap().unwrap_err().code(), tonic::Code::Unavailable);
}

#[test]
fn watchers_that_leave_are_forgotten() {
    let monitor = Monitor::new();
    drop(monitor.watch(MonitorScopeSelector::default(), all()));
    assert!(monitor.lock().watchers.is_empty());
}

#[test]
fn a_selector_matches_a_run_of_segments() {
    let segment = |name: &str, id: &str| PathSegment { name: name.into(), id: id.into(), ..PathSegment::default() };
    let picks = |segments: Vec<PathSegment>, services: &[&str]| {
        let network_services = services.iter().map(ToString::to_string).collect();
        selects(&MonitorScopeSelector { path_segments: segments, network_services }, &connection("1"))
    };
    assert!(picks(vec![], &[]));
    assert!(picks(vec![segment("nsc", "")], &[]));
    assert!(picks(vec![segment("", "1")], &["service"]));
    assert!(picks(vec![segment("nsc", "c-1"), segment("nsmgr", "1")], &["other", "service"]));
    assert!(!picks(vec![segment("nsmgr", ""), segment("nsc", "")], &[]));
    assert!(!picks(vec![segment("nsc", "1")], &[]));
    assert!(!picks(vec![segment("", ""); 3], &[]));
    assert!(!picks(vec![], &["other"]));
}
