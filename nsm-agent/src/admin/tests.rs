//! The services over a real socket: registry calls with files, admin calls, the end of a process.

use std::{os::fd::OwnedFd, process::Stdio, sync::Arc, time::Duration};

use futures::StreamExt;
use nsm_fdpass::{FdChannel, InodeId, Permissions, Process, bind, connect};
use nsm_netlink::NetnsId;
use nsm_proto::{
    admin::{admin_client::AdminClient, admin_server::AdminServer},
    registry::{
        NetworkServiceEndpointQuery, network_service_endpoint_registry_client::NetworkServiceEndpointRegistryClient,
        network_service_endpoint_registry_server::NetworkServiceEndpointRegistryServer,
        network_service_registry_client::NetworkServiceRegistryClient,
        network_service_registry_server::NetworkServiceRegistryServer,
    },
};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};
use tonic::{Code, transport::Server};

use super::*;
use crate::{
    manager::Ids,
    registry::{
        Embedded, Reach, Registrar, ServiceAccess, Settings,
        services::{Endpoints, NetworkServices},
    },
};

const SOON: Duration = Duration::from_secs(10);

/// A node without connections.
struct Empty(changes::Sender<u64>);

#[async_trait]
impl Node for Empty {
    fn info(&self) -> InfoResponse {
        InfoResponse { version: "1.2.3".into(), ..InfoResponse::default() }
    }
    fn connections(&self) -> Vec<ConnectionInfo> {
        Vec::new()
    }
    fn changes(&self) -> changes::Receiver<u64> {
        self.0.subscribe()
    }
    async fn close(&self, _: &str) -> Result<bool, nsm_sdk::Error> {
        Ok(false)
    }
    async fn plan(&self, _: PlanRequest) -> Result<PlanResponse, nsm_sdk::Error> {
        Ok(PlanResponse::default())
    }
    async fn self_test(&self) -> Vec<Finding> {
        Vec::new()
    }
}

/// An agent's registry and admin service on a socket.
struct Agent {
    dir: TempDir,
    registry: Registrar,
    server: tokio::task::JoinHandle<()>,
}

impl Agent {
    /// `host`: the test counts as the operator if it runs there.
    async fn start(host: InodeId) -> Self {
        let dir = TempDir::new().unwrap();
        let settings = Settings {
            boot_id: "boot".into(),
            dir: dir.path().join("state"),
            max_life: Duration::from_mins(1),
            access: ServiceAccess::default(),
        };
        let registry = Embedded::open(settings, Arc::new(())).await.unwrap();
        let shared: Arc<dyn Registry> = Arc::new(registry.clone());
        let permissions = Permissions { mode: 0o600, uid: None, gid: None };
        let socket = bind(&dir.path().join("agent.sock"), permissions).unwrap();
        let ids = Ids::new("boot", NetnsId { dev: host.dev, ino: host.ino });
        let services = Server::builder()
            .add_service(NetworkServiceRegistryServer::new(NetworkServices::new(shared.clone(), ids.clone())))
            .add_service(NetworkServiceEndpointRegistryServer::new(Endpoints::new(shared.clone(), ids)))
            .add_service(AdminServer::new(Admin::new(shared, Arc::new(Empty(changes::Sender::new(0))))))
            .serve_with_incoming(socket.incoming());
        let server = tokio::spawn(async move { services.await.unwrap() });
        Self { dir, registry, server }
    }

    async fn connect(&self) -> FdChannel {
        connect(&self.dir.path().join("agent.sock"), Instant::now() + SOON).await.unwrap()
    }

    async fn stop(self) {
        self.server.abort();
        self.registry.shutdown().await;
    }
}

/// No namespace of this node.
const ELSEWHERE: InodeId = InodeId { dev: 0, ino: 0 };

fn own_netns() -> InodeId {
    InodeId::of(std::fs::File::open("/proc/self/ns/net").unwrap()).unwrap()
}

fn endpoint(url: String) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint {
        name: "e".into(),
        network_service_names: vec!["s".into()],
        url,
        ..NetworkServiceEndpoint::default()
    }
}

fn with_path<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("path", r#"{"Index":0,"PathSegments":null}"#.parse().unwrap());
    request
}

#[tokio::test]
async fn a_passed_socket_is_kept_found_and_handed_on() {
    let agent = Agent::start(ELSEWHERE).await;
    let listener = tokio::net::UnixListener::bind(agent.dir.path().join("e.sock")).unwrap();
    let file = std::fs::OpenOptions::new();
    let file = std::os::unix::fs::OpenOptionsExt::custom_flags(&mut { file }, nix::fcntl::OFlag::O_PATH.bits())
        .read(true)
        .open(agent.dir.path().join("e.sock"))
        .unwrap();
    let file = Arc::new(OwnedFd::from(file));
    let id = InodeId::of(&*file).unwrap();
    let own = agent.connect().await;
    let mut client = NetworkServiceEndpointRegistryClient::new(own.channel.clone());
    let absent = client.register(endpoint(id.to_string())).await.unwrap_err();
    assert_eq!(absent.code(), Code::InvalidArgument, "{absent}");

    own.outbox.send(file).unwrap();
    let answer = client.register(with_path(endpoint(id.to_string()))).await.unwrap();
    assert_eq!(answer.metadata().get("path").unwrap(), r#"{"Index":0,"PathSegments":null}"#);
    let answer = answer.into_inner();
    assert!(answer.expiration_time.is_some() && answer.initial_registration_time.is_some());
    let entry = agent.registry.directory().endpoint("e").unwrap();
    assert!(matches!(entry.reach, Reach::Socket(_)));

    let other = agent.connect().await;
    let mut finder = NetworkServiceEndpointRegistryClient::new(other.channel.clone());
    let query = NetworkServiceEndpointQuery { network_service_endpoint: Some(endpoint(String::new())), watch: true };
    let mut found = finder.find(query).await.unwrap().into_inner();
    let first = timeout(SOON, found.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(first.network_service_endpoint.unwrap().url, id.to_string());
    assert!(other.inbox.take(id).is_some(), "the file came ahead of the answer");

    client.unregister(endpoint(String::new())).await.unwrap();
    assert!(timeout(SOON, found.next()).await.unwrap().unwrap().unwrap().deleted);
    client.unregister(endpoint(String::new())).await.expect("unknown names unregister too");
    drop(listener);
    agent.stop().await;
}

#[tokio::test]
async fn a_service_is_registered_found_and_bad_headers_are_refused() {
    let agent = Agent::start(ELSEWHERE).await;
    let mut client = NetworkServiceRegistryClient::new(agent.connect().await.channel);
    let service = NetworkService { name: "s".into(), ..NetworkService::default() };
    assert_eq!(client.register(service.clone()).await.unwrap().into_inner().payload, "IP");
    let mut request = Request::new(service.clone());
    request.metadata_mut().insert("path", "[]".parse().unwrap());
    assert_eq!(client.register(request).await.unwrap_err().code(), Code::InvalidArgument);
    let query = nsm_proto::registry::NetworkServiceQuery { network_service: Some(service), watch: false };
    let found: Vec<_> = client.find(query).await.unwrap().into_inner().collect().await;
    assert_eq!(found.len(), 1);
    agent.stop().await;
}

#[tokio::test]
async fn an_endpoint_goes_with_its_process() {
    for seen in [true, false] {
        endpoint_goes_with_process(seen).await;
    }
}

/// `seen`: whether the process has a number in the agent's process namespace.
async fn endpoint_goes_with_process(seen: bool) {
    let agent = Agent::start(ELSEWHERE).await;
    // What ends here must be another process than the test: one that sleeps stands for it.
    let mut child = std::process::Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    // The kernel tells it through its socket: one end of a pair that the child would hold.
    let Process::Numbered(held) = Process::of_number(pid) else { panic!("{pid} lives") };
    let pid = if seen { pid } else { 0 };
    let peer = nsm_fdpass::Peer {
        netns: None,
        pid,
        uid: 0,
        gid: 0,
        process: Process::Proved(held),
        asked: nsm_fdpass::Asked::default(),
    };
    let socket = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
    let by = Registrant { process: Some(Arc::new(peer)), socket: Some(socket), ..Registrant::operator() };
    let mut watch = agent.registry.directory().watch_endpoints(endpoint(String::new())).unwrap();
    agent.registry.register_endpoint(endpoint("inode://1/2".into()), by).await.unwrap();
    timeout(SOON, watch.next()).await.unwrap();
    child.kill().unwrap();
    let gone = timeout(SOON, watch.next()).await.unwrap();
    assert!(matches!(gone, Some(crate::registry::Change::Gone(_))));
    child.wait().unwrap();
    agent.stop().await;
}

#[tokio::test]
async fn the_operator_applies_explains_watches_and_deletes() {
    let agent = Agent::start(own_netns()).await;
    let mut client = AdminClient::new(agent.connect().await.channel);
    let request = WatchRequest { kind: Kind::NetworkService.into(), name: String::new() };
    let mut watch = client.watch(request).await.unwrap().into_inner();
    let mut names = async || -> Vec<String> {
        let event = timeout(SOON, watch.next()).await.unwrap().unwrap().unwrap();
        event.network_services.unwrap().items.into_iter().map(|service| service.name).collect()
    };
    assert_eq!(names().await, Vec::<String>::new());
    let service = NetworkService { name: "s".into(), ..NetworkService::default() };
    let applied = client.apply_network_service(service.clone()).await.unwrap().into_inner();
    assert_eq!(applied, Applied { created: true, changed: true });
    assert_eq!(names().await, ["s"]);
    let again = client.apply_network_service(service).await.unwrap().into_inner();
    assert_eq!(again, Applied { created: false, changed: false });
    for created in [true, false] {
        let applied = client.apply_endpoint(endpoint("unix:///run/e.sock".into())).await.unwrap().into_inner();
        assert_eq!(applied, Applied { created, changed: created });
    }
    let explain = ExplainRequest { network_service: "s".into(), labels: BTreeMap::new() };
    let explanation = client.explain(explain).await.unwrap().into_inner();
    assert!(explanation.endpoints[0].candidate);
    let plan = PlanRequest { network_service: "unknown".into(), ..PlanRequest::default() };
    assert!(client.plan(plan).await.unwrap().into_inner().problems[0].contains("is not registered"));
    let delete = DeleteRequest { kind: Kind::NetworkService.into(), name: "s".into() };
    client.delete(delete.clone()).await.unwrap();
    assert_eq!(names().await, Vec::<String>::new());
    assert_eq!(client.delete(delete).await.unwrap_err().code(), Code::NotFound);
    agent.registry.shutdown().await;
    let ended = timeout(SOON, watch.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "watches end with the registry");
    agent.stop().await;
}

#[tokio::test]
async fn an_older_nsmctl_opens_nothing() {
    let agent = Agent::start(own_netns()).await;
    let mut client = AdminClient::new(agent.connect().await.channel);
    let service = NetworkService { name: "s".into(), ..NetworkService::default() };
    let access = Some(Access { clients: Some(Namespaces { names: vec!["shop".into()] }), endpoints: None });
    client.apply_service(ServiceObject { network_service: Some(service.clone()), access }).await.unwrap();
    let known = || agent.registry.directory().service("s").unwrap();
    let edited = NetworkService { payload: "ETHERNET".into(), ..service.clone() };
    client.apply_network_service(edited).await.unwrap();
    assert_eq!(known().message.payload, "ETHERNET");
    assert_eq!(known().access().clients.as_deref(), Some(&["shop".to_owned()][..]));
    client.apply_service(ServiceObject { network_service: Some(service), access: None }).await.unwrap();
    assert!(known().access().is_default(), "one that knows of it says that there is no list");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_endpoints_than_files_fit_are_found() {
    let agent = Agent::start(ELSEWHERE).await;
    let listener = tokio::net::UnixListener::bind(agent.dir.path().join("e.sock")).unwrap();
    let own = agent.connect().await;
    let mut client = NetworkServiceEndpointRegistryClient::new(own.channel.clone());
    let file = Arc::new(OwnedFd::from(listener.into_std().unwrap()));
    let id = InodeId::of(&*file).unwrap();
    let many = 3 * nsm_fdpass::MAX_FILES;
    for number in 0..many {
        own.outbox.send(file.clone()).unwrap();
        let named = NetworkServiceEndpoint { name: format!("e{number}"), ..endpoint(id.to_string()) };
        client.register(named).await.unwrap();
    }
    let mut found = client.find(NetworkServiceEndpointQuery::default()).await.unwrap().into_inner();
    for number in 0..many {
        let endpoint = timeout(SOON, found.message()).await.unwrap().unwrap();
        assert!(endpoint.is_some(), "{number} of {many}");
    }
    assert_eq!(own.inbox.len(), nsm_fdpass::MAX_FILES, "the latest files");
    assert!(own.inbox.take(id).is_some());
    agent.stop().await;
}

#[tokio::test]
async fn watches_of_one_peer_are_bounded() {
    let agent = Agent::start(ELSEWHERE).await;
    let own = agent.connect().await;
    let mut client = NetworkServiceEndpointRegistryClient::new(own.channel.clone());
    let named = NetworkServiceEndpoint { name: "e".into(), ..NetworkServiceEndpoint::default() };
    let query = NetworkServiceEndpointQuery { watch: true, network_service_endpoint: Some(named) };
    // HTTP/2 bounds the calls of one socket, too.
    let other = agent.connect().await;
    let mut second = NetworkServiceEndpointRegistryClient::new(other.channel.clone());
    let mut watches = Vec::new();
    for number in 0..crate::share::WATCHES {
        let client = if number % 2 == 0 { &mut client } else { &mut second };
        watches.push(timeout(SOON, client.find(query.clone())).await.unwrap().unwrap());
    }
    let refused = client.find(query.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("the most is 256"), "{refused}");
    drop(watches);
    let end = Instant::now() + SOON;
    while client.find(query.clone()).await.is_err() {
        assert!(Instant::now() < end, "who has left may watch again");
    }
    agent.stop().await;
}
