//! Against a VPP. Suite `vpp`, which is skipped where none is installed: the test starts its own, with folders of its own, and
//! makes no interface that leaves it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;
use vpp_api_client::definition::Definitions;
use vpp_api_client::message::Message;
use vpp_api_client::messages::{
    CreateLoopbackInstance, DeleteLoopback, IfStatusFlags, IpAddressDump, MemifCreateV2, MemifDump, MemifMode,
    ShowVersion, SwInterfaceAddDelAddress, SwInterfaceDump, SwInterfaceSetFlags, SwInterfaceTagAddDel,
    WantInterfaceEvents,
};
use vpp_api_client::session::Process;
use vpp_api_client::{Client, Error, InterfaceIndex, MacAddress, Options, Prefix, Retval, Session, Stats};

struct Vpp {
    child: Child,
    folder: TempDir,
}

impl Vpp {
    async fn start() -> (Self, Client) {
        let folder = tempfile::tempdir().unwrap();
        let child = Self::run(folder.path());
        let vpp = Self { child, folder };
        let client = vpp.client().await;
        (vpp, client)
    }

    fn run(folder: &Path) -> Child {
        let at = folder.display();
        let configuration = format!(
            "unix {{ nodaemon nosyslog runtime-dir {at} cli-listen {at}/cli.sock }}\n\
             memory {{ main-heap-size 256M main-heap-page-size 4k }}\nbuffers {{ page-size 4k }}\n\
             socksvr {{ socket-name {at}/api.sock }}\nstatseg {{ socket-name {at}/stats.sock page-size 4k }}\n\
             plugins {{ plugin dpdk_plugin.so {{ disable }} }}\n"
        );
        fs::write(folder.join("startup.conf"), configuration).unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new("vpp");
        command.arg("-c").arg(folder.join("startup.conf")).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("vpp: cargo xtask test vpp looks for it")
    }

    async fn client(&self) -> Client {
        let began = Instant::now();
        loop {
            match Client::connect(self.folder.path().join("api.sock"), Options::new("test")).await {
                Ok(client) => return client,
                Err(error) if began.elapsed() > Duration::from_secs(30) => {
                    let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                    panic!("{error}\n{log}");
                }
                // Its socket is what is waited for.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Vpp {
    fn drop(&mut self) {
        self.end();
    }
}

#[tokio::test]
async fn everything_here_is_as_vpp_has_it() {
    let (_vpp, client) = Vpp::start().await;
    println!("{}", client.call(&ShowVersion).await.unwrap().version);
    // A plugin or a version may lack a message; none that is there may differ.
    for error in client.unusable() {
        assert!(matches!(error, Error::NotServed { .. }), "{error}");
        println!("{error}");
    }
    let told = client.definitions().await.unwrap();
    assert!(told.messages.contains_key("memif_create_v2"), "this VPP has no memif plugin: there is little to compare");
    let ours = Definitions::ours();
    for (name, message) in &ours.messages {
        if let Some(theirs) = told.messages.get(name) {
            assert_eq!((theirs.crc, theirs.head), (message.crc, message.head), "{name}");
            assert_eq!(told.services.get(name), ours.services.get(name), "{name}");
        }
    }
}

#[tokio::test]
async fn interfaces_are_made_seen_counted_and_removed() {
    let (vpp, client) = Vpp::start().await;
    let mut events = client.subscribe(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await.unwrap();
    let again = client.call(&WantInterfaceEvents { enable_disable: 1, pid: 1 }).await;
    assert!(matches!(again, Err(Error::Refused { retval: Retval::InvalidRegistration, .. })));

    let loopback = CreateLoopbackInstance { mac_address: MacAddress::default(), is_specified: false, user_instance: 0 };
    let sw_if_index = client.call(&loopback).await.unwrap().sw_if_index;
    client.call(&SwInterfaceTagAddDel { is_add: true, sw_if_index, tag: "mine".into() }).await.unwrap();
    client.call(&SwInterfaceSetFlags { sw_if_index, flags: IfStatusFlags::ADMIN_UP }).await.unwrap();
    let prefix = Prefix::new([10, 9, 8, 7], 24).unwrap();
    let address = SwInterfaceAddDelAddress { sw_if_index, is_add: true, del_all: false, prefix };
    client.call(&address).await.unwrap();
    assert_eq!(events.next().await.unwrap().sw_if_index, sw_if_index);

    let memif = MemifCreateV2 { mode: MemifMode::Ip, id: 3, ..MemifCreateV2::default() };
    client.call(&memif).await.unwrap();
    let twice = client.call(&memif).await.unwrap_err();
    assert!(matches!(twice, Error::Refused { retval: Retval::SubifAlreadyExists, .. }), "{twice}");
    let memifs = client.dump(&MemifDump).await.unwrap();
    assert_eq!((memifs.len(), memifs[0].mode, memifs[0].id), (1, MemifMode::Ip, 3));

    let all = client.dump(&SwInterfaceDump::default()).await.unwrap();
    let ours = all.iter().find(|of| of.tag == "mine").unwrap();
    assert!(ours.flags.contains(IfStatusFlags::ADMIN_UP) && ours.sw_if_index == sw_if_index);
    let addresses = client.dump(&IpAddressDump { sw_if_index, is_ipv6: false }).await.unwrap();
    assert_eq!(addresses[0].prefix, prefix);
    let told = client.definitions().await.unwrap();
    let by_name = client.call_by_name(&told, SwInterfaceDump::NAME, &json!({})).await.unwrap();
    assert_eq!(by_name.details.len(), all.len());

    let stats = vpp.folder.path().join("stats.sock");
    let counted =
        tokio::task::spawn_blocking(|| Stats::connect(stats, Duration::from_secs(5))?.interfaces()).await.unwrap();
    assert!(counted.unwrap().iter().any(|of| of.sw_if_index == sw_if_index.0 && of.name == ours.interface_name));

    client.call(&DeleteLoopback { sw_if_index }).await.unwrap();
    let gone =
        client.call(&SwInterfaceSetFlags { sw_if_index: InterfaceIndex(9999), flags: IfStatusFlags::ADMIN_UP }).await;
    assert!(matches!(gone, Err(Error::Refused { retval: Retval::InvalidSwIfIndex, .. })));
}

#[tokio::test]
async fn a_vpp_that_was_killed_is_another_one_afterwards() {
    let (mut vpp, _client) = Vpp::start().await;
    let mut session = Session::start(vpp.folder.path().join("api.sock"), Options::new("test"), Duration::from_secs(10));
    session.client().await.unwrap();
    vpp.end();
    vpp.child = Vpp::run(vpp.folder.path());
    let report = tokio::time::timeout(Duration::from_mins(1), session.reconnected()).await.unwrap().unwrap();
    assert_eq!(report.process, Process::Another);
    session.client().await.unwrap().ping().await.unwrap();
}
