//! The lab's own tests.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use nsm_lab::{Namespace, Pinger, eventually, ping, runner, tcp_exchange, tests, udp_exchange};
use nsm_netlink::{IfName, LinkConfig, Mac, Netlink, Netns, NetnsSocket, VethEnd, VethPair};

fn main() -> ExitCode {
    let tests = tests![
        namespaces_come_and_go,
        namespaces_have_a_loopback,
        wires_carry_both_families,
        pings_are_lost_on_a_broken_wire,
        waiting_shows_the_last_value_seen,
    ];
    runner::main(tests, Duration::from_secs(30))
}

fn namespaces_come_and_go() -> anyhow::Result<()> {
    let namespace = Namespace::create("a")?;
    let path = namespace.path().to_owned();
    assert!(Namespace::create("a").is_err());
    assert!(path.exists());
    drop(namespace);
    assert!(!path.exists());
    Ok(())
}

fn namespaces_have_a_loopback() -> anyhow::Result<()> {
    let namespace = Namespace::create("a")?;
    for address in ["127.0.0.1", "::1"] {
        let address: IpAddr = address.parse()?;
        namespace.run(|| ping(address, Duration::from_secs(1)))?.with_context(|| format!("{address}"))?;
    }
    Ok(())
}

const A: [&str; 2] = ["10.1.0.1/24", "fd00::1/64"];
const B: [&str; 2] = ["10.1.0.2/24", "fd00::2/64"];

fn joined() -> anyhow::Result<[Namespace; 2]> {
    let [a, b] = [Namespace::create("a")?, Namespace::create("b")?];
    let [netns_a, netns_b] = [Netns::open(a.path())?, Netns::open(b.path())?];
    let end = |netns| -> anyhow::Result<VethEnd<'_>> {
        Ok(VethEnd { netns, name: IfName::new("wire")?, mac: Mac::random() })
    };
    let pair = VethPair { ends: [end(&netns_a)?, end(&netns_b)?], mtu: None, group: None };
    let links = Netlink::open()?.create_veth(&pair)?;
    for ((netns, link), addresses) in [&netns_a, &netns_b].into_iter().zip(&links).zip([A, B]) {
        let addresses = addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
        let config = LinkConfig { up: true, addresses, ..LinkConfig::default() };
        NetnsSocket::open(netns)?.configure(link.index, &config)?;
    }
    Ok([a, b])
}

fn wires_carry_both_families() -> anyhow::Result<()> {
    let [a, b] = joined()?;
    for address in ["10.1.0.2", "fd00::2"] {
        let address: IpAddr = address.parse()?;
        a.run(|| ping(address, Duration::from_secs(1)))?.with_context(|| format!("{address}"))?;
        udp_exchange(&a, &b, address, 1400)?;
        tcp_exchange(&a, &b, address)?;
    }
    Ok(())
}

fn pings_are_lost_on_a_broken_wire() -> anyhow::Result<()> {
    let [a, b] = joined()?;
    let whole = Pinger::start(&a, "10.1.0.2".parse()?, Duration::from_millis(20))?;
    eventually("pings", Duration::from_secs(2), || Ok(whole.sent()), |sent| *sent >= 5)?;
    assert_eq!(whole.stop().lost, 0);

    let broken = Pinger::start(&a, "10.1.0.9".parse()?, Duration::from_millis(20))?;
    eventually("pings", Duration::from_secs(2), || Ok(broken.sent()), |sent| *sent >= 3)?;
    assert!(broken.stop().lost > 0);
    drop(b);
    Ok(())
}

fn waiting_shows_the_last_value_seen() -> anyhow::Result<()> {
    let mut count = 0;
    let look = || {
        count += 1;
        Ok(count)
    };
    let error = eventually("never", Duration::from_millis(20), look, |_| false).err().context("it came true")?;
    assert!(error.to_string().contains("last seen: "), "{error}");
    Ok(())
}
