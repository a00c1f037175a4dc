//! What an endpoint gives besides addresses, what a pod keeps from being given, and what an endpoint says later.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use nsm_lab::{Endpoint, Node, Pod, Program, binary, eventually};
use nsm_netlink::{
    Family, IfName, IpNetwork, LinkConfig, Mac, Netlink, Netns, NetnsSocket, PortRange, Route, Rule, VethEnd, VethPair,
};
use serde_json::json;

use crate::{IFNAME, SERVICE};

const SOON: Duration = Duration::from_secs(5);
/// For what waits for a token's end.
const EXPIRES: Duration = Duration::from_secs(15);

fn generous(node: &Node) -> anyhow::Result<Endpoint> {
    Endpoint::of(SERVICE).program("nsm-generous").start(node)
}

/// A configuration of a pod that lets the endpoint have its web traffic.
fn trusting(node: &Node) -> serde_json::Value {
    let mut conf = node.conf(SERVICE);
    conf["allowDefaultRoute"] = json!(true);
    conf
}

/// The rules of the pod that look into a table of the agent's.
fn rules(pod: &Pod) -> anyhow::Result<Vec<Rule>> {
    let rules = NetnsSocket::open(&Netns::open(pod.namespace().path())?)?.rules()?;
    Ok(rules.into_iter().filter(|rule| rule.table >> 24 == 0x4e).collect())
}

/// The one rule that the endpoint's policy stands for.
fn has_the_policy(rules: &[Rule]) -> bool {
    let web = PortRange::new(80, 80).ok();
    matches!(rules, [rule] if rule.family == Family::V4 && rule.protocol == Some(6) && rule.destination_ports == web)
}

pub(crate) fn policies_of_a_pod_end_with_del() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = generous(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = trusting(&node);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let found = rules(&pod)?;
    ensure!(has_the_policy(&found), "{found:?}");
    let routes = NetnsSocket::open(&Netns::open(pod.namespace().path())?)?.routes()?;
    let by_policy = routes.iter().filter(|entry| entry.route.table == Some(found[0].table)).count();
    ensure!(by_policy == 1, "{routes:?}");
    pod.ping(added.peer(false)?)?;

    // The result says in which table the default route is, and that the pod has no gateway.
    let shown = added.json["routes"].as_array().cloned().unwrap_or_default();
    let defaults: Vec<_> = shown.iter().filter(|route| route["dst"] == "0.0.0.0/0").collect();
    ensure!(matches!(defaults.as_slice(), [route] if route["table"] == found[0].table), "{}", added.json);
    ensure!(added.json["ips"][0].get("gateway").is_none(), "{}", added.json);
    node.cni().check(&pod, IFNAME, &conf, &added.json)?.ok()?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)?;

    // A version that cannot say tables says nothing of it.
    let mut older = conf.clone();
    older["cniVersion"] = "1.0.0".into();
    let added = node.cni().add(&pod, IFNAME, &older)?.ok()?;
    ensure!(!added.json["routes"].to_string().contains("0.0.0.0/0"), "{}", added.json);
    pod.ping(added.peer(false)?)?;
    node.cni().check(&pod, IFNAME, &older, &added.json)?.ok()?;
    node.cni().del(&pod, IFNAME, &older)?.ok()?;
    node.nothing_left(&before)
}

/// A client that is no plugin.
fn nsc(node: &Node, pod: &Pod, lifetime: &str) -> anyhow::Result<Program> {
    Program::start("nsc", &mut client(node, lifetime)?, pod.namespace(), &node.dir().join("nsc.log"))
}

fn client(node: &Node, lifetime: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(binary("nsc")?);
    command
        .env("NSM_CONNECT_TO", format!("unix://{}", node.nsm_socket().display()))
        .env("NSM_NETWORK_SERVICES", format!("kernel://{SERVICE}/{IFNAME}"))
        .env("NSM_REQUEST_TIMEOUT", "2s")
        .env("NSM_MAX_TOKEN_LIFETIME", lifetime);
    Ok(command)
}

/// As in `nsc | head`.
pub(crate) fn a_client_goes_on_when_nobody_reads_its_output() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = generous(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let log = node.dir().join("nsc.log");
    let mut command = client(&node, "10m")?;
    let mut client = Program::start_by("nsc", &mut command, &log, |command| {
        command.stdout(writer);
        pod.namespace().run(|| command.spawn())
    })?;
    // The last that it says, after what it could not print.
    eventually("a client that is ready", SOON, || Ok(client.log()), |log| log.contains("ready"))?;
    client.still_runs()?;
    eventually("the policy", SOON, || rules(&pod), |found| has_the_policy(found))?;
    client.stop()?;
    node.nothing_left(&before)
}

pub(crate) fn policies_of_a_client_end_with_its_connection() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = generous(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;

    let client = nsc(&node, &pod, "10m")?;
    eventually("the policy", SOON, || rules(&pod), |found| has_the_policy(found))?;
    client.stop()?;
    node.nothing_left(&before).context("after its Close")?;

    let client = nsc(&node, &pod, "5s")?;
    eventually("the policy", SOON, || rules(&pod), |found| has_the_policy(found))?;
    client.kill()?;
    eventually("no rule after the client's token has expired", EXPIRES, || rules(&pod), Vec::is_empty)?;
    node.nothing_left(&before).context("after its expiry")
}

pub(crate) fn name_servers_are_in_the_result() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = generous(&node)?;
    let pod = node.pod("client")?;
    for version in ["0.3.1", "1.1.0"] {
        let mut conf = trusting(&node);
        conf["cniVersion"] = version.into();
        let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
        let dns = json!({"nameservers": ["10.200.0.53"], "search": ["corp.example"]});
        ensure!(added.json["dns"] == dns, "{}", added.json);
        node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    }
    Ok(())
}

/// Gives the pod a main network as an earlier plugin would.
fn main_network(node: &Node, pod: &Pod, address: &str, routes: Vec<Route>) -> anyhow::Result<()> {
    let [inside, outside] = [Netns::open(pod.namespace().path())?, Netns::open(node.namespace().path())?];
    let end = |netns, name| -> anyhow::Result<VethEnd<'_>> {
        Ok(VethEnd { netns, name: IfName::new(name)?, mac: Mac::random() })
    };
    let pair = VethPair { ends: [end(&inside, "eth0")?, end(&outside, pod.container())?], mtu: None, group: None };
    let [main, uplink] = Netlink::open()?.create_veth(&pair)?;
    NetnsSocket::open(&outside)?.configure(uplink.index, &LinkConfig { up: true, ..LinkConfig::default() })?;
    let config = LinkConfig { up: true, addresses: vec![address.parse()?], routes, ..LinkConfig::default() };
    NetnsSocket::open(&inside)?.configure(main.index, &config)?;
    Ok(())
}

pub(crate) fn what_the_pod_reaches_is_not_given_again() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut endpoint = Endpoint::of(SERVICE).program("nsm-generous").cidr("172.16.1.0/24").start(&node)?;
    let pod = node.pod("client")?;
    main_network(&node, &pod, "172.16.1.2/25", Vec::new())?;
    let conf = trusting(&node);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let above = |address: &IpAddr| matches!(address, IpAddr::V4(v4) if v4.octets()[3] >= 128);
    ensure!(added.addresses()?.iter().all(above), "{}", added.json);
    ensure!(endpoint.program().log().contains("excluded 172.16.1.0/25"), "{}", endpoint.program().log());
    pod.ping(added.peer(false)?)?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    Ok(())
}

pub(crate) fn a_pod_with_thousands_of_routes_is_served() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    // No two of them are halves of a whole.
    let route = |at: u16| -> anyhow::Result<Route> {
        let [high, low] = (2 * at).to_be_bytes();
        Ok(Route::on_link(IpNetwork::from(IpAddr::from([10, 9, high, low]))))
    };
    main_network(&node, &pod, "10.10.0.2/24", (0..1500).map(route).collect::<anyhow::Result<_>>()?)?;
    let conf = trusting(&node);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    pod.ping(added.peer(false)?)?;
    ensure!(node.agent_log().contains("more prefixes than a Request names"), "it is told");
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    Ok(())
}

/// How often the endpoint served a Request.
fn served(endpoint: &mut Endpoint) -> usize {
    endpoint.program().log().lines().filter(|line| line.starts_with("served ")).count()
}

/// An endpoint's word leads to a Request, and the connection works after it as before.
fn is_asked_again(signal: Signal) -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let mut endpoint = generous(&node)?;
    let [first, second] = [node.pod("first")?, node.pod("second")?];
    let before = node.leftovers()?;
    let conf = trusting(&node);
    let added = node.cni().add(&first, IFNAME, &conf)?.ok()?;
    let client = nsc(&node, &second, "10m")?;
    eventually("two connections", SOON, || Ok(served(&mut endpoint)), |count| *count == 2)?;
    eventually("the client's wire", SOON, || Ok(client.log().contains(IFNAME)), |shown| *shown)?;

    endpoint.program().signal(signal)?;
    eventually("a Request for each", SOON, || Ok(served(&mut endpoint)), |count| *count >= 4)?;
    let up = |all: &Vec<nsm_proto::admin::ConnectionInfo>| all.len() == 2 && all.iter().all(|info| info.phase == "up");
    eventually("both up", SOON, || node.connections(), up)?;
    eventually("pings", SOON, || first.ping(added.peer(false)?), |_| true)?;
    client.stop()?;
    node.cni().del(&first, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn an_endpoint_asks_for_a_refresh() -> anyhow::Result<()> {
    is_asked_again(Signal::SIGUSR1)
}

pub(crate) fn an_endpoint_says_down() -> anyhow::Result<()> {
    is_asked_again(Signal::SIGUSR2)
}
