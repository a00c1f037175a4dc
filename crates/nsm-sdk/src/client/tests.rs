use std::os::unix::net::UnixListener;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use super::*;
use crate::{Next, chain, expiry::Expiry, ipam::PointToPoint, kernel::KernelServer, monitor::Monitor, serve::Serve};

/// An agent and an endpoint in one, on a socket.
struct Agent {
    begin: Begin,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
    socket: PathBuf,
}

struct Named;

#[async_trait]
impl Element for Named {
    async fn request(&self, mut request: Request, next: Next) -> Result<Message, Error> {
        request.connection.network_service_endpoint_name = "endpoint".into();
        next.request(request).await
    }
}

fn agent() -> Agent {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nsm.sock");
    let (begin, monitor) = (Begin::new(), Monitor::new());
    let chain = chain![
        Path::server("agent"),
        begin.clone(),
        Token::server(Arc::new(Unsigned::new("agent"))),
        monitor.clone(),
        Expiry::new(),
        Named,
        PointToPoint::new("10.0.0.0/24".parse().unwrap()),
        KernelServer::new().unwrap(),
    ];
    let permissions = nsm_fdpass::Permissions { mode: 0o600, uid: None, gid: None };
    let listening = nsm_fdpass::bind(&socket, permissions).unwrap();
    let stop = CancellationToken::new();
    let stopped = stop.clone().cancelled_owned();
    let server = Server::builder().add_service(Serve::new(chain)).add_service(monitor.server());
    tokio::spawn(server.serve_with_incoming_shutdown(listening.incoming(), stopped));
    Agent { begin, stop, _folder: folder, socket }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

#[tokio::test]
async fn a_client_connects_reads_and_closes() {
    let agent = agent();
    let url = format!("unix://{}", agent.socket.display());
    let client = Client::connect_to(url).name("nsc").build().unwrap();
    let service = Service::new("service").label("app", "nsc").interface("nsm-1".parse().unwrap()).id("mine");
    let connection = client.request(service).await.unwrap();
    assert_eq!((connection.id(), &*connection.endpoint()), ("mine", "endpoint"));
    assert_eq!(connection.addresses(), ["10.0.0.1/32"]);
    assert_eq!(connection.endpoint_addresses(), ["10.0.0.0/32"]);
    assert!(connection.interface().is_some());
    let known = agent.begin.connections().remove(0);
    assert_eq!((&known.labels["app"], &*known.network_service), (&"nsc".to_owned(), "service"));
    connection.close().await.unwrap();
    assert!(agent.begin.connections().is_empty());
}

#[tokio::test]
async fn a_short_token_is_refreshed_and_a_dropped_client_expires() {
    let agent = agent();
    let client = Client::connect_to(&agent.socket).token_lifetime(Duration::from_millis(1500)).build().unwrap();
    let connection = client.request(Service::new("service")).await.unwrap();
    let expires = |agent: &Agent| {
        let last = agent.begin.connections().pop();
        last.and_then(|c| crate::path::previous(&c).and_then(|s| s.expires)).map(|t| (t.seconds, t.nanos))
    };
    let first = expires(&agent);
    until("a refresh", || expires(&agent) > first).await;
    drop((client, connection));
    until("expiry", || agent.begin.connections().is_empty()).await;
}

#[tokio::test]
async fn a_stop_closes_all() {
    let agent = agent();
    let client = Client::connect_to(&agent.socket).build().unwrap();
    for _ in 0..3 {
        client.request(Service::new("service")).await.unwrap();
    }
    assert_eq!(agent.begin.connections().len(), 3);
    client.stop(Instant::now() + Duration::from_secs(5)).await;
    assert!(agent.begin.connections().is_empty());
    assert_eq!(client.request(Service::new("service")).await.err().unwrap().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn no_agent_is_an_error_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("nsm.sock");
    let client = Client::connect_to(&socket).build().unwrap();
    assert_eq!(client.request(Service::new("service")).await.err().unwrap().kind(), Kind::Unavailable);
    drop(UnixListener::bind(&socket).unwrap());
    assert_eq!(client.request(Service::new("service")).await.err().unwrap().kind(), Kind::Unavailable);
}
