//! Places of calls: each is held as long as anything of its call runs.

use std::{fs::File, os::fd::OwnedFd, sync::Arc};

use futures::StreamExt;
use nsm_fdpass::{Asked, Connection, Inbox, InodeId, Outbox, Peer, PeerNetns, Process};
use nsm_netlink::NetnsId;
use nsm_proto::registry::{
    NetworkService, NetworkServiceEndpoint, NetworkServiceEndpointQuery, NetworkServiceQuery,
    network_service_endpoint_registry_server::NetworkServiceEndpointRegistry as _,
    network_service_registry_server::NetworkServiceRegistry as _,
};

use super::*;
use crate::{
    manager::Ids,
    registry::testing,
    share::{InFlight, Shares, WATCHES, WIDE},
    state::Owner as CallOwner,
};

const SERVED_TO: CallOwner = CallOwner::Pod(NetnsId { dev: 4, ino: 9 });
/// Of an agent elsewhere.
fn ids() -> Arc<Ids> {
    Ids::new("boot", NetnsId { dev: 0, ino: 0 })
}

fn call<T>(message: T, shares: &Arc<Shares<CallOwner>>) -> Request<T> {
    call_of(0, message, shares)
}

fn call_of<T>(uid: u32, message: T, shares: &Arc<Shares<CallOwner>>) -> Request<T> {
    let fd: OwnedFd = File::open("/proc/self/ns/net").unwrap().into();
    let netns = PeerNetns { id: InodeId::of(&fd).unwrap(), fd: Arc::new(fd) };
    let peer =
        Arc::new(Peer { netns: Some(netns), pid: 7, uid, gid: 0, process: Process::Unseen, asked: Asked::default() });
    let mut request = Request::new(message);
    request.extensions_mut().insert(Connection { peer, inbox: Inbox::default(), outbox: Outbox::default() });
    request.extensions_mut().insert(InFlight::of(Some(shares.take(&SERVED_TO).unwrap())));
    request
}

fn endpoint(name: &str) -> NetworkServiceEndpoint {
    NetworkServiceEndpoint { name: name.into(), network_service_names: vec!["s".into()], ..Default::default() }
}

#[tokio::test]
async fn a_find_counts_until_all_of_it_is_told() {
    let service = NetworkService { name: "s".into(), ..NetworkService::default() };
    let registry = testing::reading(testing::directory([service], ["a", "b"].map(endpoint)));
    let shares = Shares::new("calls", 1);
    let endpoints = Endpoints::new(registry.clone(), ids());
    let mut found = endpoints.find(call(NetworkServiceEndpointQuery::default(), &shares)).await.unwrap().into_inner();
    found.next().await.unwrap().unwrap();
    assert!(shares.take(&SERVED_TO).is_err(), "its answers are under way");
    drop(found);
    let services = NetworkServices::new(registry, ids());
    let found = services.find(call(NetworkServiceQuery::default(), &shares)).await.unwrap().into_inner();
    assert!(shares.take(&SERVED_TO).is_err(), "its answers are under way");
    drop(found);
    assert!(shares.take(&SERVED_TO).is_ok());
}

#[tokio::test]
async fn a_write_counts_to_its_end_whether_its_caller_waits_or_not() {
    let registry = testing::reading(testing::directory([], []));
    let shares = Shares::new("calls", 1);
    let services = NetworkServices::new(registry.clone(), ids());
    let endpoints = Endpoints::new(registry.clone(), ids());
    let service = NetworkService { name: "s".into(), ..NetworkService::default() };
    for number in 0..4 {
        let (service, endpoint) = (service.clone(), endpoint("e"));
        let hung_up = match number {
            0 => futures::poll!(std::pin::pin!(services.register(call(service, &shares)))).is_pending(),
            1 => futures::poll!(std::pin::pin!(services.unregister(call(service, &shares)))).is_pending(),
            2 => futures::poll!(std::pin::pin!(endpoints.register(call(endpoint, &shares)))).is_pending(),
            _ => futures::poll!(std::pin::pin!(endpoints.unregister(call(endpoint, &shares)))).is_pending(),
        };
        assert!(hung_up && shares.take(&SERVED_TO).is_err(), "write {number} is under way");
        registry.release.add_permits(1);
        let ended = async {
            while shares.take(&SERVED_TO).is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(10), ended).await.expect("what has ended does not count");
    }
}

#[tokio::test]
async fn watches_count_for_a_pod_whichever_of_its_users_watches() {
    let registry = testing::reading(testing::directory([], []));
    let shares = Shares::new("calls", 1);
    let services = NetworkServices::new(registry, ids());
    let mut held = Vec::new();
    let watch = |name: &str| {
        let service = NetworkService { name: name.into(), ..NetworkService::default() };
        NetworkServiceQuery { network_service: Some(service), watch: true }
    };
    for uid in 1..=u32::try_from(WATCHES).unwrap() {
        held.push(services.find(call_of(uid, watch("s"), &shares)).await.unwrap());
    }
    let refused = services.find(call_of(0, watch("s"), &shares)).await.err().unwrap();
    assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    held.pop();
    services.find(call_of(0, watch("s"), &shares)).await.unwrap();
    held.clear();
    for uid in 1..=u32::try_from(WIDE).unwrap() {
        held.push(services.find(call_of(uid, watch(""), &shares)).await.unwrap());
    }
    let refused = services.find(call_of(0, watch(""), &shares)).await.err().unwrap();
    assert!(refused.message().contains("watches of all network services"), "{refused}");
    services.find(call_of(0, watch("s"), &shares)).await.unwrap();
}
