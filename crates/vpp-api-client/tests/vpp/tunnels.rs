//! VXLAN and WireGuard.

use std::net::IpAddr;

use vpp_api_client::messages::{
    AddNodeNext, VxlanAddDelTunnelV3, VxlanTunnelV2Dump, WantWireguardPeerEvents, WireguardInterface,
    WireguardInterfaceCreate, WireguardInterfaceDelete, WireguardInterfaceDump, WireguardPeer, WireguardPeerAdd,
    WireguardPeerAddV2, WireguardPeerRemove, WireguardPeerV2, WireguardPeersDump,
};
use vpp_api_client::{Error, InterfaceIndex, Retval};

use super::{address, loopback, prefix, refused, start, up};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn vxlan_tunnels_are_known_by_their_ends() {
    let (_vpp, client) = start().await;
    let underlay = loopback(&client).await;
    up(&client, underlay).await;
    address(&client, underlay, "10.0.0.1/24").await;
    let next = AddNodeNext { node_name: "vxlan4-input".into(), next_name: "ethernet-input".into() };
    let decap_next_index = client.call(&next).await.unwrap().next_index;
    let unknown = AddNodeNext { node_name: "none-of-these".into(), ..next };
    assert_eq!(refused(client.call(&unknown).await), Retval::NoSuchNode);
    let tunnel = VxlanAddDelTunnelV3 {
        src_address: ip("10.0.0.1"),
        dst_address: ip("10.0.0.2"),
        vni: 77,
        decap_next_index,
        ..Default::default()
    };
    let sw_if_index = client.call(&tunnel).await.unwrap().sw_if_index;
    assert_eq!(refused(client.call(&tunnel).await), Retval::TunnelExist);
    let found = client.dump(&VxlanTunnelV2Dump::default()).await.unwrap();
    assert_eq!(found.len(), 1);
    let found = &found[0];
    assert_eq!((found.sw_if_index, found.vni, found.src_port, found.dst_port), (sw_if_index, 77, 4789, 4789));
    assert_eq!((found.dst_address, found.decap_next_index), (ip("10.0.0.2"), decap_next_index));
    let same = VxlanAddDelTunnelV3 { dst_address: ip("10.0.0.1"), ..tunnel.clone() };
    assert_eq!(refused(client.call(&same).await), Retval::SameSrcDst);
    let wide = VxlanAddDelTunnelV3 { vni: 1 << 24, ..tunnel.clone() };
    assert!(matches!(client.call(&wide).await, Err(Error::NotSent { .. })));
    let remove = VxlanAddDelTunnelV3 { is_add: false, ..tunnel };
    client.call(&remove).await.unwrap();
    assert_eq!(refused(client.call(&remove).await), Retval::NoSuchEntry);
    let six = VxlanAddDelTunnelV3 { src_address: ip("fd00::1"), dst_address: ip("fd00::2"), ..Default::default() };
    client.call(&six).await.unwrap();
    assert_eq!(client.dump(&VxlanTunnelV2Dump::default()).await.unwrap()[0].src_address, ip("fd00::1"));
}

#[tokio::test]
async fn wireguard_has_interfaces_and_peers() {
    let (_vpp, client) = start().await;
    let interface = WireguardInterface { port: 51820, src_ip: ip("10.0.0.1"), ..Default::default() };
    let create = WireguardInterfaceCreate { interface, generate_key: true };
    let sw_if_index = client.call(&create).await.unwrap().sw_if_index;
    let dump = |show_private_key| WireguardInterfaceDump { show_private_key, sw_if_index };
    let hidden = client.dump(&dump(false)).await.unwrap();
    let shown = client.dump(&dump(true)).await.unwrap();
    assert_eq!((hidden.len(), shown.len()), (1, 1));
    assert_eq!(hidden[0].interface.private_key, [0; 32]);
    assert_ne!(shown[0].interface.private_key, [0; 32]);
    assert_ne!(shown[0].interface.public_key, [0; 32]);
    assert_eq!((shown[0].interface.port, shown[0].interface.src_ip), (51820, ip("10.0.0.1")));

    let peer = WireguardPeer {
        public_key: [7; 32],
        port: 51820,
        endpoint: ip("10.0.0.2"),
        sw_if_index,
        allowed_ips: vec![prefix("10.1.0.0/16"), prefix("10.2.0.0/16")],
        ..Default::default()
    };
    let first = client.call(&WireguardPeerAdd { peer: peer.clone() }).await.unwrap().peer_index;
    assert_eq!(refused(client.call(&WireguardPeerAdd { peer: peer.clone() }).await), Retval::EntryAlreadyExists);
    let nothing = WireguardPeer { public_key: [8; 32], allowed_ips: Vec::new(), ..peer };
    assert_eq!(refused(client.call(&WireguardPeerAdd { peer: nothing }).await), Retval::InvalidValue);
    let with_secret = WireguardPeerV2 {
        preshared_key: [3; 32],
        preshared_key_set: true,
        public_key: [9; 32],
        port: 51820,
        endpoint: ip("10.0.0.3"),
        sw_if_index,
        allowed_ips: vec![prefix("10.3.0.0/16")],
        ..Default::default()
    };
    match client.call(&WireguardPeerAddV2 { peer: with_secret }).await {
        Ok(second) => assert_ne!(second.peer_index, first),
        Err(Error::NotServed { .. }) => eprintln!("before 26.06: without preshared keys"),
        Err(other) => panic!("{other}"),
    }
    let peers = client.dump(&WireguardPeersDump::default()).await.unwrap();
    let found = peers.iter().find(|of| of.peer.peer_index == first).unwrap();
    assert_eq!((found.peer.public_key, found.peer.endpoint), ([7; 32], ip("10.0.0.2")));
    assert_eq!(found.peer.allowed_ips, [prefix("10.1.0.0/16"), prefix("10.2.0.0/16")]);
    let want = WantWireguardPeerEvents { enable_disable: 1, pid: 1, ..Default::default() };
    let _events = client.subscribe(&want).await.unwrap();
    for peer in peers {
        client.call(&WireguardPeerRemove { peer_index: peer.peer.peer_index }).await.unwrap();
    }
    assert_eq!(refused(client.call(&WireguardPeerRemove { peer_index: first }).await), Retval::NoSuchEntry);
    client.call(&WireguardInterfaceDelete { sw_if_index }).await.unwrap();
    for (sw_if_index, expected) in
        [(InterfaceIndex(9999), Retval::InvalidSwIfIndex), (loopback(&client).await, Retval::InvalidValue)]
    {
        assert_eq!(refused(client.call(&WireguardInterfaceDelete { sw_if_index }).await), expected);
    }
}
