use std::{path::PathBuf, sync::Arc, time::Duration};

use nsm_fdpass::InodeId;
use nsm_proto::{
    connection::{Mechanism, MonitorScopeSelector},
    mechanism::{INODE_URL, KERNEL, LOCAL},
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::*;
use crate::{
    Call, Kind, Request, chain,
    connect::{Connect, Peers, Target},
    ipam::{Groups, PointToPoint},
    registry::tests::FakeAgent,
    token::Unsigned,
};

fn prefixes() -> Groups {
    "10.0.0.0/24,fd00::/64".parse().unwrap()
}

fn client(target: Target) -> Chain {
    chain![
        PathElement::client("client"),
        Begin::new(),
        Token::client(Arc::new(Unsigned::new("client"))),
        Connect::to(Peers::new(), target)
    ]
}

fn kernel_request(id: &str) -> Request {
    let offer = Mechanism { cls: LOCAL.into(), r#type: KERNEL.into(), ..Mechanism::default() };
    let connection = Connection { id: id.into(), network_service: "icmp".into(), ..Connection::default() };
    Request { connection, preferences: vec![offer], call: Call::new(Duration::from_secs(5)) }
}

async fn start(agent: &FakeAgent) -> Endpoint {
    Endpoint::builder("icmp-1")
        .service("icmp")
        .labels([("app", "icmp")])
        .element(PointToPoint::new(prefixes()))
        .connect_to(agent.socket())
        .start()
        .await
        .unwrap()
}

#[tokio::test]
async fn an_endpoint_serves_what_the_agent_dials_through_the_passed_socket() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let endpoint = start(&agent).await;
    let folder: PathBuf = endpoint.socket().parent().unwrap().into();
    let registered = agent.endpoint("icmp-1").unwrap();
    assert_eq!(registered.network_service_labels["icmp"].labels["app"], "icmp");
    assert_eq!(agent.service("icmp").unwrap().payload, "IP");

    let file = Arc::new(agent.passed(&registered.url).expect("the listening socket came along"));
    let client = client(Target::File(file.clone()));
    let request = kernel_request("c");
    let call = request.call.clone();
    let connection = client.request(request).await.unwrap();
    let context = connection.context.as_ref().unwrap().ip_context.as_ref().unwrap();
    assert_eq!(context.src_ip_addrs, ["10.0.0.1/32", "fd00::1/128"]);
    let mechanism = connection.mechanism.clone().unwrap();
    let netns = call.files.of(&mechanism).unwrap().expect("the endpoint's namespace came along");
    assert_eq!(InodeId::of(&*netns).unwrap().to_string(), mechanism.parameters[INODE_URL]);
    assert_eq!(connection.path.as_ref().unwrap().path_segments[1].name, "icmp-1");
    assert_eq!(endpoint.connections().len(), 1);

    let channel = Peers::new().channel(&Target::File(file), &Call::default()).await.unwrap().channel;
    for service in ["", "networkservice.NetworkService", "connection.MonitorConnection"] {
        let asked = HealthCheckRequest { service: service.into() };
        let answer = HealthClient::new(channel.clone()).check(asked).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }

    endpoint.stop().await;
    assert!(agent.endpoint("icmp-1").is_none(), "unregistered");
    assert!(!folder.exists(), "its folder is gone");
    assert_eq!(client.request(kernel_request("d")).await.unwrap_err().kind(), Kind::Unavailable);
}

#[tokio::test]
async fn a_stop_tells_watchers_before_the_stream_ends() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let endpoint = start(&agent).await;
    let target = Target::Unix(endpoint.socket().into());
    client(target.clone()).request(kernel_request("c")).await.unwrap();
    let mut watcher = Peers::new().monitor(&target, &Call::default()).await.unwrap();
    let mut events = watcher.monitor_connections(MonitorScopeSelector::default()).await.unwrap().into_inner();
    assert_eq!(events.message().await.unwrap().unwrap().connections.len(), 1);
    endpoint.stop().await;
    let last = events.message().await.unwrap().expect("news of the connection");
    assert_eq!(last.connections.len(), 1);
}

/// Its clones are counted.
#[derive(Clone)]
struct Counted(#[expect(dead_code, reason = "held until it is dropped")] Arc<()>);

impl Element for Counted {}

#[tokio::test]
async fn a_dropped_one_leaves_nothing_that_runs() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let counted = Arc::new(());
    let endpoint = Endpoint::builder("icmp-1")
        .service("s")
        .element(Counted(counted.clone()))
        .element(PointToPoint::new("10.0.0.0/24".parse().unwrap()))
        .connect_to(agent.socket())
        .start()
        .await
        .unwrap();
    let target = Target::Unix(endpoint.socket().into());
    client(target.clone()).request(kernel_request("c")).await.unwrap();
    let mut watcher = Peers::new().monitor(&target, &Call::default()).await.unwrap();
    let mut events = watcher.monitor_connections(MonitorScopeSelector::default()).await.unwrap().into_inner();
    events.message().await.unwrap().unwrap();
    drop(endpoint);
    let ended = async {
        events.message().await.unwrap_err();
        while Arc::strong_count(&counted) > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), ended).await.expect("its chain, expiry and streams end with it");
}

#[tokio::test]
async fn a_restarted_endpoint_gives_the_same_addresses_and_interface_name_on_a_refresh() {
    let agent = FakeAgent::start(Duration::from_mins(1));
    let endpoint = start(&agent).await;
    let other = client(Target::Unix(endpoint.socket().into()));
    other.request(kernel_request("first")).await.unwrap();
    let before = other.request(kernel_request("second")).await.unwrap();
    drop(endpoint);
    let endpoint = start(&agent).await;
    let mut refresh = kernel_request("second");
    refresh.connection = before.clone();
    let after = client(Target::Unix(endpoint.socket().into())).request(refresh).await.unwrap();
    assert_eq!(after.context, before.context);
    assert_eq!(after.mechanism, before.mechanism);
    endpoint.stop().await;
}

#[tokio::test]
async fn a_start_waits_for_the_agent_and_leaves_nothing_when_it_is_called_off() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("own.sock");
    let start = Endpoint::builder("a").service("s").connect_to(folder.path().join("none")).listen_on(&socket).start();
    assert!(tokio::time::timeout(Duration::from_millis(200), start).await.is_err());
    let gone = async {
        while socket.exists() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), gone).await.expect("the socket goes with it");
}

#[tokio::test]
async fn an_endpoint_without_service_does_not_start() {
    assert!(matches!(Endpoint::builder("a").start().await, Err(StartError::NoService(_))));
}
