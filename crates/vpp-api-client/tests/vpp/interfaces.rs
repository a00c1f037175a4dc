//! What every interface has.

use vpp_api_client::messages::{
    DeleteLoopback, HwInterfaceSetMtu, IfStatusFlags, IpAddressDump, IpTable, IpTableAddDel, RxMode,
    SwInterfaceAddDelAddress, SwInterfaceDetails, SwInterfaceDump, SwInterfaceGetTable, SwInterfaceRxPlacementDump,
    SwInterfaceSetDefaultRxMode, SwInterfaceSetFlags, SwInterfaceSetMacAddress, SwInterfaceSetMtu,
    SwInterfaceSetRxMode, SwInterfaceSetTable, SwInterfaceSetUnnumbered, SwInterfaceTagAddDel,
    SwInterfaceTxPlacementGet, WantInterfaceEvents,
};
use vpp_api_client::{Client, Error, InterfaceIndex, MacAddress, Retval};

use super::{address, loopback, prefix, refused, start, up};

async fn seen(client: &Client, sw_if_index: InterfaceIndex) -> Option<SwInterfaceDetails> {
    let all = client.dump(&SwInterfaceDump { sw_if_index, ..SwInterfaceDump::default() }).await.unwrap();
    all.into_iter().find(|of| of.sw_if_index == sw_if_index)
}

#[tokio::test]
async fn what_is_set_is_seen() {
    let (_vpp, client) = start().await;
    let sw_if_index = loopback(&client).await;
    up(&client, sw_if_index).await;
    client.call(&SwInterfaceTagAddDel { is_add: true, sw_if_index, tag: "mine".into() }).await.unwrap();
    let mac_address = MacAddress([2, 0, 0, 0, 0, 9]);
    client.call(&SwInterfaceSetMacAddress { sw_if_index, mac_address }).await.unwrap();
    client.call(&SwInterfaceSetMtu { sw_if_index, mtu: [1400, 1300, 0, 0] }).await.unwrap();
    let found = seen(&client, sw_if_index).await.unwrap();
    assert_eq!((found.tag.as_str(), found.interface_name.as_str()), ("mine", "loop0"));
    assert_eq!((found.l2_address, found.mtu), (mac_address, [1400, 1300, 0, 0]));
    assert!(found.flags.contains(IfStatusFlags::ADMIN_UP | IfStatusFlags::LINK_UP));

    let named = SwInterfaceDump { name_filter_valid: true, name_filter: "LOOP".into(), ..SwInterfaceDump::default() };
    assert_eq!(client.dump(&named).await.unwrap().len(), 1);
    client.call(&SwInterfaceTagAddDel { is_add: false, sw_if_index, tag: "mine".into() }).await.unwrap();
    assert_eq!(seen(&client, sw_if_index).await.unwrap().tag, "");
    client.call(&DeleteLoopback { sw_if_index }).await.unwrap();
    assert_eq!(seen(&client, sw_if_index).await, None);
}

#[tokio::test]
async fn refusals_have_their_names() {
    let (_vpp, client) = start().await;
    let (sw_if_index, nowhere) = (loopback(&client).await, InterfaceIndex(9999));
    let flags = IfStatusFlags::ADMIN_UP;
    assert_eq!(
        refused(client.call(&SwInterfaceSetFlags { sw_if_index: nowhere, flags }).await),
        Retval::InvalidSwIfIndex
    );
    let empty = SwInterfaceTagAddDel { is_add: true, sw_if_index, tag: String::new() };
    assert_eq!(refused(client.call(&empty).await), Retval::InvalidValue);
    let long = SwInterfaceTagAddDel { is_add: true, sw_if_index, tag: "x".repeat(64) };
    assert!(matches!(client.call(&long).await, Err(Error::NotSent { .. })));
    assert_eq!(refused(client.call(&HwInterfaceSetMtu { sw_if_index, mtu: 1500 }).await), Retval::Unsupported);
    let rx_mode = SwInterfaceSetRxMode { sw_if_index, queue_id_valid: true, queue_id: 0, mode: RxMode::Interrupt };
    assert_eq!(refused(client.call(&rx_mode).await), Retval::Unimplemented);
    let table = SwInterfaceSetTable { sw_if_index, is_ipv6: false, vrf_id: 77 };
    assert_eq!(refused(client.call(&table).await), Retval::NoSuchFib);
    client.call(&SwInterfaceSetDefaultRxMode { mode: RxMode::Interrupt }).await.unwrap();
}

#[tokio::test]
async fn addresses_belong_to_an_interface_and_a_table() {
    let (_vpp, client) = start().await;
    let (sw_if_index, other) = (loopback(&client).await, loopback(&client).await);
    let table = IpTable { table_id: 7, is_ip6: false, name: "seven".into() };
    client.call(&IpTableAddDel { is_add: true, table }).await.unwrap();
    client.call(&SwInterfaceSetTable { sw_if_index, is_ipv6: false, vrf_id: 7 }).await.unwrap();
    let table = client.call(&SwInterfaceGetTable { sw_if_index, is_ipv6: false }).await.unwrap();
    assert_eq!(table.vrf_id, 7);
    for one in ["10.9.8.7/24", "fd00::7/64"] {
        address(&client, sw_if_index, one).await;
    }
    for (is_ipv6, expected) in [(false, "10.9.8.7/24"), (true, "fd00::7/64")] {
        let found = client.dump(&IpAddressDump { sw_if_index, is_ipv6 }).await.unwrap();
        assert_eq!(found.iter().map(|of| of.prefix).collect::<Vec<_>>(), [prefix(expected)]);
    }
    let late = SwInterfaceSetTable { sw_if_index, is_ipv6: false, vrf_id: 0 };
    assert_eq!(refused(client.call(&late).await), Retval::AddressFoundForInterface);
    let foreign =
        SwInterfaceAddDelAddress { sw_if_index, is_add: false, del_all: false, prefix: prefix("10.0.0.1/24") };
    assert_eq!(refused(client.call(&foreign).await), Retval::AddressNotFoundForInterface);
    let borrow = SwInterfaceSetUnnumbered { sw_if_index, unnumbered_sw_if_index: other, is_add: true };
    assert_eq!(refused(client.call(&borrow).await), Retval::UnexpectedIntfState, "another table");
    client.call(&SwInterfaceSetTable { sw_if_index: other, is_ipv6: false, vrf_id: 7 }).await.unwrap();
    client.call(&borrow).await.unwrap();
    let all = SwInterfaceAddDelAddress { sw_if_index, is_add: false, del_all: true, prefix: prefix("0.0.0.0/0") };
    client.call(&all).await.unwrap();
    assert_eq!(client.dump(&IpAddressDump { sw_if_index, is_ipv6: false }).await.unwrap(), []);
}

#[tokio::test]
async fn events_come_as_a_stream() {
    let (_vpp, client) = start().await;
    let want = WantInterfaceEvents { enable_disable: 1, pid: 1 };
    let mut events = client.subscribe(&want).await.unwrap();
    assert_eq!(refused(client.call(&want).await), Retval::InvalidRegistration);
    let sw_if_index = loopback(&client).await;
    up(&client, sw_if_index).await;
    client.call(&DeleteLoopback { sw_if_index }).await.unwrap();
    let mut told = Vec::new();
    while !told.last().is_some_and(|(_, deleted)| *deleted) {
        let event = tokio::time::timeout(super::SOON, events.next()).await.unwrap().unwrap();
        assert_eq!((event.sw_if_index, event.pid), (sw_if_index, 1));
        told.push((event.flags.contains(IfStatusFlags::ADMIN_UP), event.deleted));
    }
    assert!(told.contains(&(true, false)), "{told:?}");
    client.call(&WantInterfaceEvents { enable_disable: 0, pid: 1 }).await.unwrap();
    let again = WantInterfaceEvents { enable_disable: 0, pid: 1 };
    assert_eq!(refused(client.call(&again).await), Retval::InvalidRegistration);
    up(&client, loopback(&client).await).await;
    client.ping().await.unwrap();
    assert_eq!(client.strays(), 0, "an event that nobody wants any more");
}

#[tokio::test]
async fn a_thousand_come_in_one_dump() {
    let (_vpp, client) = start().await;
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let client = client.clone();
        all.spawn(async move { loopback(&client).await });
    }
    let made = all.join_all().await;
    let found = client.dump(&SwInterfaceDump::default()).await.unwrap();
    assert_eq!(found.len(), made.len() + 1);
    // A loopback has no queues.
    assert_eq!(client.dump(&SwInterfaceRxPlacementDump::default()).await.unwrap(), []);
    assert_eq!(refused(client.collect(&SwInterfaceTxPlacementGet::default()).await), Retval::NoSuchEntry);
}
