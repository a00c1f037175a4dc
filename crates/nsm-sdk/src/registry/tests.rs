use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, SystemTime},
};

use nsm_fdpass::{Connection, Permissions};
use nsm_proto::registry::{
    Match,
    network_service_endpoint_registry_server::{NetworkServiceEndpointRegistry, NetworkServiceEndpointRegistryServer},
    network_service_registry_server::{NetworkServiceRegistry, NetworkServiceRegistryServer},
};
use tokio::{runtime::Runtime, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request as Rpc, Response};

use super::*;

const BOUND: Duration = Duration::from_secs(10);

/// Both registries, as small as they can be, on a socket of their own.
#[derive(Clone)]
pub(crate) struct FakeAgent {
    shared: Arc<Mutex<Shared>>,
    life: Duration,
    folder: Arc<tempfile::TempDir>,
    server: Arc<Server>,
}

/// A runtime of its own: with it go the accepted sockets too, as with a process.
struct Server(Mutex<Option<Runtime>>);

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Default)]
struct Shared {
    services: BTreeMap<String, NetworkService>,
    endpoints: BTreeMap<String, NetworkServiceEndpoint>,
    files: BTreeMap<String, OwnedFd>,
    registrations: Vec<Instant>,
    path_header: String,
    keeps_watches: bool,
}

impl FakeAgent {
    /// Registrations live this long.
    pub(crate) fn start(life: Duration) -> Self {
        let agent = Self {
            shared: Arc::new(Mutex::new(Shared { keeps_watches: true, ..Shared::default() })),
            life,
            folder: Arc::new(tempfile::tempdir().unwrap()),
            server: Arc::new(Server(Mutex::new(None))),
        };
        agent.serve();
        agent
    }

    fn serve(&self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let entered = runtime.enter();
        let socket = nsm_fdpass::bind(&self.socket(), Permissions { mode: 0o600, uid: None, gid: None }).unwrap();
        let inner = Inner { shared: self.shared.clone(), life: self.life };
        let server = tonic::transport::Server::builder()
            .add_service(NetworkServiceRegistryServer::new(inner.clone()))
            .add_service(NetworkServiceEndpointRegistryServer::new(inner));
        runtime.spawn(async move { server.serve_with_incoming(socket.incoming()).await.unwrap() });
        drop(entered);
        *self.server.0.lock().unwrap() = Some(runtime);
    }

    /// Ends with all its streams, and forgets all.
    async fn die(&self) {
        self.server.0.lock().unwrap().take().unwrap().shutdown_background();
        let path = self.socket();
        self.until("the socket goes with the server", |_| !path.exists()).await;
        let mut shared = self.lock();
        shared.endpoints.clear();
        shared.services.clear();
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("agent.sock")
    }

    pub(crate) fn endpoint(&self, name: &str) -> Option<NetworkServiceEndpoint> {
        self.lock().endpoints.get(name).cloned()
    }

    pub(crate) fn service(&self, name: &str) -> Option<NetworkService> {
        self.lock().services.get(name).cloned()
    }

    pub(crate) fn passed(&self, url: &str) -> Option<OwnedFd> {
        self.lock().files.remove(url)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    async fn until(&self, what: &str, condition: impl Fn(&Shared) -> bool) {
        let wait = async {
            while !condition(&self.lock()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(BOUND, wait).await.is_ok(), "{what}");
    }
}

#[derive(Clone)]
struct Inner {
    shared: Arc<Mutex<Shared>>,
    life: Duration,
}

#[tonic::async_trait]
impl NetworkServiceRegistry for Inner {
    type FindStream = ReceiverStream<Result<NetworkServiceResponse, Status>>;

    async fn register(&self, rpc: Rpc<NetworkService>) -> Result<Response<NetworkService>, Status> {
        let service = rpc.into_inner();
        self.shared.lock().unwrap().services.insert(service.name.clone(), service.clone());
        Ok(Response::new(service))
    }

    async fn find(&self, rpc: Rpc<NetworkServiceQuery>) -> Result<Response<Self::FindStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let name = rpc.into_inner().network_service.unwrap_or_default().name;
        let service = self.shared.lock().unwrap().services.get(&name).cloned();
        if service.is_some() {
            sender.send(Ok(NetworkServiceResponse { network_service: service, deleted: false })).await.unwrap();
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn unregister(&self, rpc: Rpc<NetworkService>) -> Result<Response<()>, Status> {
        self.shared.lock().unwrap().services.remove(&rpc.into_inner().name);
        Ok(Response::new(()))
    }
}

#[tonic::async_trait]
impl NetworkServiceEndpointRegistry for Inner {
    type FindStream = ReceiverStream<Result<NetworkServiceEndpointResponse, Status>>;

    async fn register(&self, rpc: Rpc<NetworkServiceEndpoint>) -> Result<Response<NetworkServiceEndpoint>, Status> {
        let header = rpc.metadata().get(header::PATH).map(|path| path.to_str().unwrap().to_owned());
        let socket = rpc.extensions().get::<Connection>().unwrap().clone();
        let mut endpoint = rpc.into_inner();
        if endpoint.name == "taken" {
            return Err(Status::already_exists("somebody else's"));
        }
        endpoint.expiration_time = Some((SystemTime::now() + self.life).into());
        let mut shared = self.shared.lock().unwrap();
        if let Some(file) = endpoint.url.parse().ok().and_then(|id| socket.inbox.take(id)) {
            shared.files.insert(endpoint.url.clone(), file);
        }
        shared.path_header = header.unwrap_or_default();
        shared.registrations.push(Instant::now());
        shared.endpoints.insert(endpoint.name.clone(), endpoint.clone());
        Ok(Response::new(endpoint))
    }

    async fn find(&self, rpc: Rpc<NetworkServiceEndpointQuery>) -> Result<Response<Self::FindStream>, Status> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let query = rpc.into_inner();
        let name = query.network_service_endpoint.unwrap_or_default().name;
        let (found, keeps) = {
            let shared = self.shared.lock().unwrap();
            (shared.endpoints.get(&name).cloned(), shared.keeps_watches)
        };
        if found.is_some() {
            let response = NetworkServiceEndpointResponse { network_service_endpoint: found, deleted: false };
            sender.send(Ok(response)).await.unwrap();
        }
        if query.watch && keeps {
            tokio::spawn(async move { sender.closed().await });
        }
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn unregister(&self, rpc: Rpc<NetworkServiceEndpoint>) -> Result<Response<()>, Status> {
        self.shared.lock().unwrap().endpoints.remove(&rpc.into_inner().name);
        Ok(Response::new(()))
    }
}

fn offer(name: &str, socket: Option<&Path>) -> Offer {
    let service = NetworkService { name: "s".into(), matches: vec![Match::default()], ..NetworkService::default() };
    let endpoint = NetworkServiceEndpoint {
        name: name.into(),
        network_service_names: vec!["s".into()],
        ..NetworkServiceEndpoint::default()
    };
    let socket = socket.map(|path| ListeningSocket::at(path).unwrap());
    Offer { services: vec![service], endpoint, socket }
}

#[tokio::test]
async fn registered_with_its_socket_and_without_matches() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let registry = Registry::connect_to(agent.socket());
    let registration = registry.keep(offer("e", Some(&agent.socket()))).await.unwrap();
    let endpoint = agent.endpoint("e").unwrap();
    assert!(agent.passed(&endpoint.url).is_some());
    assert!(agent.service("s").unwrap().matches.is_empty());
    assert!(agent.lock().path_header.starts_with(r#"{"Index":0,"PathSegments":[{"token":"ey"#), "the path header");
    let template = NetworkServiceEndpoint { name: "e".into(), ..NetworkServiceEndpoint::default() };
    assert_eq!(registry.find_endpoints(template).await.unwrap().len(), 1);
    let template = NetworkService { name: "s".into(), ..NetworkService::default() };
    assert_eq!(registry.find_services(template).await.unwrap().len(), 1);
    registration.stop().await;
    assert_eq!(agent.endpoint("e"), None);
}

#[tokio::test]
async fn renewed_at_two_thirds_of_its_life() {
    let agent = FakeAgent::start(Duration::from_millis(600));
    let registration = Registry::connect_to(agent.socket()).keep(offer("e", None)).await.unwrap();
    agent.until("two renewals", |shared| shared.registrations.len() >= 3).await;
    let registrations = agent.lock().registrations.clone();
    for pair in registrations.windows(2) {
        assert!(pair[1] - pair[0] >= Duration::from_millis(390), "{:?}", pair[1] - pair[0]);
    }
    registration.stop().await;
}

#[tokio::test]
async fn registered_again_after_the_registry_restarts() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let registration = Registry::connect_to(agent.socket()).keep(offer("e", Some(&agent.socket()))).await.unwrap();
    let mut registered = registration.registered();
    agent.die().await;
    tokio::time::timeout(BOUND, registered.wait_for(|registered| !registered)).await.unwrap().unwrap();
    agent.serve();
    tokio::time::timeout(BOUND, registered.wait_for(|registered| *registered)).await.unwrap().unwrap();
    assert!(agent.endpoint("e").is_some() && agent.service("s").is_some());
    registration.stop().await;
}

#[tokio::test]
async fn a_registry_that_ends_every_watch_is_no_hot_loop() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    agent.lock().keeps_watches = false;
    let registration = Registry::connect_to(agent.socket()).keep(offer("e", None)).await.unwrap();
    agent.until("four more registrations", |shared| shared.registrations.len() >= 5).await;
    let registrations = agent.lock().registrations.clone();
    for (at, pair) in registrations.windows(2).enumerate() {
        let least = pause::FIRST * (1 << at);
        assert!(pair[1] - pair[0] >= least, "{:?} is below {least:?}", pair[1] - pair[0]);
    }
    registration.stop().await;
}

#[tokio::test]
async fn a_refusal_is_told_at_once() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let error = Registry::connect_to(agent.socket()).keep(offer("taken", None)).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Conflict, "somebody else's"));
}
