use nsm_proto::connection::{Path as Segments, PathSegment};

use super::*;
use crate::{
    Call, Chain,
    begin::Begin,
    chain,
    fail_at::{FailAt, fail_at},
};

/// An endpoint whose word holds ten seconds.
struct TenSeconds;

#[async_trait]
impl Element for TenSeconds {
    async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
        request.connection.path = Some(path(&[3600, 10]));
        next.request(request).await
    }
}

fn path(lives: &[u64]) -> Segments {
    let segment = |life: &u64| PathSegment {
        expires: Some((SystemTime::now() + Duration::from_secs(*life)).into()),
        ..PathSegment::default()
    };
    Segments { index: 0, path_segments: lives.iter().map(segment).collect() }
}

fn request() -> Request {
    let connection = Connection { id: "a".into(), ..Connection::default() };
    Request { connection, preferences: Vec::new(), call: Call::default() }
}

fn client(events: &FailAt) -> (Refresh, Chain) {
    let refresh = Refresh::new();
    (refresh.clone(), chain![Begin::new(), refresh, TenSeconds, events.clone()])
}

#[test]
fn the_pause_is_a_part_of_the_shortest_life() {
    let connection = |index, lives: &[u64]| {
        let path = Some(Segments { index, ..path(lives) });
        pause(&Connection { path, ..Connection::default() }, SystemTime::now()).map(|pause| pause.as_secs_f64().round())
    };
    assert_eq!(connection(0, &[600, 100]), Some(20.0));
    assert_eq!(connection(1, &[600, 100]), Some(30.0));
    assert_eq!(connection(9, &[600]), Some(240.0), "a peer's nonsense stays within bounds");
    assert_eq!(connection(0, &[0, 100]), Some(0.0));
    assert_eq!(connection(0, &[]), None);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_refreshed_until_it_is_closed() {
    let events = fail_at(usize::MAX);
    let (refresh, chain) = client(&events);
    let connection = chain.request(request()).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    let seen = events.seen();
    assert!((11..=13).contains(&seen), "{seen} requests in 20 s, every 1.8 to 2 s expected");
    chain.close(Close { connection, call: Call::default() }).await.unwrap();
    sleep(Duration::from_secs(20)).await;
    assert_eq!((events.seen(), refresh.tasks.running()), (seen + 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_failed_refresh_is_tried_again_soon() {
    let events = fail_at(2);
    let (_, chain) = client(&events);
    chain.request(request()).await.unwrap();
    sleep(Duration::from_millis(1750)).await;
    assert_eq!(events.seen(), 1);
    sleep(Duration::from_millis(750)).await;
    assert_eq!(events.seen(), 3, "a refresh that failed, and one more at most 250 ms later");
}

#[tokio::test(start_paused = true)]
async fn nothing_spins_when_the_answer_has_already_expired() {
    struct Expired;
    #[async_trait]
    impl Element for Expired {
        async fn request(&self, mut request: Request, next: Next) -> Result<Connection, Error> {
            request.connection.path = Some(path(&[0]));
            next.request(request).await
        }
    }
    let events = fail_at(usize::MAX);
    let chain = chain![Begin::new(), Refresh::new(), Expired, events.clone()];
    chain.request(request()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    assert!(events.seen() <= 11, "{}", events.seen());
}
