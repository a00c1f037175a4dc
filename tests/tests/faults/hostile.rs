//! Endpoints that refuse, hang, die and lie.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nsm_lab::{Endpoint, Node, eventually};
use nsm_netlink::{IfName, LinkConfig, Mac, Netlink, Netns, NetnsSocket, VethEnd, VethPair};
use serde_json::json;

use crate::{IFNAME, SERVICE};

/// For an ADD that no endpoint makes wait.
const PROMPT: Duration = Duration::from_secs(3);

fn hostile(node: &Node, how: &str) -> anyhow::Result<Endpoint> {
    Endpoint::of(SERVICE)
        .name("hostile")
        .cidr("172.16.6.0/24")
        .program("nsm-hostile")
        .set("NSM_MISBEHAVIOUR", how)
        .start(node)
}

/// Alone, it makes ADD fail clearly and leaves nothing; what the error says must contain `word`.
fn alone(how: &str, word: &str) -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = hostile(&node, how)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?;
    ensure!(added.exit != 0, "ADD succeeded: {}", added.json);
    ensure!(added.took < PROMPT, "ADD took {:?}", added.took);
    ensure!(added.json.to_string().contains(word), "the error does not say {word:?}: {}", added.json);
    node.nothing_left(&before)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)?;
    drop(endpoint);
    Ok(())
}

/// Beside an honest one, every client ends up at the honest one.
fn beside_an_honest_one(how: &str, bound: Duration) -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _honest = Endpoint::of(SERVICE).name("honest").cidr("172.16.7.0/24").start(&node)?;
    let _hostile = hostile(&node, how)?;
    // Round robin: one of two tries meets the hostile one first.
    for name in ["first", "second"] {
        let pod = node.pod(name)?;
        let began = Instant::now();
        let added = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
        ensure!(began.elapsed() < bound, "ADD took {:?}", began.elapsed());
        ensure!(added.addresses()?[0].to_string().starts_with("172.16.7."), "{}", added.json);
        pod.ping(added.peer(false)?)?;
        node.cni().del(&pod, IFNAME, &node.conf(SERVICE))?.ok()?;
    }
    Ok(())
}

pub(crate) fn refusal_tries_the_next() -> anyhow::Result<()> {
    alone("refuse", "not today")?;
    beside_an_honest_one("refuse", PROMPT)
}

pub(crate) fn nonsense_tries_the_next() -> anyhow::Result<()> {
    beside_an_honest_one("bad-prefix", PROMPT)?;
    beside_an_honest_one("many-routes", PROMPT)?;
    beside_an_honest_one("default-route", PROMPT)
}

/// A silent one has its share of the time, not all of it.
pub(crate) fn silence_tries_the_next() -> anyhow::Result<()> {
    beside_an_honest_one("hang", Duration::from_secs(8))
}

pub(crate) fn silence_ends_at_the_timeout() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = hostile(&node, "hang")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["timeoutSeconds"] = 2.into();
    let added = node.cni().add(&pod, IFNAME, &conf)?;
    ensure!(added.took < PROMPT, "ADD took {:?}", added.took);
    added.refused(11)?;
    node.nothing_left(&before)
}

pub(crate) fn death_in_the_middle_tries_the_next() -> anyhow::Result<()> {
    beside_an_honest_one("die", PROMPT)
}

pub(crate) fn bad_prefix() -> anyhow::Result<()> {
    alone("bad-prefix", "172.16.1.300/99")
}

pub(crate) fn bad_route() -> anyhow::Result<()> {
    alone("bad-route", "nonsense/8")
}

pub(crate) fn ten_thousand_routes() -> anyhow::Result<()> {
    alone("many-routes", "route")
}

pub(crate) fn gateway_of_another_family() -> anyhow::Result<()> {
    alone("strange-gateway", "fd00::1")
}

pub(crate) fn name_of_300_bytes() -> anyhow::Result<()> {
    alone("long-name", "name")
}

pub(crate) fn namespace_of_another() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let victim = node.pod("victim")?;
    let _endpoint = Endpoint::of(SERVICE)
        .name("hostile")
        .program("nsm-hostile")
        .set("NSM_MISBEHAVIOUR", "namespace-of-another")
        .set("NSM_NETNS", &victim.namespace().path().display().to_string())
        .start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let added = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?;
    ensure!(added.exit != 0 && added.json.to_string().contains("not its own"), "{}", added.json);
    ensure!(added.took < PROMPT, "ADD took {:?}", added.took);
    node.nothing_left(&before)
}

pub(crate) fn answer_for_another_connection() -> anyhow::Result<()> {
    for (how, word) in [("wrong-id", "connection id \\\"another"), ("wrong-id-everywhere", "changes segment 1")] {
        alone(how, word)?;
        beside_an_honest_one(how, PROMPT)?;
    }
    Ok(())
}

pub(crate) fn path_of_another() -> anyhow::Result<()> {
    for (how, word) in [("wrong-name-in-path", "segment"), ("no-path", "path"), ("other-index", "path")] {
        alone(how, word)?;
        beside_an_honest_one(how, PROMPT)?;
    }
    Ok(())
}

pub(crate) fn service_of_another() -> anyhow::Result<()> {
    for (how, word) in [("wrong-service", "another"), ("wrong-payload", "ETHERNET")] {
        alone(how, word)?;
        beside_an_honest_one(how, PROMPT)?;
    }
    Ok(())
}

/// An endpoint is who registered it, and a client's labels are the client's.
pub(crate) fn name_and_labels_of_another() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _hostile = hostile(&node, "wrong-endpoint-and-labels")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let mut conf = node.conf(SERVICE);
    conf["labels"] = json!({"app": "client"});
    node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let connection = node.connections()?.pop().and_then(|found| found.connection).unwrap_or_default();
    ensure!(connection.network_service_endpoint_name == "hostile", "{connection:?}");
    ensure!(connection.labels.get("app").is_some_and(|app| app == "client"), "{connection:?}");
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn default_route() -> anyhow::Result<()> {
    alone("default-route", "0.0.0.0/0")
}

pub(crate) fn default_route_in_other_words() -> anyhow::Result<()> {
    alone("default-in-halves", "default route")?;
    alone("default-by-policy", "all its packets")?;
    alone("policy-for-another-address", "default route")
}

pub(crate) fn overlapping_route() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _hostile = hostile(&node, "overlapping-route")?;
    let pod = node.pod("client")?;
    // What the pod has already: a main network, 10.9.0.0/16.
    let [inside, outside] = [Netns::open(pod.namespace().path())?, Netns::open(node.namespace().path())?];
    let end = |netns| -> anyhow::Result<VethEnd<'_>> {
        Ok(VethEnd { netns, name: IfName::new("main")?, mac: Mac::random() })
    };
    let pair = VethPair { ends: [end(&inside)?, end(&outside)?], mtu: None, group: None };
    let [main, uplink] = Netlink::open()?.create_veth(&pair)?;
    let with_address = LinkConfig { up: true, addresses: vec!["10.9.0.2/16".parse()?], ..LinkConfig::default() };
    NetnsSocket::open(&inside)?.configure(main.index, &with_address)?;
    NetnsSocket::open(&outside)?.configure(uplink.index, &LinkConfig { up: true, ..LinkConfig::default() })?;
    // The kernel gives each end an IPv6 address of its own, a second after it is up.
    for (netns, index) in [(&inside, main.index), (&outside, uplink.index)] {
        let look = || Ok(NetnsSocket::open(netns)?.addresses()?);
        eventually("a link-local address", Duration::from_secs(10), look, |all| {
            all.iter().any(|found| found.index == index && found.network.is_ipv6() && !found.tentative)
        })?;
    }
    let before = node.leftovers()?;

    let refused = node.cni().add(&pod, IFNAME, &node.conf(SERVICE))?;
    ensure!(refused.exit != 0 && refused.json.to_string().contains("10.9.0."), "{}", refused.json);
    node.nothing_left(&before)?;

    let mut conf = node.conf(SERVICE);
    conf["allowRouteOverlap"] = json!(true);
    let allowed = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    pod.ping(allowed.peer(false)?)?;
    Ok(())
}
