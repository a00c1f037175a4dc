//! What upstream shows by examples on one node, as its user sees it.
//!
//! | scenario | where |
//! |---|---|
//! | kernel to kernel, payload IP | `running::edits_attach_and_detach`, end to end `connecting::add_ping_del` |
//! | kernel to kernel, payload ETHERNET | [`payload_ethernet`] |
//! | several services on a pod | `running::edits_attach_and_detach`, end to end `pods::two_services_in_one_annotation` |
//! | annotated namespace | `running::a_namespaces_annotation_counts_as_it_was` |
//! | a client without sidecar reaches a web server | [`a_web_server_is_reached_by_both_families`] |
//! | composition of five endpoints | [`composition::of_five_endpoints`] |
//! | endpoint changed under a client | [`moving::the_service_chooses_another_endpoint`] |
//! | policy routes | [`policies::choose_traffic_by_protocol_and_ports`] |
//! | mutually aware endpoints | [`policies::mutually_aware_endpoints_give_the_same_addresses`] |
//! | excluded prefixes: the cluster's | `excluded::are_those_of_pods_and_services` |
//! | excluded prefixes: the client's | [`policies::endpoints_of_the_same_prefixes_share_the_traffic`], end to end `contexts::what_the_pod_reaches_is_not_given_again` |
//! | IPv6, dual stack | [`a_web_server_is_reached_by_both_families`], end to end `addressing` |
//! | endpoint death | `running::what_cannot_be_had_is_told_and_tried_again`, end to end `endpoints` |
//! | agent death | `nodes::a_killed_agent_knows_its_endpoints_again`, end to end `restart` |
//! | API server restart | `away` |

pub(crate) mod composition;
pub(crate) mod moving;
pub(crate) mod policies;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{self, AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, EndpointPlan, Namespace, Node, eventually};
use serde_json::{Value, json};

use crate::SOON;
use crate::asking::{Asking, with_log};

/// For an answer through the lab.
const ANSWER: Duration = Duration::from_secs(5);

/// An object of a network service.
fn make_service(cluster: &Cluster, namespace: &str, name: &str, spec: &Value) -> anyhow::Result<()> {
    let object = json!({
        "apiVersion": "networkservicemesh.io/v1", "kind": "NetworkService",
        "metadata": { "name": name, "namespace": namespace }, "spec": spec,
    });
    cluster.create(&object)?.map(drop).map_err(anyhow::Error::msg)
}

/// An endpoint in a pod that the cluster knows, and that asks for what it needs itself.
fn serve(
    cluster: &Cluster,
    node: &Node,
    name: &str,
    asks: Option<&str>,
    plan: &EndpointPlan,
) -> anyhow::Result<Endpoint> {
    let pod = Asking::create(cluster, node, "mesh", name, asks)?;
    with_log(node, pod.add()?.ok()).with_context(|| format!("pod {name}"))?;
    plan.clone().name(name).start_in(node, pod.sandbox)
}

/// Of the first pair of a pool, its first address is the endpoint's and the second the client's.
fn address(text: &str) -> anyhow::Result<IpAddr> {
    Ok(text.parse()?)
}

/// A web server of one page, until the test ends.
fn web_server(namespace: &Namespace, at: &str, page: &'static str) -> anyhow::Result<()> {
    let at: SocketAddr = at.parse()?;
    let listener = namespace.run(|| TcpListener::bind(at))?.context("web server")?;
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 1024];
            // Who hangs up before it has asked, or heard, is no failure of the server.
            if stream.read(&mut asked).is_ok_and(|length| asked[..length].starts_with(b"GET / ")) {
                let length = page.len();
                write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n{page}").ok();
            }
        }
    });
    Ok(())
}

/// What a web server answers to a client in `namespace`.
fn page(namespace: &Namespace, at: SocketAddr) -> anyhow::Result<String> {
    let mut stream = namespace.run(|| TcpStream::connect_timeout(&at, ANSWER))?.with_context(|| at.to_string())?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET / HTTP/1.0\r\nHost: web\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| answer.clone())?;
    ensure!(head.starts_with("HTTP/1.0 200 "), "{head}");
    Ok(body.to_owned())
}

pub(crate) fn a_web_server_is_reached_by_both_families() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    // The web server knows nothing of all this: it listens, the endpoint beside it in the pod gives it clients.
    let plan = Endpoint::of("web").cidr("172.16.1.0/24,fd00:16::/64");
    let endpoint = serve(&cluster, node, "nginx", None, &plan)?;
    web_server(endpoint.pod().namespace(), "[::]:80", "welcome")?;
    let client = Asking::create(&cluster, node, "default", "client", Some("kernel://web/nsm-1"))?;
    with_log(node, client.add()?.ok())?;
    for peer in ["172.16.1.0", "fd00:16::"] {
        client.sandbox.ping(address(peer)?)?;
        let shown = page(client.sandbox.namespace(), SocketAddr::new(address(peer)?, 80))?;
        ensure!(shown == "welcome", "{shown}");
    }
    for address in ["172.16.1.1", "fd00:16::1"] {
        endpoint.pod().ping(self::address(address)?)?;
    }
    let told = || Ok(client.told("networkservicemesh.io/status")?[0]["ips"].clone());
    let both = |ips: &Value| ips.as_array().is_some_and(|ips| ips.len() == 2);
    eventually("the addresses in the status", SOON, told, both)?;
    let object = cluster.endpoints()?.remove(0);
    ensure!(object["metadata"]["namespace"] == "mesh", "{object}");
    ensure!(object["metadata"]["ownerReferences"][0]["name"] == "nginx", "{object}");
    client.del()?.ok()?;
    ensure!(!client.has("nsm-1")?);
    Ok(())
}

/// Of a protocol that nobody has (IEEE 802 local experimental).
const PRIVATE: [u8; 2] = [0x88, 0xb5];

/// A socket for whole frames of an interface.
fn frames(namespace: &Namespace, interface: &str) -> anyhow::Result<std::os::fd::OwnedFd> {
    namespace.run(|| {
        let mut all = getifaddrs()?;
        let link = all.find_map(|one| {
            let link = one.address.and_then(|address| address.as_link_addr().copied());
            link.filter(|_| one.interface_name == interface)
        });
        let link = link.with_context(|| format!("no interface {interface}"))?;
        let (family, protocol) = (AddressFamily::Packet, SockProtocol::EthAll);
        let socket = socket::socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        socket::bind(socket.as_raw_fd(), &link)?;
        let bound = nix::sys::time::TimeVal::new(5, 0);
        socket::setsockopt(&socket, socket::sockopt::ReceiveTimeout, &bound)?;
        Ok(socket)
    })?
}

pub(crate) fn payload_ethernet() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    make_service(&cluster, "mesh", "lan", &json!({ "payload": "ETHERNET" }))?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let plan = Endpoint::of("lan").set("NSM_PAYLOAD", "ETHERNET");
    let endpoint = serve(&cluster, node, "switch", None, &plan)?;
    let client = Asking::create(&cluster, node, "default", "client", Some("kernel://lan/lan0"))?;
    with_log(node, client.add()?.ok())?;
    client.sandbox.ping(address("172.16.1.0")?)?;
    let connection = node.connections()?.remove(0).connection.unwrap_or_default();
    ensure!(connection.payload == "ETHERNET", "{connection:?}");
    // A frame of no IP crosses, to whom it is for.
    let links = endpoint.pod().namespace().run(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let names = links.lines().filter_map(|line| Some(line.split_once(':')?.0.trim()));
    let far = names.filter(|name| *name != "lo").collect::<Vec<_>>();
    let [far] = far[..] else { anyhow::bail!("{links}") };
    let receiving = frames(endpoint.pod().namespace(), far)?;
    let sending = frames(client.sandbox.namespace(), "lan0")?;
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 1]);
    frame.extend(PRIVATE);
    frame.extend([7; 50]);
    socket::send(sending.as_raw_fd(), &frame, MsgFlags::empty())?;
    let mut seen = [0; 2048];
    loop {
        let length = socket::recv(receiving.as_raw_fd(), &mut seen, MsgFlags::empty()).context("no frame came")?;
        if seen[..length].get(12..14) == Some(&PRIVATE) {
            ensure!(seen[..length] == frame, "{:?}", &seen[..length]);
            return Ok(());
        }
    }
}
