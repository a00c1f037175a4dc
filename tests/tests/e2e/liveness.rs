//! A wire that is dead while both ends live: only who pings over it can tell.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, Program, binary, eventually};

use crate::{IFNAME, SERVICE};

const READY: Duration = Duration::from_secs(10);
/// For a look that fails (half a second here), the move and the first packet.
const HEALED: Duration = Duration::from_secs(5);

/// `kill` is what happens to the interface of that name at the endpoint.
fn heals(kill: fn(&Endpoint, &str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut one = Endpoint::of(SERVICE).name("one").cidr("172.16.1.0/24,fd01::/64").start(&node)?;
    let pod = node.pod("client")?;
    let mut command = Command::new(binary("nsc")?);
    command
        .env("NSM_CONNECT_TO", format!("unix://{}", node.nsm_socket().display()))
        .env("NSM_NETWORK_SERVICES", format!("kernel://{SERVICE}/{IFNAME}"))
        .env("NSM_LIVENESSCHECKINTERVAL", "100ms")
        .env("NSM_LIVENESSCHECKTIMEOUT", "500ms")
        .env("NSM_LOG_LEVEL", "debug");
    let mut client = Program::start("nsc", &mut command, pod.namespace(), &node.dir().join("nsc.log"))?;
    eventually("connection", READY, || Ok(client.log()), |log| log.contains(" at one "))?;
    for peer in ["172.16.1.0", "fd01::"] {
        pod.ping(peer.parse()?)?;
    }
    let mut two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24,fd02::/64").start(&node)?;
    let connection = node.connections()?.pop().context("no connection")?;

    let began = Instant::now();
    kill(&one, &connection.endpoint_ifname)?;
    for peer in ["172.16.2.0", "fd02::"] {
        eventually(peer, HEALED, || pod.ping(peer.parse()?), |_| true)?;
    }
    eprintln!("healed after {:?}", began.elapsed());
    for program in [one.program(), two.program(), &mut client] {
        program.still_runs()?;
    }
    let served = node.connections()?;
    let names: Vec<_> = served.into_iter().filter_map(|served| served.connection).collect();
    ensure!(names.len() == 1 && names[0].network_service_endpoint_name == "two", "{names:?}");
    client.stop()?;
    eventually("close", READY, || node.connections(), Vec::is_empty)?;
    Ok(())
}

pub(crate) fn an_interface_that_is_down() -> anyhow::Result<()> {
    heals(|endpoint, link| endpoint.pod().namespace().take_down(link))
}

/// Links are up, and one family's packets get through.
pub(crate) fn packets_of_one_family_that_are_dropped() -> anyhow::Result<()> {
    heals(|endpoint, link| {
        let setting = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
        endpoint.pod().namespace().run(|| fs::write(&setting, "1"))?.with_context(|| setting.clone())
    })
}
