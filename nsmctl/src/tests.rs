//! The whole program against an agent's admin service on a socket.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc, time::Duration};

use clap::Parser;
use nsm_agent::{
    admin::{Admin, Node},
    registry::{Embedded, Registrar, Registry, ServiceAccess, Settings},
};
use nsm_fdpass::{Permissions, bind};
use nsm_proto::{
    admin::{
        ConnectionInfo, Finding, InfoResponse, PlanRequest, PlanResponse, admin_server::AdminServer, finding::Level,
    },
    connection::Connection,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::watch;
use tonic::transport::Server;

use crate::{cli::Cli, error::Error, run};

mod versions;

/// A node with one connection.
struct Node1(watch::Sender<u64>);

#[async_trait::async_trait]
impl Node for Node1 {
    fn info(&self) -> InfoResponse {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        InfoResponse { version, node_name: "node-1".into(), pid: 7, ..InfoResponse::default() }
    }
    fn connections(&self) -> Vec<ConnectionInfo> {
        let connection = Connection {
            id: "c-1".into(),
            network_service: "secure".into(),
            network_service_endpoint_name: "firewall".into(),
            ..Connection::default()
        };
        vec![ConnectionInfo { connection: Some(connection), phase: "up".into(), ..ConnectionInfo::default() }]
    }
    fn changes(&self) -> watch::Receiver<u64> {
        self.0.subscribe()
    }
    async fn close(&self, id: &str) -> Result<bool, nsm_sdk::Error> {
        Ok(id == "c-1")
    }
    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, nsm_sdk::Error> {
        Ok(PlanResponse { steps: vec![format!("make {}", request.ifname)], ..PlanResponse::default() })
    }
    async fn self_test(&self) -> Vec<Finding> {
        let (subject, detail) = ("self-test".into(), "it fails".into());
        vec![Finding { level: Level::Error.into(), subject, detail, fix: "repair it".into() }]
    }
}

/// An agent as nsmctl sees it.
struct Agent {
    dir: TempDir,
    registry: Registrar,
    server: tokio::task::JoinHandle<()>,
}

impl Agent {
    async fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let settings = Settings {
            dir: dir.path().join("state"),
            boot_id: "boot".into(),
            max_life: Duration::from_mins(1),
            access: ServiceAccess::default(),
        };
        let registry = Embedded::open(settings, Arc::new(())).await.unwrap();
        let shared: Arc<dyn Registry> = Arc::new(registry.clone());
        let socket = bind(&dir.path().join("cni.sock"), Permissions { mode: 0o600, uid: None, gid: None }).unwrap();
        let admin = Admin::new(shared, Arc::new(Node1(watch::Sender::new(0))));
        let service = Server::builder().add_service(AdminServer::new(admin)).serve_with_incoming(socket.incoming());
        let server = tokio::spawn(async move { service.await.unwrap() });
        Self { dir, registry, server }
    }

    fn file(&self, text: &str) -> PathBuf {
        let path = self.dir.path().join("objects.yaml");
        fs::write(&path, text).unwrap();
        path
    }

    async fn call(&self, line: &[&str]) -> (String, Option<Error>) {
        let socket = self.dir.path().join("cni.sock");
        let all = ["nsmctl", "--cni-socket", socket.to_str().unwrap()].into_iter().chain(line.iter().copied());
        let mut out = Vec::new();
        let error = run(Cli::try_parse_from(all).unwrap(), &mut out).await.err();
        (String::from_utf8(out).unwrap(), error)
    }

    async fn works(&self, line: &[&str]) -> String {
        let (out, error) = self.call(line).await;
        assert!(error.is_none(), "{line:?}: {error:?}\n{out}");
        out
    }

    async fn stop(self) {
        self.server.abort();
        self.registry.shutdown().await;
    }
}

const OBJECTS: &str = "
apiVersion: networkservicemesh.io/v1
kind: NetworkService
metadata: { name: secure }
spec:
  payload: IP
  matches:
    - match:
      sourceSelector: { app: firewall }
      route: [ { destination: , destinationSelector: { app: vpn-gateway } } ]
    - route: [ { destination: , destinationSelector: { app: firewall } } ]
---
apiVersion: networkservicemesh.io/v1
kind: NetworkServiceEndpoint
metadata: { name: firewall }
spec:
  network_service_names: [secure]
  network_service_labels: { secure: { labels: { app: firewall } } }
  url: unix:///run/firewall.sock
---
apiVersion: networkservicemesh.io/v1
kind: NetworkServiceEndpoint
metadata: { name: gateway }
spec:
  network_service_names: [secure]
  network_service_labels: { secure: { labels: { app: vpn-gateway } } }
  url: unix:///run/gateway.sock
";

#[tokio::test]
async fn what_is_applied_is_listed_and_can_be_applied_again() {
    let agent = Agent::start().await;
    let file = agent.file(OBJECTS);
    let file = file.to_str().unwrap();
    let first = agent.works(&["apply", "-f", file]).await;
    assert_eq!(first.lines().next(), Some("networkservice.networkservicemesh.io/secure created"));
    let second = agent.works(&["apply", "-f", file]).await;
    assert!(second.lines().all(|line| line.ends_with(" unchanged")), "{second}");
    agent.file(&OBJECTS.replace("payload: IP", "payload: ETHERNET"));
    assert!(
        agent.works(&["apply", "-f", file]).await.starts_with("networkservice.networkservicemesh.io/secure configured")
    );

    let list: Value = serde_json::from_str(&agent.works(&["get", "netsvc", "-o", "json"]).await).unwrap();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&"List".into(), &"v1".into()));
    let item = &list["items"][0];
    assert_eq!(item["apiVersion"], "networkservicemesh.io/v1");
    assert_eq!(item["kind"], "NetworkService");
    assert_eq!(item["spec"]["matches"][0]["routes"][0]["destination_selector"]["app"], "vpn-gateway");
    let one: Value = serde_json::from_str(&agent.works(&["get", "nse", "gateway", "-o", "json"]).await).unwrap();
    assert_eq!(one["metadata"]["name"], "gateway");

    // What get writes, apply takes.
    let yaml = agent.works(&["get", "netsvc", "-o", "yaml"]).await;
    agent.file(&yaml);
    assert!(agent.works(&["apply", "-f", file]).await.ends_with("secure unchanged\n"), "{yaml}");
    agent.stop().await;
}

#[tokio::test]
async fn tables_are_aligned_and_names_are_kubectls() {
    let agent = Agent::start().await;
    let file = agent.file(OBJECTS);
    agent.works(&["apply", "-f", file.to_str().unwrap()]).await;
    let table = agent.works(&["get", "netsvc"]).await;
    assert_eq!(table, "NAME     PAYLOAD   MATCHES\nsecure   IP        2\n");
    assert!(agent.works(&["get", "nse", "-o", "wide"]).await.contains("secure:app=firewall"));
    let names = agent.works(&["get", "networkserviceendpoints", "-o", "name"]).await;
    assert_eq!(names.lines().last(), Some("networkserviceendpoint.networkservicemesh.io/gateway"));
    let connections = agent.works(&["get", "connections"]).await;
    assert!(connections.lines().nth(1).unwrap().starts_with("c-1   secure            firewall   up"), "{connections}");
    for line in [["get", "connection/c-1"], ["describe", "connection.networkservicemesh.io/c-1"]] {
        assert!(agent.works(&line).await.contains("c-1"), "{line:?}");
    }
    for line in
        [&["describe", "nse"][..], &["get", "nse/a", "connection/b"], &["get", "nse/"], &["delete", "nse/a", "b"]]
    {
        assert_eq!(agent.call(line).await.1.map(|error| error.exit_code()), Some(2), "{line:?}");
    }
    let nse = agent.works(&["describe", "nse", "firewall"]).await;
    assert!(nse.contains("CONNECTIONS:        1"), "{nse}");
    agent.stop().await;
}

#[tokio::test]
async fn describe_tells_which_match_decided_and_why_not_the_others() {
    let agent = Agent::start().await;
    let file = agent.file(OBJECTS);
    agent.works(&["apply", "-f", file.to_str().unwrap()]).await;
    let told = agent.works(&["describe", "networkservice", "secure", "--labels", "app=firewall"]).await;
    assert!(told.contains("* gateway    has app=vpn-gateway"), "{told}");
    assert!(told.contains("firewall   label app is firewall, not vpn-gateway"), "{told}");
    assert!(told.ends_with("match 0 decides for app=firewall: 1 of 2 endpoints are candidates\n"), "{told}");
    let told = agent.works(&["describe", "netsvc", "secure"]).await;
    assert!(told.contains("label app=firewall is missing"), "{told}");
    let (_, error) = agent.call(&["describe", "netsvc", "unknown"]).await;
    assert!(matches!(error, Some(Error::NotFound { .. })), "{error:?}");
    agent.stop().await;
}

#[tokio::test]
async fn delete_plan_and_check_have_exit_codes() {
    let agent = Agent::start().await;
    let file = agent.file(OBJECTS);
    agent.works(&["apply", "-f", file.to_str().unwrap()]).await;
    assert!(agent.works(&["plan", "secure", "--ifname", "nsm-1"]).await.starts_with("  1. make nsm-1\n"));
    let (out, error) = agent.call(&["plan", "unknown"]).await;
    assert_eq!(error.map(|error| error.exit_code()), Some(1));
    assert!(out.contains("problem: network service \"unknown\" is not registered"), "{out}");
    assert_eq!(
        agent.works(&["delete", "nse", "gateway"]).await,
        "networkserviceendpoint.networkservicemesh.io/gateway deleted\n"
    );
    let (_, error) = agent.call(&["delete", "nse", "gateway"]).await;
    assert_eq!(error.map(|error| error.exit_code()), Some(1));
    agent.works(&["delete", "nse", "gateway", "--ignore-not-found"]).await;
    agent.works(&["delete", "connection", "c-1"]).await;
    agent.works(&["delete", "connection.networkservicemesh.io/c-1"]).await;
    let (out, error) = agent.call(&["check"]).await;
    assert!(matches!(error, Some(Error::Findings)));
    assert!(out.contains("fix: repair it") && out.contains("on node node-1"), "{out}");
    agent.stop().await;
}

#[tokio::test]
async fn a_watch_goes_on_with_changes() {
    let agent = Agent::start().await;
    let socket = agent.dir.path().join("cni.sock");
    let (reader, mut writer) = std::io::pipe().unwrap();
    let cli =
        Cli::try_parse_from(["nsmctl", "--cni-socket", socket.to_str().unwrap(), "get", "nse", "-w", "-o", "name"]);
    let cli = cli.unwrap();
    let watching = tokio::spawn(async move { run(cli, &mut writer).await });
    let file = agent.file(OBJECTS);
    agent.works(&["apply", "-f", file.to_str().unwrap()]).await;
    let read = tokio::task::spawn_blocking(move || {
        use std::io::BufRead;
        std::io::BufReader::new(reader).lines().take(2).map(Result::unwrap).collect::<Vec<_>>()
    });
    let lines = tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert_eq!(lines.len(), 2, "{lines:?}");
    watching.abort();
    agent.stop().await;
}

#[tokio::test]
async fn another_socket_of_the_agent_is_named() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("nsm.io.sock");
    let socket = bind(&path, Permissions { mode: 0o600, uid: None, gid: None }).unwrap();
    // It speaks gRPC and serves nothing that nsmctl asks for.
    let server = Server::builder().add_routes(tonic::service::Routes::default()).serve_with_incoming(socket.incoming());
    let server = tokio::spawn(server);
    for line in [&["get", "nse"][..], &["check"]] {
        let all = ["nsmctl", "--cni-socket", path.to_str().unwrap()].into_iter().chain(line.iter().copied());
        let mut out = Vec::new();
        let error = run(Cli::try_parse_from(all).unwrap(), &mut out).await.unwrap_err();
        let told = format!("{error} {}", String::from_utf8(out).unwrap());
        assert!(told.contains(path.to_str().unwrap()) && told.contains("set --cni-socket"), "{told}");
    }
    server.abort();
}

#[tokio::test]
async fn without_an_agent_it_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    let missing = dir.path().join("none.sock");
    let call = async |line: &[&str]| {
        let all = ["nsmctl", "--cni-socket", missing.to_str().unwrap()].into_iter().chain(line.iter().copied());
        let mut out = Vec::new();
        let error = run(Cli::try_parse_from(all).unwrap(), &mut out).await.unwrap_err();
        (String::from_utf8(out).unwrap(), error)
    };
    let (_, error) = call(&["get", "nse"]).await;
    assert_eq!(error.exit_code(), 3);
    assert!(error.to_string().contains("start nsm-agent"), "{error}");
    let (_, error) = call(&["get", "pods"]).await;
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("networkservices (netsvc)"), "{error}");
    let (out, error) = call(&["check"]).await;
    assert_eq!(error.exit_code(), 1);
    let expected: BTreeMap<&str, &str> = [("cni socket", "does not exist"), ("kernel: veth", "")].into();
    assert!(expected.iter().all(|(subject, detail)| out.contains(subject) && out.contains(detail)), "{out}");
}
