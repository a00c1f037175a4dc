//! Traffic that goes to a network service by what it is, not only by where it goes to.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::Command;
use std::thread;

use anyhow::{Context, ensure};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, Namespace, Program, binary, eventually};
use nsm_netlink::{Address, IfName, LinkConfig, Netns, NetnsSocket};
use serde_json::json;

use super::{ANSWER, address, make_service, page, serve, web_server};
use crate::SOON;
use crate::asking::{Asking, with_log};

/// Gives a pod addresses of its own, behind all its interfaces.
fn own(namespace: &Namespace, addresses: &[&str]) -> anyhow::Result<()> {
    let mut inside = NetnsSocket::open(&Netns::open(namespace.path())?)?;
    let loopback = inside.link_by_name(&IfName::new("lo")?)?.context("no loopback")?;
    let addresses = addresses.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
    inside.configure(loopback.index, &LinkConfig { up: true, addresses, ..LinkConfig::default() })?;
    Ok(())
}

/// Answers each datagram with `word`, until the test ends.
fn says(namespace: &Namespace, at: &str, word: &'static str) -> anyhow::Result<()> {
    let at: SocketAddr = at.parse()?;
    let socket = namespace.run(|| UdpSocket::bind(at))?.context("UDP server")?;
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(word.as_bytes(), from).ok();
        }
    });
    Ok(())
}

/// What a datagram from `port` (0: any) is answered.
fn asked(namespace: &Namespace, port: u16, to: SocketAddr) -> anyhow::Result<io::Result<String>> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    namespace.run(|| {
        let socket = UdpSocket::bind(SocketAddr::new(any, port)).context("UDP client")?;
        socket.set_read_timeout(Some(ANSWER))?;
        let answer = || {
            socket.connect(to)?;
            socket.send(b"who?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        Ok(answer())
    })?
}

/// Nothing leads there.
fn is_unreachable<T>(outcome: &io::Result<T>) -> bool {
    outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable)
}

fn is_unreachable_page(outcome: anyhow::Result<String>) -> bool {
    outcome.is_err_and(|error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::NetworkUnreachable)
    })
}

pub(crate) fn choose_traffic_by_protocol_and_ports() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    make_service(&cluster, "mesh", "routed", &json!({ "payload": "IP" }))?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let policies = "proto 6 dport 6666 to 10.98.0.0/24; proto 17 sport 5555 to 10.98.0.0/24; \
                    from 10.97.0.1/32 to 10.98.0.0/24; proto 17 dport 5555 to fd98::/64";
    let plan = Endpoint::of("routed").program("nsm-routing").cidr("172.16.1.0/24,fd00:16::/64");
    let endpoint = serve(&cluster, node, "router", None, &plan.set("NSM_POLICIES", policies))?;
    let behind = endpoint.pod().namespace();
    own(behind, &["10.98.0.1/32", "fd98::1/128"])?;
    for port in ["6666", "6667"] {
        web_server(behind, &format!("10.98.0.1:{port}"), "routed")?;
    }
    for at in ["10.98.0.1:7", "[fd98::1]:5555", "[fd98::1]:5556"] {
        says(behind, at, "here")?;
    }
    let client = Asking::create(&cluster, node, "default", "client", Some("kernel://routed/nsm-1"))?;
    with_log(node, client.add()?.ok())?;
    let pod = client.sandbox.namespace();
    client.sandbox.ping(address("172.16.1.0")?)?;
    ensure!(page(pod, "10.98.0.1:6666".parse()?)? == "routed");
    ensure!(is_unreachable_page(page(pod, "10.98.0.1:6667".parse()?)), "another port");
    ensure!(asked(pod, 5555, "10.98.0.1:7".parse()?)?? == "here");
    let other = asked(pod, 5556, "10.98.0.1:7".parse()?)?;
    ensure!(is_unreachable(&other), "another source port: {other:?}");
    ensure!(asked(pod, 0, "[fd98::1]:5555".parse()?)?? == "here");
    let other = asked(pod, 0, "[fd98::1]:5556".parse()?)?;
    ensure!(is_unreachable(&other), "another port: {other:?}");
    // Rules, which no interface takes along, go with the connection.
    client.del()?.ok()?;
    let other = asked(pod, 5555, "10.98.0.1:7".parse()?)?;
    ensure!(is_unreachable(&other), "{other:?}");
    let rules = NetnsSocket::open(&Netns::open(pod.path())?)?.rules()?;
    ensure!(rules.iter().all(|rule| rule.protocol.is_none() && rule.from.is_none()), "{rules:?}");
    Ok(())
}

pub(crate) fn endpoints_of_the_same_prefixes_share_the_traffic() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    // Both have the same pool and the same server behind them. Neither knows of the other.
    let mut endpoints = Vec::new();
    for (name, policy) in
        [("red", "proto 6 dport 6666 to 10.99.0.0/24"), ("blue", "proto 17 dport 5555 to 10.99.0.0/24")]
    {
        make_service(&cluster, "mesh", name, &json!({ "payload": "IP" }))?;
        let plan = Endpoint::of(name).program("nsm-routing").cidr("172.16.1.0/24").set("NSM_POLICIES", policy);
        let endpoint = serve(&cluster, node, name, None, &plan)?;
        own(endpoint.pod().namespace(), &["10.99.0.1/32"])?;
        for port in [5555, 6666] {
            let at = format!("10.99.0.1:{port}");
            web_server(endpoint.pod().namespace(), &at, name)?;
            says(endpoint.pod().namespace(), &at, name)?;
        }
        endpoints.push(endpoint);
    }
    let client = Asking::create(&cluster, node, "default", "client", Some("kernel://red/nsm-1,kernel://blue/nsm-2"))?;
    let added = with_log(node, client.add()?.ok())?;
    // What the first has given, the second does not give again.
    let mut addresses: Vec<IpAddr> = added.addresses()?;
    addresses.push(added.peer(false)?);
    addresses.sort_unstable();
    addresses.dedup();
    ensure!(addresses.len() == 3, "{}", added.json);
    let pod = client.sandbox.namespace();
    let (web, words): (SocketAddr, SocketAddr) = ("10.99.0.1:6666".parse()?, "10.99.0.1:5555".parse()?);
    ensure!(page(pod, web)? == "red");
    ensure!(asked(pod, 0, words)?? == "blue");
    ensure!(is_unreachable_page(page(pod, words)), "TCP is no business of blue's");
    ensure!(is_unreachable(&asked(pod, 0, web)?), "UDP is no business of red's");
    // One goes: the other's traffic is as before.
    client.edit(Some("kernel://blue/nsm-2"))?;
    with_log(node, client.waits_for("nsm-1", false, SOON))?;
    ensure!(is_unreachable_page(page(pod, web)), "without red");
    ensure!(asked(pod, 0, words)?? == "blue");
    Ok(())
}

/// What tells the traffic of one address apart, as seen from a pod: protocol and port.
fn is_shared(pod: &Namespace) -> anyhow::Result<()> {
    let ours = address(OURS)?;
    let addresses = || Ok(NetnsSocket::open(&Netns::open(pod.path())?)?.addresses()?);
    let twice = |found: &Vec<Address>| found.iter().filter(|found| found.network.ip() == ours).count() == 2;
    eventually("both addresses", SOON, addresses, twice)?;
    let (web, words) = (SocketAddr::new(address(THEIRS)?, 6666), SocketAddr::new(address(THEIRS)?, 5555));
    // A moment ago it may have been another endpoint's.
    eventually("red's page", SOON, || page(pod, web), |page| page == "red")?;
    let answered = || Ok(asked(pod, 0, words)?.unwrap_or_default());
    eventually("blue's word", SOON, answered, |word| word == "blue")?;
    Ok(())
}

/// The client's address, from both endpoints.
const OURS: &str = "172.16.1.101";
/// The address of both endpoints.
const THEIRS: &str = "172.16.1.100";

pub(crate) fn mutually_aware_endpoints_give_the_same_addresses() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    // One pair of addresses each, and it is the same one.
    let mut endpoints = Vec::new();
    for (name, traffic) in [("red", "proto 6 dport 6666"), ("blue", "proto 17 dport 5555")] {
        make_service(&cluster, "mesh", name, &json!({ "payload": "ETHERNET" }))?;
        let policy = format!("from {OURS}/32 {traffic} to {THEIRS}/32");
        let plan = Endpoint::of(name).program("nsm-routing").cidr("172.16.1.100/31").set("NSM_POLICIES", &policy);
        let endpoint = serve(&cluster, node, name, None, &plan)?;
        web_server(endpoint.pod().namespace(), "0.0.0.0:6666", name)?;
        says(endpoint.pod().namespace(), "0.0.0.0:5555", name)?;
        endpoints.push(endpoint);
    }
    let (red, blue) = ("kernel://red/nsm-1?awarenessGroup=one", "kernel://blue/nsm-2?awarenessGroup=one");
    let both = format!("{red},{blue}");
    let client = Asking::create(&cluster, node, "default", "client", Some(&both))?;
    with_log(node, client.add()?.ok())?;
    let pod = client.sandbox.namespace();
    is_shared(pod)?;
    // One goes: the other's route and address are its own, and lead everything to it now.
    client.edit(Some(blue))?;
    with_log(node, client.waits_for("nsm-1", false, SOON))?;
    let web = SocketAddr::new(address(THEIRS)?, 6666);
    ensure!(page(pod, web)? == "blue");
    client.edit(Some(&both))?;
    with_log(node, client.waits_for("nsm-1", true, SOON))?;
    is_shared(pod)?;
    client.edit(Some(red))?;
    with_log(node, client.waits_for("nsm-2", false, SOON))?;
    ensure!(page(pod, web)? == "red");
    client.del()?.ok()?;
    let rules = NetnsSocket::open(&Netns::open(pod.path())?)?.rules()?;
    ensure!(rules.iter().all(|rule| rule.protocol.is_none() && rule.from.is_none()), "{rules:?}");

    // A program says it in upstream's form.
    let program = node.pod("program")?;
    let services = "kernel://red/nsm-1?color=red,kernel://blue/nsm-2?color=red";
    let mut command = Command::new(binary("nsc")?);
    command
        .env("NSM_CONNECT_TO", format!("unix://{}", node.nsm_socket().display()))
        .env("NSM_NETWORK_SERVICES", services)
        .env("NSM_AWARENESS_GROUPS", format!("[{services}]"));
    let nsc = Program::start("nsc", &mut command, program.namespace(), &node.dir().join("nsc.log"))?;
    with_log(node, is_shared(program.namespace()))?;
    nsc.stop()?;
    Ok(())
}
