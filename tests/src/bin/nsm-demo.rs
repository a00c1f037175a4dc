//! The first example, live: one network service, two endpoints, four pods that the CNI plugin connects to it.
//!
//! All in network namespaces of its own; what the pods' runtime would do, this program does.
#![forbid(unsafe_code)]

use std::net::IpAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nsm_lab::sandbox::{self, Sandbox};
use nsm_lab::{Endpoint, Leftovers, Node, Outcome, Pod, binary};
use nsm_proto::admin::ConnectionInfo;

const USAGE: &str = "\
nsm-demo [--keep]

One network service, two endpoints and four pods, in network namespaces of its own; --keep leaves them standing until it is
ended. The programs that it starts are those beside it: `cargo xtask demo` builds them.";

const SERVICE: &str = "icmp-responder";
const IFNAME: &str = "nsm-1";
const ENDPOINTS: [(&str, &str); 2] = [("responder-a", "172.16.1.0/24"), ("responder-b", "172.16.2.0/24")];
const CLIENTS: [&str; 4] = ["client-1", "client-2", "client-3", "client-4"];

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> anyhow::Result<()> {
    let keep = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some("--help" | "-h") => {
            println!("{USAGE}");
            return Ok(());
        }
        Some(other) => bail!("unknown argument {other}: expected --keep or nothing"),
    };
    let sandbox = sandbox::enter()?;

    let node = step("an agent", || Node::start("node-1"))?;
    let mut endpoints = Vec::new();
    for (name, cidr) in ENDPOINTS {
        let plan = Endpoint::of(SERVICE).name(name).cidr(cidr);
        endpoints.push(step(&format!("endpoint {name} of {SERVICE}, addresses {cidr}"), || plan.start(&node))?);
    }
    let pods = CLIENTS.iter().map(|name| node.pod(name)).collect::<anyhow::Result<Vec<Pod>>>()?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);

    let results = pods
        .iter()
        .zip(CLIENTS)
        .map(|(pod, name)| step(&format!("nsm-cni ADD for {name}"), || node.cni().add(pod, IFNAME, &conf)?.ok()))
        .collect::<anyhow::Result<Vec<Outcome>>>()?;
    table(&node, &pods, &results)?;

    if keep {
        return stay(&sandbox, &node);
    }
    for (pod, name) in pods.iter().zip(CLIENTS) {
        step(&format!("nsm-cni DEL for {name}"), || node.cni().del(pod, IFNAME, &conf)?.ok())?;
    }
    nothing_left(&node, &before)?;
    for endpoint in endpoints {
        endpoint.stop()?;
    }
    Ok(())
}

/// Does one thing and says so, with its time.
fn step<T>(what: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let began = Instant::now();
    let done = work().with_context(|| what.to_owned())?;
    println!("{:>8.1} ms  {what}", milliseconds(began.elapsed()));
    Ok(done)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Pings every endpoint from its client and shows who got what from whom.
fn table(node: &Node, pods: &[Pod], results: &[Outcome]) -> anyhow::Result<()> {
    let connections = node.connections()?;
    println!("\n{:<10} {:<7} {:<18} {:<14} {:<14} round trip", "pod", "link", "address", "endpoint", "its address");
    for ((pod, result), name) in pods.iter().zip(results).zip(CLIENTS) {
        let address = result.addresses()?.first().copied().context("no address")?;
        let peer: IpAddr = result.peer(address.is_ipv6())?;
        // The first echo also fills caches on the way; the second is the ordinary one.
        pod.ping(peer)?;
        let round_trip = pod.ping(peer)?;
        let endpoint = endpoint_of(&connections, pod).unwrap_or("?");
        println!("{name:<10} {IFNAME:<7} {address:<18} {endpoint:<14} {peer:<14} {:.3} ms", milliseconds(round_trip));
    }
    println!();
    Ok(())
}

/// The endpoint that serves a pod, from the agent's list of connections.
fn endpoint_of<'a>(connections: &'a [ConnectionInfo], pod: &Pod) -> Option<&'a str> {
    let of_pod = connections.iter().find(|connection| connection.container_id == pod.container())?;
    Some(&of_pod.connection.as_ref()?.network_service_endpoint_name)
}

fn nothing_left(node: &Node, before: &Leftovers) -> anyhow::Result<()> {
    step("nothing is left: links, addresses, routes, rules, descriptors, records, connections", || {
        node.nothing_left(before)
    })
}

/// Says how to look around, and stays until ended from outside.
fn stay(sandbox: &Sandbox, node: &Node) -> anyhow::Result<()> {
    let socket = node.cni_socket();
    println!("It stays. To look around:");
    println!("  {}", sandbox.shell());
    println!("and in that shell:");
    println!("  export NSM_CNI_SOCKET={}", socket.display());
    println!("  {} get connections", binary("nsmctl")?.display());
    println!("  nsenter --net=/run/netns/{}-{} bash", node.name(), CLIENTS[0]);
    println!("  less {}", node.dir().join("agent.log").display());
    println!("To end it: ^C here, or kill {}", sandbox.outer_pid());
    loop {
        thread::park();
    }
}
