//! What VPP does not survive: it is not sent, and what is sent right beside it VPP survives.

use serde_json::json;
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    AfPacketCreateV3, AfPacketMode, FibPath, FibPathNhProto, FibPathType, IpRouteAddDelV2, IpRouteV2, IpTable,
    IpTableAddDel, WantPingFinishedEvents,
};
use vpp_api_client::{Error, Retval};

use super::{prefix, refused, start};

#[track_caller]
fn not_sent<T: std::fmt::Debug>(answer: Result<T, Error>) {
    let error = answer.unwrap_err();
    assert!(matches!(error, Error::NotSent { .. }), "{error}");
}

/// Longer than Linux has them, and VPP's stack.
#[tokio::test]
async fn names_of_the_host_s_interfaces() {
    let (_vpp, client) = start().await;
    let named = |length| AfPacketCreateV3 {
        mode: AfPacketMode::Ethernet,
        host_if_name: "x".repeat(length),
        ..AfPacketCreateV3::default()
    };
    assert_eq!(refused(client.call(&named(15)).await), Retval::InvalidInterface);
    not_sent(client.call(&named(16)).await);
    let told = client.definitions().await.unwrap();
    let long = json!({ "mode": 1, "host_if_name": "x".repeat(16) });
    not_sent(client.call_by_name(&told, AfPacketCreateV3::NAME, &long).await);
    client.ping().await.unwrap();
}

/// All that are left are sent at once as soon as anybody calls; until then nobody is answered.
#[tokio::test]
async fn as_many_pings_as_there_is_time_for() {
    let (_vpp, client) = start().await;
    let pings = |repeat| WantPingFinishedEvents { address: [10, 0, 0, 2].into(), repeat, interval: 3600.0 };
    not_sent(client.call(&pings(10_001)).await);
    client.call(&pings(10_000)).await.unwrap();
    client.ping().await.unwrap();
}

#[tokio::test]
async fn routes_of_others_and_tables_that_are_none() {
    let (_vpp, client) = start().await;
    let path = FibPath { r#type: FibPathType::Drop, proto: FibPathNhProto::Ip4, ..Default::default() };
    let route =
        |src| IpRouteV2 { prefix: prefix("192.0.2.0/24"), src, paths: vec![path.clone()], ..Default::default() };
    let add = |src| IpRouteAddDelV2 { route: route(src), ..Default::default() };
    client.call(&add(0)).await.unwrap();
    not_sent(client.call(&add(8)).await);
    let told = client.definitions().await.unwrap();
    for proto in ["FIB_API_PATH_NH_PROTO_MPLS", "FIB_API_PATH_NH_PROTO_ETHERNET", "FIB_API_PATH_NH_PROTO_BIER"] {
        let path = json!({ "sw_if_index": 0, "proto": proto });
        let route = json!({ "prefix": "192.0.2.0/24", "n_paths": 1, "paths": [path] });
        not_sent(client.call_by_name(&told, IpRouteAddDelV2::NAME, &json!({ "route": route })).await);
    }
    let table = |table_id| IpTableAddDel { is_add: true, table: IpTable { table_id, ..IpTable::default() } };
    not_sent(client.call(&table(u32::MAX)).await);
    client.call(&table(u32::MAX - 1)).await.unwrap();
    client.ping().await.unwrap();
}
