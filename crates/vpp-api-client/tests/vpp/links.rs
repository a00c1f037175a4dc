//! Interfaces to somebody: memif, tap, af_packet.

use vpp_api_client::messages::{
    AfPacketCreateV3, AfPacketDelete, AfPacketDump, AfPacketMode, IfStatusFlags, Ip4Prefix, Ip6Prefix, MemifCreateV2,
    MemifDelete, MemifDump, MemifMode, MemifRole, MemifSocketFilenameAddDelV2, MemifSocketFilenameDump, RxMode,
    SwInterfaceRxPlacementDump, SwInterfaceSetRxMode, SwInterfaceTapV2Dump, SwInterfaceTxPlacementGet, TapCreateV3,
    TapDeleteV2, TapFlags, WantInterfaceEvents,
};
use vpp_api_client::{Client, Error, InterfaceIndex, Retval};

use super::{SOON, loopback, refused, start, up};

async fn socket(client: &Client, file: &str) -> u32 {
    let add = MemifSocketFilenameAddDelV2 { is_add: true, socket_filename: file.into(), ..Default::default() };
    client.call(&add).await.unwrap().socket_id
}

async fn linked(client: &Client, sw_if_index: InterfaceIndex) -> bool {
    let all = client.dump(&MemifDump).await.unwrap();
    all.iter().any(|of| of.sw_if_index == sw_if_index && of.flags.contains(IfStatusFlags::LINK_UP))
}

#[tokio::test]
async fn two_memifs_find_each_other() {
    let (vpp, client) = start().await;
    let mut events = client.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    for file in [vpp.file("memif.sock").display().to_string(), format!("abstract:vpp-api/{}", std::process::id())] {
        let (of_master, of_slave) = (socket(&client, &file).await, socket(&client, &file).await);
        let memif =
            |role, socket_id| MemifCreateV2 { role, socket_id, id: 3, secret: "hidden".into(), ..Default::default() };
        let master = client.call(&memif(MemifRole::Master, of_master)).await.unwrap().sw_if_index;
        let twice = client.call(&memif(MemifRole::Master, of_master)).await;
        assert_eq!(refused(twice), Retval::SubifAlreadyExists);
        let slave = MemifCreateV2 { rx_queues: 2, tx_queues: 2, ..memif(MemifRole::Slave, of_slave) };
        let slave = client.call(&slave).await.unwrap().sw_if_index;
        for sw_if_index in [master, slave] {
            up(&client, sw_if_index).await;
        }
        while !(linked(&client, master).await && linked(&client, slave).await) {
            tokio::time::timeout(SOON, events.next()).await.unwrap().unwrap();
        }
        let all = client.dump(&MemifDump).await.unwrap();
        let slaves: Vec<_> = all.iter().filter(|of| of.role == MemifRole::Slave).collect();
        assert_eq!((slaves.len(), slaves[0].ring_size, slaves[0].buffer_size), (1, 1024, 2048));
        assert!(slaves[0].zero_copy);
        let mode = RxMode::Interrupt;
        for sw_if_index in [master, slave] {
            let set = SwInterfaceSetRxMode { sw_if_index, queue_id_valid: false, queue_id: 0, mode };
            client.call(&set).await.unwrap();
            let dump = SwInterfaceRxPlacementDump { sw_if_index };
            let queues = client.dump(&dump).await.unwrap();
            let get = SwInterfaceTxPlacementGet { sw_if_index, ..Default::default() };
            let sending = client.collect(&get).await.unwrap();
            assert_eq!(sending.iter().map(|of| of.queue_id).collect::<Vec<_>>(), [0, 1]);
            assert_eq!(queues.iter().map(|of| (of.queue_id, of.mode)).collect::<Vec<_>>(), [(0, mode), (1, mode)]);
        }
        let names = client.dump(&MemifSocketFilenameDump).await.unwrap();
        assert!(names.iter().any(|of| of.socket_id == of_master && of.socket_filename == file), "{names:?}");
        let remove = |socket_id| MemifSocketFilenameAddDelV2 { is_add: false, socket_id, ..Default::default() };
        assert_eq!(refused(client.call(&remove(of_slave)).await), Retval::UnexpectedIntfState);
        for sw_if_index in [slave, master] {
            client.call(&MemifDelete { sw_if_index }).await.unwrap();
        }
        for socket_id in [of_slave, of_master] {
            client.call(&remove(socket_id)).await.unwrap();
        }
    }
    assert_eq!(
        refused(client.call(&MemifDelete { sw_if_index: loopback(&client).await }).await),
        Retval::InvalidSwIfIndex
    );
}

#[tokio::test]
async fn a_memif_that_cannot_be_is_refused_here_or_there() {
    let (vpp, client) = start().await;
    let of_nobody = MemifCreateV2 { socket_id: 4711, ..Default::default() };
    assert_eq!(refused(client.call(&of_nobody).await), Retval::InvalidArgument);
    let odd = MemifCreateV2 { ring_size: 1000, ..Default::default() };
    assert_eq!(refused(client.call(&odd).await), Retval::InvalidArgument);
    for deadly in [
        MemifCreateV2 { ring_size: 65536, ..Default::default() },
        MemifCreateV2 { secret: "x".repeat(24), ..Default::default() },
    ] {
        assert!(matches!(client.call(&deadly).await, Err(Error::NotSent { .. })));
    }
    let socket_id = socket(&client, &vpp.file("log/memif.sock").display().to_string()).await;
    let master = MemifCreateV2 { mode: MemifMode::Ip, socket_id, ..Default::default() };
    assert_eq!(refused(client.call(&master).await), Retval::SyscallError4);
}

/// Where the kernel has no vhost, VPP says so by the number that its documentation here has.
#[tokio::test]
async fn a_tap_has_a_side_of_the_host() {
    let (vpp, client) = start().await;
    let tap = TapCreateV3 {
        host_if_name_set: true,
        host_if_name: "of-vpp".into(),
        host_mtu_set: true,
        host_mtu_size: 1400,
        host_ip4_prefix_set: true,
        host_ip4_prefix: Ip4Prefix { address: [10, 5, 0, 2].into(), len: 24 },
        host_ip6_prefix_set: true,
        host_ip6_prefix: Ip6Prefix { address: "fd05::2".parse().unwrap(), len: 64 },
        tap_flags: TapFlags::TUN,
        tag: "mine".into(),
        ..Default::default()
    };
    let made = client.call(&tap).await;
    if !std::path::Path::new("/dev/vhost-net").exists() {
        assert_eq!(refused(made), Retval::SyscallError1);
        return eprintln!("without /dev/vhost-net only the refusal of a tap was tested");
    }
    let sw_if_index = made.unwrap().sw_if_index;
    let shown = vpp.ip("address show of-vpp").unwrap();
    for part in ["mtu 1400", "10.5.0.2/24", "fd05::2/64"] {
        assert!(shown.contains(part), "{shown}");
    }
    let found = client.dump(&SwInterfaceTapV2Dump::default()).await.unwrap();
    assert_eq!((found.len(), found[0].host_if_name.as_str()), (1, "of-vpp"));
    assert_eq!((&found[0].host_ip4_prefix, &found[0].host_ip6_prefix), (&tap.host_ip4_prefix, &tap.host_ip6_prefix));
    assert!(found[0].tap_flags.contains(TapFlags::TUN));
    let twice = TapCreateV3 { id: found[0].id, host_if_name: "another".into(), ..tap.clone() };
    assert_eq!(refused(client.call(&twice).await), Retval::InvalidInterface);
    let nowhere = TapCreateV3 { host_namespace_set: true, host_namespace: "nowhere".into(), ..twice };
    assert_eq!(refused(client.call(&TapCreateV3 { id: u32::MAX, ..nowhere }).await), Retval::SyscallError2);
    client.call(&TapDeleteV2 { sw_if_index }).await.unwrap();
    assert!(vpp.ip("link show of-vpp").is_err());
}

#[tokio::test]
async fn an_interface_of_the_host_is_one_of_vpp() {
    let (vpp, client) = start().await;
    vpp.ip("link add near type veth peer name far").unwrap();
    let create = AfPacketCreateV3 {
        mode: AfPacketMode::Ethernet,
        use_random_hw_addr: true,
        host_if_name: "near".into(),
        rx_frame_size: 2048,
        tx_frame_size: 2048,
        rx_frames_per_block: 64,
        tx_frames_per_block: 64,
        ..Default::default()
    };
    let sw_if_index = client.call(&create).await.unwrap().sw_if_index;
    let again = client.answer(&create).await.unwrap();
    assert_eq!((again.retval, again.sw_if_index), (Retval::IfAlreadyExists, sw_if_index));
    let found = client.dump(&AfPacketDump).await.unwrap();
    assert_eq!((found.len(), found[0].host_if_name.as_str()), (1, "near"));
    let nobody = AfPacketCreateV3 { host_if_name: "nobody".into(), ..create };
    assert_eq!(refused(client.call(&nobody).await), Retval::InvalidInterface);
    let delete = AfPacketDelete { host_if_name: "near".into() };
    client.call(&delete).await.unwrap();
    assert_eq!(refused(client.call(&delete).await), Retval::SyscallError1);
}
