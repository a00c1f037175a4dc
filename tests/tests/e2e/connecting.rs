//! ADD: who gets connected to whom.

use std::thread;

use anyhow::{Context, ensure};
use nsm_lab::{Endpoint, Node, Outcome, Pod, tcp_exchange, udp_exchange};
use serde_json::json;

use crate::{IFNAME, SERVICE};

pub(crate) fn add_ping_del() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);

    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let peer = added.peer(false)?;
    pod.ping(peer)?;
    udp_exchange(pod.namespace(), endpoint.pod().namespace(), peer, 1400)?;
    tcp_exchange(pod.namespace(), endpoint.pod().namespace(), peer)?;
    endpoint.pod().ping(added.addresses()?[0])?;

    ensure!(added.json["cniVersion"] == "1.1.0", "{}", added.json);
    let interface = &added.json["interfaces"][0];
    ensure!(interface["name"] == IFNAME, "{interface}");
    ensure!(interface["sandbox"] == pod.namespace().path().display().to_string(), "{interface}");

    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.cni().del(&pod, IFNAME, &conf)?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn two_endpoints_share_four_clients() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let one = Endpoint::of(SERVICE).name("one").cidr("172.16.1.0/24").start(&node)?;
    let two = Endpoint::of(SERVICE).name("two").cidr("172.16.2.0/24").start(&node)?;
    let pods = (1..=4).map(|n| node.pod(&format!("client-{n}"))).collect::<anyhow::Result<Vec<Pod>>>()?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);

    let mut addresses = Vec::new();
    for pod in &pods {
        let added = node.cni().add(pod, IFNAME, &conf)?.ok()?;
        pod.ping(added.peer(false)?)?;
        addresses.extend(added.addresses()?.iter().map(ToString::to_string));
    }
    for prefix in ["172.16.1.", "172.16.2."] {
        let clients = addresses.iter().filter(|address| address.starts_with(prefix)).count();
        ensure!(clients == 2, "{clients} clients at {prefix}0/24: {addresses:?}");
    }
    ensure!(node.connections()?.len() == 4);

    for pod in &pods {
        node.cni().del(pod, IFNAME, &conf)?.ok()?;
    }
    node.nothing_left(&before)?;
    one.stop()?;
    two.stop()?;
    Ok(())
}

pub(crate) fn labels_choose_the_endpoint() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let manifest = node.dir().join("service.yaml");
    std::fs::write(
        &manifest,
        "apiVersion: networkservicemesh.io/v1\nkind: NetworkService\nmetadata: {name: icmp}\nspec:\n  payload: IP\n  \
         matches:\n  - source_selector: {app: firewall}\n    routes: [{destination_selector: {app: gateway}}]\n  \
         - source_selector: {}\n    routes: [{destination_selector: {app: firewall}}]\n",
    )?;
    node.nsmctl(&["apply", "-f", &manifest.display().to_string()])?;
    let _firewall =
        Endpoint::of(SERVICE).name("fw").cidr("172.16.1.0/24").set("NSM_LABELS", "app:firewall").start(&node)?;
    let _gateway =
        Endpoint::of(SERVICE).name("gw").cidr("172.16.2.0/24").set("NSM_LABELS", "app:gateway").start(&node)?;

    let pod = node.pod("client")?;
    let plain = node.conf(SERVICE);
    let mut labelled = plain.clone();
    labelled["labels"] = json!({"app": "firewall"});
    for (ifname, conf, prefix) in [("nsm-1", &plain, "172.16.1."), ("nsm-2", &labelled, "172.16.2.")] {
        let added = node.cni().add(&pod, ifname, conf)?.ok()?;
        let address = added.addresses()?[0].to_string();
        ensure!(address.starts_with(prefix), "{ifname} got {address}");
        pod.ping(added.peer(false)?)?;
    }
    Ok(())
}

pub(crate) fn ten_at_once() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pods = (1..=10).map(|n| node.pod(&format!("client-{n}"))).collect::<anyhow::Result<Vec<Pod>>>()?;
    let before = node.leftovers()?;
    let conf = node.conf(SERVICE);

    at_once(&pods, |pod| {
        let added = node.cni().add(pod, IFNAME, &conf)?.ok()?;
        pod.ping(added.peer(false)?)?;
        Ok(added)
    })?;
    at_once(&pods, |pod| node.cni().del(pod, IFNAME, &conf)?.ok())?;
    node.nothing_left(&before)
}

fn at_once(pods: &[Pod], work: impl Fn(&Pod) -> anyhow::Result<Outcome> + Sync) -> anyhow::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = pods.iter().map(|pod| scope.spawn(|| work(pod).map(|_| ()))).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

pub(crate) fn two_networks_in_one_pod() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _one = Endpoint::of("alpha").cidr("172.16.1.0/24").start(&node)?;
    let _two = Endpoint::of("beta").cidr("172.16.2.0/24").start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;

    let alpha = node.cni().add(&pod, "a", &node.conf("alpha"))?.ok()?;
    let beta = node.cni().add(&pod, "b", &node.conf("beta"))?.ok()?;
    pod.ping(alpha.peer(false)?)?;
    pod.ping(beta.peer(false)?)?;

    node.cni().del(&pod, "a", &node.conf("alpha"))?.ok()?;
    pod.ping(beta.peer(false)?).context("after the other network went")?;
    node.cni().del(&pod, "b", &node.conf("beta"))?.ok()?;
    node.nothing_left(&before)
}

pub(crate) fn a_taken_name_fails_and_changes_nothing() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let conf = node.conf(SERVICE);
    let added = node.cni().add(&pod, IFNAME, &conf)?.ok()?;
    let before = node.leftovers()?;

    // The same attachment, and another container that shares the namespace.
    let again = node.cni().add(&pod, IFNAME, &conf)?;
    ensure!(again.exit != 0, "{}", again.json);
    let loopback = node.cni().add(&pod, "lo", &conf)?;
    ensure!(loopback.exit != 0, "{}", loopback.json);

    node.nothing_left(&before)?;
    pod.ping(added.peer(false)?)?;
    Ok(())
}

pub(crate) fn no_endpoint_is_try_again_later() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let why = node.cni().add(&pod, IFNAME, &node.conf("nowhere"))?.refused(11)?;
    ensure!(why.contains("nowhere"), "{why}");
    node.nothing_left(&before)
}

pub(crate) fn a_chained_result_is_extended() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let mut conf = node.conf(SERVICE);
    conf["prevResult"] = json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "mac": "02:00:00:00:00:01", "sandbox": pod.namespace().path()}],
        "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 0}],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dns": {"nameservers": ["10.0.0.53"]},
    });
    // Chained: the interface name of the call is the main plugin's, ours is another.
    let added = node.cni().add(&pod, "eth0", &conf)?.ok()?;
    let json = &added.json;
    ensure!(json["interfaces"][0]["name"] == "eth0" && json["interfaces"][1]["name"] == "nsm-1", "{json}");
    ensure!(json["ips"][0]["address"] == "10.0.0.2/24" && json["ips"][1]["interface"] == 1, "{json}");
    ensure!(json["routes"][0]["dst"] == "0.0.0.0/0", "{json}");
    ensure!(json["dns"]["nameservers"][0] == "10.0.0.53", "{json}");
    conf.as_object_mut().map(|conf| conf.remove("prevResult"));
    node.cni().check(&pod, "eth0", &conf, json)?.ok()?;
    conf["interface"] = json!("other0");
    ensure!(node.cni().check(&pod, "eth0", &conf, json)?.ok().is_err(), "CHECK of an interface that was not made");
    node.cni().del(&pod, "eth0", &conf)?.ok()?;
    Ok(())
}

pub(crate) fn a_service_of_another_domain_is_refused() -> anyhow::Result<()> {
    let node = Node::start("node-1")?;
    let _endpoint = Endpoint::of(SERVICE).start(&node)?;
    let pod = node.pod("client")?;
    let before = node.leftovers()?;
    let refused = node.cni().add(&pod, IFNAME, &node.conf("icmp@example.org"))?.refused(7)?;
    ensure!(refused.contains("icmp@example.org"), "{refused}");
    node.nothing_left(&before)
}
