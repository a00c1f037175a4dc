//! Tables, routes, neighbours; and pings, whose end is an event.

use std::net::{IpAddr, Ipv4Addr};

use vpp_api_client::messages::{
    AddressUnion, AfPacketCreateV3, AfPacketMode, FibPath, FibPathNh, FibPathType, IpNeighbor, IpNeighborAddDel,
    IpNeighborDump, IpNeighborFlags, IpPathMtuGet, IpRouteAddDelV2, IpRouteV2, IpRouteV2Dump, IpTable, IpTableAddDel,
    IpTableDump, ShowVpeSystemTime, WantPingFinishedEvents,
};
use vpp_api_client::{Client, InterfaceIndex, MacAddress, Retval};

use super::{SOON, address, loopback, prefix, refused, start, up};

async fn routes(client: &Client, table: &IpTable) -> Vec<IpRouteV2> {
    let dump = IpRouteV2Dump { src: 0, table: table.clone() };
    client.dump(&dump).await.unwrap().into_iter().map(|of| of.route).collect()
}

fn via(sw_if_index: InterfaceIndex, next: Ipv4Addr) -> FibPath {
    let nh = FibPathNh { address: AddressUnion::from_ip4(&next).unwrap(), ..Default::default() };
    FibPath { sw_if_index: sw_if_index.0, weight: 1, nh, ..Default::default() }
}

#[tokio::test]
async fn routes_are_added_replaced_and_removed() {
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    up(&client, sw_if_index).await;
    address(&client, sw_if_index, "10.0.0.1/24").await;
    let table = IpTable { table_id: 9, is_ip6: false, name: "nine".into() };
    for is_add in [true, true, false, true] {
        client.call(&IpTableAddDel { is_add, table: table.clone() }).await.unwrap();
    }
    let tables = client.dump(&IpTableDump).await.unwrap();
    assert!(tables.iter().any(|of| of.table == table), "{tables:?}");

    let to =
        |paths: Vec<FibPath>| IpRouteV2 { table_id: 9, prefix: prefix("192.0.2.0/24"), paths, ..Default::default() };
    let add = |route| IpRouteAddDelV2 { route, ..Default::default() };
    let (one, other) = (via(sw_if_index, [10, 0, 0, 2].into()), via(sw_if_index, [10, 0, 0, 3].into()));
    let find = async || routes(&client, &table).await.into_iter().find(|of| of.prefix == prefix("192.0.2.0/24"));
    client.call(&add(to(vec![one.clone()]))).await.unwrap();
    let found = find().await.unwrap();
    assert_eq!(found.paths.len(), 1);
    assert_eq!(found.paths[0].nh.address.ip4().unwrap(), Ipv4Addr::new(10, 0, 0, 2));
    let multipath = IpRouteAddDelV2 { is_multipath: true, ..add(to(vec![other.clone()])) };
    client.call(&multipath).await.unwrap();
    assert_eq!(find().await.unwrap().paths.len(), 2);
    client.call(&add(to(vec![other]))).await.unwrap();
    assert_eq!(find().await.unwrap().paths.len(), 1);
    // What VPP tells can be said again, but for its number of whose it is.
    let told = find().await.unwrap();
    assert_ne!(told.src, 0);
    client.call(&add(IpRouteV2 { src: 0, ..told })).await.unwrap();
    for kind in [FibPathType::Drop, FibPathType::IcmpUnreach, FibPathType::IcmpProhibit] {
        let path = FibPath { r#type: kind, ..Default::default() };
        client.call(&add(to(vec![path]))).await.unwrap();
        assert_eq!(find().await.unwrap().paths[0].r#type, kind);
    }
    assert_eq!(refused(client.call(&add(to(Vec::new()))).await), Retval::NoPathsInRoute);
    let nowhere = via(InterfaceIndex(9999), Ipv4Addr::UNSPECIFIED);
    assert_eq!(refused(client.call(&add(to(vec![nowhere]))).await), Retval::NoMatchingInterface);
    let remove = IpRouteAddDelV2 { is_add: false, ..add(to(Vec::new())) };
    for _ in 0..2 {
        client.call(&remove).await.unwrap();
    }
    assert_eq!(find().await, None);
}

/// As many labels as VPP has room for go there and come back, and it is alive afterwards.
#[tokio::test]
async fn a_full_stack_of_labels_is_understood() {
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    up(&client, sw_if_index).await;
    address(&client, sw_if_index, "10.0.0.1/24").await;
    let mut path = via(sw_if_index, [10, 0, 0, 2].into());
    path.n_labels = 16;
    for (label, number) in path.label_stack.iter_mut().zip(100..) {
        (label.label, label.ttl) = (number, 64);
    }
    let route = IpRouteV2 { prefix: prefix("192.0.2.0/24"), paths: vec![path], ..Default::default() };
    client.call(&IpRouteAddDelV2 { route, ..Default::default() }).await.unwrap();
    let found = routes(&client, &IpTable::default()).await;
    let found = found.iter().find(|of| of.prefix == prefix("192.0.2.0/24")).unwrap();
    let labels: Vec<u32> = found.paths[0].label_stack.iter().map(|of| of.label).collect();
    assert_eq!((found.paths[0].n_labels, labels), (16, (100..116).collect::<Vec<_>>()));
}

#[tokio::test]
async fn neighbours_are_fixed() {
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    up(&client, sw_if_index).await;
    address(&client, sw_if_index, "10.0.0.1/24").await;
    let ip_address = IpAddr::from([10, 0, 0, 2]);
    let mac_address = MacAddress([2, 0, 0, 0, 0, 2]);
    let neighbor = IpNeighbor { sw_if_index, flags: IpNeighborFlags::STATIC, mac_address, ip_address };
    client.call(&IpNeighborAddDel { is_add: true, neighbor: neighbor.clone() }).await.unwrap();
    let found = client.dump(&IpNeighborDump { sw_if_index, ..Default::default() }).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].neighbor, neighbor);
    // The other numbers of VPP are big-endian, this one is as the machine has it.
    assert!((0.0..60.0).contains(&found[0].age), "{}", found[0].age);
    let now = client.call(&ShowVpeSystemTime).await.unwrap().vpe_system_time;
    assert!((1.7e9..1e10).contains(&now), "{now}");
    client.call(&IpNeighborAddDel { is_add: false, neighbor: neighbor.clone() }).await.unwrap();
    let gone = client.call(&IpNeighborAddDel { is_add: false, neighbor }).await;
    assert_eq!(refused(gone), Retval::NoSuchEntry);
    assert_eq!(client.collect(&IpPathMtuGet::default()).await.unwrap(), []);
}

#[tokio::test]
async fn the_end_of_a_ping_is_an_event() {
    let (vpp, client) = start().await;
    // It does not answer itself: Linux does.
    for command in ["link add near type veth peer name far", "link set near up", "link set far up"] {
        vpp.ip(command).unwrap();
    }
    vpp.ip("address add 10.0.0.2/24 dev far").unwrap();
    let near = AfPacketCreateV3 {
        mode: AfPacketMode::Ethernet,
        use_random_hw_addr: true,
        host_if_name: "near".into(),
        ..Default::default()
    };
    let sw_if_index = client.call(&near).await.unwrap().sw_if_index;
    up(&client, sw_if_index).await;
    address(&client, sw_if_index, "10.0.0.1/24").await;
    let ping = WantPingFinishedEvents { address: [10, 0, 0, 2].into(), repeat: 4, interval: 0.2 };
    let mut events = client.subscribe(&ping).await.unwrap();
    let event = tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap();
    // The first one waits for ARP.
    assert_eq!(event.request_count, 4);
    assert!(event.reply_count >= 3, "{event:?}");
}
