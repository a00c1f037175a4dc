use nsm_proto::connection::{Path as Segments, PathSegment};

use super::*;
use crate::{
    Call, Chain,
    begin::Begin,
    chain,
    fail_at::{FailAt, fail_at},
};

fn request(life: Duration) -> Request {
    let expires = Some((SystemTime::now() + life).into());
    let segment = |id: &str| PathSegment { name: id.into(), id: id.into(), expires, ..PathSegment::default() };
    let path = Some(Segments { index: 1, path_segments: vec![segment("a"), segment("b")] });
    let connection = Connection { id: "b".into(), path, ..Connection::default() };
    Request { connection, preferences: Vec::new(), call: Call::default() }
}

fn server(failing: &FailAt) -> (Begin, Chain) {
    let begin = Begin::new();
    (begin.clone(), chain![begin, Expiry::new(), failing.clone()])
}

const LIFE: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_connection_that_nobody_refreshes_is_closed_when_it_expires() {
    let events = fail_at(usize::MAX);
    let (begin, chain) = server(&events);
    chain.request(request(LIFE)).await.unwrap();
    sleep(Duration::from_secs(9)).await;
    assert!(begin.last("b").is_some(), "a timeout above the life closes nothing early");
    sleep(Duration::from_secs(2)).await;
    assert!(begin.last("b").is_none());
    assert_eq!(events.seen(), 2);
}

#[tokio::test(start_paused = true)]
async fn each_request_moves_the_time_and_a_failed_one_does_not() {
    let events = fail_at(3);
    let (begin, chain) = server(&events);
    chain.request(request(LIFE)).await.unwrap();
    sleep(Duration::from_secs(8)).await;
    chain.request(request(LIFE)).await.unwrap();
    sleep(Duration::from_secs(8)).await;
    assert!(begin.last("b").is_some());
    chain.request(request(LIFE)).await.unwrap_err();
    sleep(Duration::from_secs(3)).await;
    assert!(begin.last("b").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_the_watch() {
    let begin = Begin::new();
    let (expiry, events) = (Expiry::new(), fail_at(usize::MAX));
    let chain = chain![begin.clone(), expiry.clone(), events.clone()];
    chain.request(request(LIFE)).await.unwrap();
    assert_eq!(expiry.tasks.running(), 1);
    let connection = begin.last("b").unwrap();
    chain.close(Close { connection, call: Call::default() }).await.unwrap();
    sleep(Duration::from_mins(1)).await;
    assert_eq!((expiry.tasks.running(), events.seen()), (0, 2));
}

#[tokio::test]
async fn a_token_of_the_past_is_refused() {
    let (_, chain) = server(&fail_at(usize::MAX));
    let mut late = request(LIFE);
    let past = SystemTime::now() - Duration::from_secs(1);
    late.connection.path.as_mut().unwrap().path_segments[0].expires = Some(past.into());
    let error = chain.request(late).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.find::<Expired>().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_adopted_connection_expires_too() {
    let (begin, expiry) = (Begin::new(), Expiry::new());
    let rest = chain![expiry.clone()];
    let connection = request(LIFE).connection;
    let events = begin.adopt(connection.clone(), Vec::new(), &rest);
    expiry.adopt(&events, &connection, Duration::ZERO);
    sleep(Duration::from_secs(11)).await;
    assert!(begin.last("b").is_none());
}
