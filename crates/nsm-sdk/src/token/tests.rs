use nsm_proto::connection::Path as Segments;

use super::*;
use crate::{begin::Begin, chain};

fn connection() -> Connection {
    let segment = |id: &str| PathSegment { name: id.into(), id: id.into(), ..PathSegment::default() };
    let path = Some(Segments { index: 1, path_segments: vec![segment("a"), segment("b")] });
    Connection { id: "b".into(), path, ..Connection::default() }
}

fn request(connection: Connection) -> Request {
    Request { connection, preferences: Vec::new(), call: Call::default() }
}

fn expires(connection: &Connection, index: usize) -> SystemTime {
    connection.path.as_ref().unwrap().path_segments[index].expires.unwrap().try_into().unwrap()
}

fn source() -> Arc<dyn TokenSource> {
    Arc::new(Unsigned::new("b").lifetime(Duration::from_mins(1)))
}

#[tokio::test]
async fn the_callers_token_stands_before_ours() {
    let request = request(connection());
    let caller = CallerToken { token: "t".into(), expires: SystemTime::now() + Duration::from_secs(5) };
    request.call.note(caller.clone());
    let answer = chain![Token::server(source())].request(request).await.unwrap();
    let segments = &answer.path.as_ref().unwrap().path_segments;
    assert_eq!(segments[0].token, "t");
    assert_eq!(expires(&answer, 0), caller.expires);
    assert_eq!(segments[1].token.split('.').count(), 3);
    assert!(expires(&answer, 1) > SystemTime::now() + Duration::from_secs(50));
}

#[tokio::test]
async fn a_caller_without_token_expires_later_with_each_request_but_not_by_our_events() {
    let begin = Begin::new();
    let chain = chain![begin.clone(), Token::server(source())];
    let first = chain.request(request(connection())).await.unwrap();
    assert!(expires(&first, 0) > SystemTime::now() + Duration::from_secs(500));
    let second = chain.request(request(first.clone())).await.unwrap();
    assert!(expires(&second, 0) > expires(&first, 0));
    let event = begin.events("b").unwrap().request(|_| true).await.unwrap().unwrap();
    assert_eq!(expires(&event, 0), expires(&second, 0));
    assert!(expires(&event, 1) > expires(&second, 1));
}

#[tokio::test]
async fn a_clients_token_is_noted_for_the_next_hop() {
    let request = request(connection());
    let call = request.call.clone();
    let answer = chain![Token::client(source())].request(request).await.unwrap();
    let noted = call.noted::<OwnToken>().unwrap();
    assert_eq!(answer.path.unwrap().path_segments[1].token, noted.token);
}

#[tokio::test]
async fn an_unsigned_token_says_who_and_until_when() {
    let token = Unsigned::new("spiffe://x/y").token(Some("z")).await.unwrap().token;
    let parts: Vec<_> = token.split('.').collect();
    let claims: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(parts[1]).unwrap()).unwrap();
    assert_eq!((claims["sub"].as_str(), claims["aud"][0].as_str()), (Some("spiffe://x/y"), Some("z")));
    assert!(claims["exp"].is_u64());
    assert_eq!(parts[2], "");
}
