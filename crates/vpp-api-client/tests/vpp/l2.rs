//! Bridges and cross-connections.

use vpp_api_client::messages::{
    BridgeDomainAddDelV2, BridgeDomainDump, L2PortType, L2XconnectDump, SwInterfaceSetL2Bridge,
    SwInterfaceSetL2Xconnect,
};
use vpp_api_client::{InterfaceIndex, Retval};

use super::{loopback, refused, start};

#[tokio::test]
async fn a_cross_connection_has_a_direction() {
    let (_vpp, client) = start().await;
    let (rx_sw_if_index, tx_sw_if_index) = (loopback(&client).await, loopback(&client).await);
    let connect = |enable| SwInterfaceSetL2Xconnect { rx_sw_if_index, tx_sw_if_index, enable };
    client.call(&connect(true)).await.unwrap();
    let found = client.dump(&L2XconnectDump).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].rx_sw_if_index, found[0].tx_sw_if_index), (rx_sw_if_index, tx_sw_if_index));
    client.call(&connect(false)).await.unwrap();
    assert_eq!(client.dump(&L2XconnectDump).await.unwrap(), []);
    let nowhere = SwInterfaceSetL2Xconnect { rx_sw_if_index, tx_sw_if_index: InterfaceIndex(9999), enable: true };
    assert_eq!(refused(client.call(&nowhere).await), Retval::InvalidSwIfIndex);
}

#[tokio::test]
async fn a_bridge_domain_has_members() {
    let (_vpp, client) = start().await;
    let domain = |bd_id, is_add| BridgeDomainAddDelV2 {
        bd_id,
        flood: true,
        uu_flood: true,
        forward: true,
        learn: true,
        bd_tag: "mine".into(),
        is_add,
        ..BridgeDomainAddDelV2::default()
    };
    let bd_id = client.call(&domain(u32::MAX, true)).await.unwrap().bd_id;
    assert_eq!(refused(client.call(&domain(bd_id, true)).await), Retval::BdAlreadyExists);
    let (member, bvi) = (loopback(&client).await, loopback(&client).await);
    let join =
        |rx_sw_if_index, port_type, enable| SwInterfaceSetL2Bridge { rx_sw_if_index, bd_id, port_type, shg: 1, enable };
    client.call(&join(member, L2PortType::Normal, true)).await.unwrap();
    client.call(&join(bvi, L2PortType::Bvi, true)).await.unwrap();
    let found = client.dump(&BridgeDomainDump { bd_id, ..BridgeDomainDump::default() }).await.unwrap();
    let found = found.iter().find(|of| of.bd_id == bd_id).unwrap();
    assert_eq!((found.bd_tag.as_str(), found.learn, found.bvi_sw_if_index), ("mine", true, bvi));
    let mut members: Vec<_> = found.sw_if_details.iter().map(|of| of.sw_if_index).collect();
    members.sort();
    assert_eq!(members, [member, bvi]);
    assert_eq!(refused(client.call(&domain(bd_id, false)).await), Retval::BdInUse);
    for (member, port_type) in [(member, L2PortType::Normal), (bvi, L2PortType::Bvi)] {
        client.call(&join(member, port_type, false)).await.unwrap();
    }
    client.call(&domain(bd_id, false)).await.unwrap();
    assert_eq!(refused(client.call(&domain(bd_id, false)).await), Retval::NoSuchEntry);
}
