//! A network service of several endpoints, one behind the other: each is a client of the next.
//!
//! An endpoint with a way on is a pod that asks for the same service as everybody, says by a label who it is, and forwards. What
//! it tells its clients is where they get through it, and its own pod where its clients are: both with the SDK's `Routes`.

use std::fs;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;

use anyhow::{Context, ensure};
use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};
use nsm_kube::Cluster;
use nsm_lab::{Endpoint, Namespace};
use serde_json::{Value, json};

use super::{ANSWER, address, make_service, page, serve, web_server};
use crate::asking::{Asking, with_log};

/// From the last to the first, each with its addresses.
const CHAIN: [(&str, &str); 5] = [
    ("gateway", "172.20.5.0/24"),
    ("passthrough-3", "172.20.4.0/24"),
    ("passthrough-2", "172.20.3.0/24"),
    ("passthrough-1", "172.20.2.0/24"),
    ("firewall", "172.20.1.0/24"),
];

/// Who forwards between the client and the gateway.
const FORWARDERS: u32 = 4;

/// Each goes to the next, and who is nothing to the first.
fn matches() -> Value {
    let route = |to: &str| json!([{ "destination_selector": { "app": to } }]);
    let mut matches: Vec<Value> = CHAIN
        .windows(2)
        .map(|pair| json!({ "source_selector": { "app": pair[1].0 }, "routes": route(pair[0].0) }))
        .collect();
    matches.push(json!({ "routes": route("firewall") }));
    Value::Array(matches)
}

/// IP packets that a namespace has passed on.
fn forwarded(namespace: &Namespace) -> anyhow::Result<u64> {
    let counters = namespace.run(|| fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut rows = counters.lines().filter_map(|line| line.strip_prefix("Ip: ")).map(str::split_whitespace);
    let (names, values) = (rows.next().context("names")?, rows.next().context("values")?);
    let found = names.zip(values).find(|(name, _)| *name == "ForwDatagrams");
    Ok(found.with_context(|| counters.clone())?.1.parse()?)
}

/// Answers datagrams, until the test ends.
fn echo(namespace: &Namespace, at: SocketAddr) -> anyhow::Result<()> {
    let socket = namespace.run(|| UdpSocket::bind(at))?.context("echo server")?;
    thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..length], from).ok();
        }
    });
    Ok(())
}

/// Whether a datagram that may pass so many forwarders less one is answered; if not, somebody on the way says so.
fn reaches(namespace: &Namespace, to: SocketAddr, ttl: u32) -> anyhow::Result<bool> {
    let socket = namespace.run(|| UdpSocket::bind("0.0.0.0:0"))??;
    socket.set_read_timeout(Some(ANSWER))?;
    socket.set_ttl(ttl)?;
    // Else the kernel keeps it for itself.
    setsockopt(&socket, Ipv4RecvErr, &true)?;
    socket.connect(to)?;
    socket.send(b"hello")?;
    match socket.recv(&mut [0; 64]) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::HostUnreachable => Ok(false),
        Err(error) => Err(error).with_context(|| format!("datagram with TTL {ttl}")),
    }
}

pub(crate) fn of_five_endpoints() -> anyhow::Result<()> {
    let cluster = Cluster::start()?;
    cluster.make_namespace("mesh")?;
    make_service(&cluster, "mesh", "intranet", &json!({ "payload": "IP", "matches": matches() }))?;
    let a = cluster.started("node-a")?;
    let node = &a.node;
    let mut endpoints = Vec::new();
    for (name, cidr) in CHAIN {
        let is_first = name == "firewall";
        let is_last = name == "gateway";
        let mut plan =
            Endpoint::of("intranet").program("nsm-routing").cidr(cidr).set("NSM_LABELS", &format!("app:{name}"));
        if !is_last {
            plan = plan.set("NSM_CLIENT_ROUTES", CHAIN[0].1);
        }
        if !is_first {
            plan = plan.set("NSM_ENDPOINT_ROUTES", CHAIN[CHAIN.len() - 1].1);
        }
        let asks = format!("kernel://intranet/uplink?app={name}");
        let endpoint = serve(&cluster, node, name, (!is_last).then_some(asks.as_str()), &plan)?;
        endpoint
            .pod()
            .namespace()
            .run(|| fs::write("/proc/sys/net/ipv4/ip_forward", if is_last { "0" } else { "1" }))??;
        endpoints.push(endpoint);
    }
    let client = Asking::create(&cluster, node, "default", "client", Some("kernel://intranet/nsm-1"))?;
    with_log(node, client.add()?.ok())?;

    // Each was given the next.
    let mut hops: Vec<(String, String)> = Vec::new();
    for info in node.connections()? {
        hops.push((info.pod_name, info.connection.unwrap_or_default().network_service_endpoint_name));
    }
    hops.sort();
    let mut expected: Vec<(String, String)> =
        CHAIN.windows(2).map(|pair| (pair[1].0.to_owned(), pair[0].0.to_owned())).collect();
    expected.push(("client".to_owned(), "firewall".to_owned()));
    expected.sort();
    ensure!(hops == expected, "{hops:?}");

    // Packets pass all of them, there and back.
    let gateway = address("172.20.5.0")?;
    let before = endpoints.iter().map(|one| forwarded(one.pod().namespace())).collect::<anyhow::Result<Vec<_>>>()?;
    client.sandbox.ping(gateway)?;
    endpoints[0].pod().ping(address("172.20.1.1")?)?;
    let after = endpoints.iter().map(|one| forwarded(one.pod().namespace())).collect::<anyhow::Result<Vec<_>>>()?;
    let passed: Vec<u64> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
    ensure!(passed[0] == 0 && passed[1..].iter().all(|count| *count >= 4), "{passed:?} from the gateway on");
    let inside = endpoints[0].pod().namespace();
    let server = SocketAddr::new(gateway, 7);
    echo(inside, server)?;
    ensure!(!reaches(client.sandbox.namespace(), server, FORWARDERS)?, "less than five");
    ensure!(reaches(client.sandbox.namespace(), server, FORWARDERS + 1)?, "more than five");
    web_server(inside, "0.0.0.0:8080", "gateway")?;
    ensure!(page(client.sandbox.namespace(), SocketAddr::new(gateway, 8080))? == "gateway");
    client.del()?.ok()?;
    Ok(())
}
