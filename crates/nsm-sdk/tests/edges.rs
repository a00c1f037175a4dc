//! The two edges of a chain against each other over a real socket: files, tokens, deadlines, bounds, a peer that restarts.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_fdpass::{InodeId, Permissions, bind};
use nsm_proto::{
    connection::{Connection, Mechanism},
    mechanism::{INODE_URL, KERNEL},
};
use nsm_sdk::{
    Call, Chain, Close, Element, Error, Kind, Next, Request, chain,
    connect::{Connect, Peers, Target},
    serve::{Caller, Serve},
    token_headers::{CallerToken, OwnToken},
};
use tokio::{sync::oneshot, task::JoinHandle};

/// Checks what came, and answers with a file of its own; `network_service` says what else to do.
struct Endpoint(Arc<OwnedFd>);

#[async_trait]
impl Element for Endpoint {
    async fn request(&self, request: Request, _: Next) -> Result<Connection, Error> {
        let mut connection = request.connection;
        match connection.network_service.as_str() {
            "slow" => std::future::pending().await,
            "no" => return Err(Error::new(Kind::Exhausted, "no address\nis left")),
            "panic" => panic!("an element's mistake"),
            "huge" => connection.payload = "x".repeat(10_000),
            _ => {}
        }
        assert!(matches!(request.call.noted::<Caller>(), Some(Caller::Peer(_))));
        if let Some(token) = request.call.noted::<CallerToken>() {
            connection.labels.insert("token".into(), token.token);
        }
        for preference in &request.preferences {
            assert!(request.call.files.of(preference)?.is_some());
        }
        let id = request.call.files.add(self.0.clone())?;
        connection.mechanism = Some(kernel(&id.to_string()));
        Ok(connection)
    }

    async fn close(&self, close: Close, _: Next) -> Result<(), Error> {
        if close.connection.network_service == "no" { Err(Error::new(Kind::Denied, "not yours")) } else { Ok(()) }
    }
}

fn kernel(url: &str) -> Mechanism {
    Mechanism { r#type: KERNEL.into(), parameters: [(INODE_URL.into(), url.into())].into(), ..Mechanism::default() }
}

struct Server {
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    fn start(path: &Path, endpoint: &Arc<OwnedFd>) -> Self {
        let incoming = bind(path, Permissions { mode: 0o600, uid: None, gid: None }).unwrap().incoming();
        let service = Serve::new(chain![Endpoint(endpoint.clone())]);
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(async move {
            let server = tonic::transport::Server::builder().add_service(service);
            server.serve_with_incoming_shutdown(incoming, async { drop(stopped.await) }).await.unwrap();
        });
        Self { stop, running }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.running.await.unwrap();
    }
}

struct Lab {
    _folder: tempfile::TempDir,
    path: PathBuf,
    endpoint: Arc<OwnedFd>,
    client: Chain,
}

fn lab() -> Lab {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let client = chain![Connect::to(Peers::new(), Target::Unix(path.clone()))];
    Lab { _folder: folder, path, endpoint: file(), client }
}

fn file() -> Arc<OwnedFd> {
    Arc::new(tempfile::tempfile().unwrap().into())
}

fn asking(service: &str) -> Request {
    let connection = Connection { id: "1".into(), network_service: service.into(), ..Connection::default() };
    Request { connection, preferences: Vec::new(), call: Call::default() }
}

/// A Request whose preference names a file that goes with it.
fn with_file(service: &str) -> Request {
    let mut request = asking(service);
    let id = request.call.files.add(file()).unwrap();
    request.preferences.push(kernel(&id.to_string()));
    request
}

#[tokio::test]
async fn files_and_tokens_cross_the_socket() {
    let lab = lab();
    let server = Server::start(&lab.path, &lab.endpoint);
    let own = InodeId::of(&*lab.endpoint).unwrap();
    // On one kept connection, more often than files may wait on it.
    for _ in 0..150 {
        let request = with_file("x");
        request.call.note(OwnToken { token: "a.b.c".into(), expires: SystemTime::now() });
        let call = request.call.clone();
        let answer = lab.client.request(request).await.unwrap();
        assert_eq!(answer.labels["token"], "a.b.c");
        let passed = call.files.of(answer.mechanism.as_ref().unwrap()).unwrap().unwrap();
        assert_eq!(InodeId::of(&*passed).unwrap(), own);
        assert!(!Arc::ptr_eq(&passed, &lab.endpoint));
    }
    server.stop().await;
}

#[tokio::test]
async fn a_preference_needs_its_file_and_a_repeated_mechanism_does_not() {
    let lab = lab();
    let server = Server::start(&lab.path, &lab.endpoint);
    for (url, says) in [("inode://1/2", "not passed"), ("file:///etc/passwd", "inode://DEV/INO")] {
        let mut request = asking("x");
        request.preferences.push(kernel(url));
        let error = lab.client.request(request).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.to_string().contains(says), "{error}");
    }
    let mut request = with_file("x");
    request.connection.mechanism = Some(kernel("inode://1/2"));
    lab.client.request(request).await.unwrap();
    let mut close = Close { connection: asking("x").connection, call: Call::default() };
    close.connection.mechanism = Some(kernel("inode://1/2"));
    lab.client.close(close).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn refusals_keep_their_kind_and_fit_a_line() {
    let lab = lab();
    let server = Server::start(&lab.path, &lab.endpoint);
    let error = lab.client.request(asking("no")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Exhausted);
    assert!(error.to_string().contains("no address is left"), "{error}");
    let closed = lab.client.close(Close { connection: asking("no").connection, call: Call::default() }).await;
    assert_eq!(closed.unwrap_err().kind(), Kind::Denied);
    let error = lab.client.request(asking("huge")).await.unwrap_err();
    assert!(error.to_string().contains("payload"), "{error}");
    let mut request = asking("x");
    request.connection.labels = (0..300).map(|n| (n.to_string(), String::new())).collect();
    let error = lab.client.request(request).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("labels has 300 entries"), "{error}");
    server.stop().await;
}

#[tokio::test]
async fn a_panic_ends_its_call_and_no_other() {
    let lab = lab();
    let server = Server::start(&lab.path, &lab.endpoint);
    let started = std::time::Instant::now();
    lab.client.request(asking("panic")).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "told at once");
    lab.client.request(with_file("x")).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_call_ends_at_its_deadline() {
    let lab = lab();
    let server = Server::start(&lab.path, &lab.endpoint);
    let mut request = asking("slow");
    request.call = Call::new(Duration::from_millis(100));
    let error = lab.client.request(request).await.unwrap_err();
    assert!(matches!(error.kind(), Kind::Deadline), "{error:?}");
    server.stop().await;
}

#[tokio::test]
async fn a_peer_that_restarts_is_dialled_again() {
    let lab = lab();
    for _ in 0..5 {
        let server = Server::start(&lab.path, &lab.endpoint);
        lab.client.request(with_file("x")).await.unwrap();
        lab.client.close(Close { connection: asking("x").connection, call: Call::default() }).await.unwrap();
        server.stop().await;
    }
    let error = lab.client.request(asking("x")).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("its process does not run"), "{error}");
}

#[tokio::test]
async fn a_burst_of_calls_with_files() {
    let lab = lab();
    let server = Server::start(&lab.path, &lab.endpoint);
    lab.client.request(with_file("x")).await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let client = lab.client.clone();
        calls.spawn(async move { client.request(with_file("x")).await });
    }
    let mut failed = Vec::new();
    while let Some(done) = calls.join_next().await {
        if let Err(error) = done.unwrap() {
            failed.push(error.to_string());
        }
    }
    assert!(failed.is_empty(), "{} of 200: {:?}", failed.len(), failed.first());
    server.stop().await;
}
