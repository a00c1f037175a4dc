//! Plugins of the CNI project that do what a pod's annotation asks for: ports of the node, and bandwidth.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nsm_lab::{Namespace, Node, runner, tcp_exchange};
use nsm_netlink::{Netns, NetnsSocket};
use serde_json::{Value, json};

use super::{Sandbox, bin_dir, bridge, held, ipam, links, list, nothing_left, ptp, write};

const PORT: u16 = 8080;
const BOUND: Duration = Duration::from_secs(10);
/// A megabyte a second.
const RATE: u32 = 8_000_000;

/// `bridge`, then those two by their capabilities.
fn mapped(node: &Node) -> Value {
    let portmap = json!({"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}});
    let bandwidth = json!({"type": "bandwidth", "capabilities": {"bandwidth": true}});
    list("bridge", &[bridge(node), portmap, bandwidth])
}

fn needs() -> anyhow::Result<()> {
    let plugins = bin_dir()?;
    for plugin in ["portmap", "bandwidth"] {
        if !plugins.join(plugin).is_file() {
            return Err(runner::Skip(format!("{plugin} is not in {}", plugins.display())).into());
        }
    }
    let nft = Command::new("nft").arg("--version").output();
    if nft.is_ok_and(|output| output.status.success()) {
        return Ok(());
    }
    Err(runner::Skip("portmap needs nft: install nftables".to_owned()).into())
}

/// The rules of the node, without counters.
fn rules(node: &Node) -> anyhow::Result<String> {
    let output = node.namespace().run(|| Command::new("nft").args(["-s", "list", "ruleset"]).output())??;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Interfaces through which `bandwidth` leads what a pod sends.
fn shapers(node: &Node) -> anyhow::Result<Vec<String>> {
    let mut socket = NetnsSocket::open(&Netns::open(node.namespace().path())?)?;
    let names = socket.links()?.into_iter().map(|link| link.name.as_str().to_owned());
    Ok(names.filter(|name| name.starts_with("bwp")).collect())
}

/// Who answers at a port of the node.
fn answers(client: &Namespace, at: Ipv4Addr, server: &Namespace, address: Ipv4Addr) -> anyhow::Result<()> {
    let listening = server.run(move || TcpListener::bind((address, 80)))?.context("the pod's server")?;
    let target = SocketAddr::from((at, PORT));
    let mut stream =
        client.run(move || TcpStream::connect_timeout(&target, BOUND))?.with_context(|| target.to_string())?;
    let serving = thread::spawn(move || listening.accept().and_then(|(mut stream, _)| stream.write_all(b"the pod")));
    stream.set_read_timeout(Some(BOUND))?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    serving.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    ensure!(said == "the pod", "{said:?}");
    Ok(())
}

/// A port of the node leads to the pod, what it receives is held back; DEL takes both away.
pub(crate) fn ports_and_bandwidth() -> anyhow::Result<()> {
    needs()?;
    let node = Node::start("node-1")?;
    let [pod, outside] = [node.pod("client")?, node.pod("outside")?];
    let conf_dir = node.dir().join("networks");
    write(&conf_dir.join("10.conflist"), &mapped(&node))?;
    let asks = json!([{
        "name": "bridge", "default-route": ["10.77.1.1"],
        "portMappings": [{"hostPort": PORT, "containerPort": 80, "protocol": "tcp"}],
        "bandwidth": {"ingressRate": RATE, "ingressBurst": 400_000, "egressRate": RATE, "egressBurst": 400_000},
    }]);
    let annotations = json!({"k8s.v1.cni.cncf.io/networks": asks.to_string()});
    let keys = json!({
        "delegates": [list("ptp", &[ptp(&node)])], "confDir": conf_dir,
        "runtimeConfig": {"io.kubernetes.cri.pod-annotations": annotations},
    });
    let sandbox = Sandbox::of(&node, &pod, &keys)?;
    let mut outer = json!({"type": "bridge", "bridge": "br-outer", "isDefaultGateway": true});
    outer["ipam"] = ipam(&node, 2, &json!([]));
    let keys = json!({"delegates": [list("outer", &[outer])], "name": "other", "cniDir": node.dir().join("other")});
    let other = Sandbox::of(&node, &outside, &keys)?;
    other.add()?.ok()?;
    let gateway = Ipv4Addr::new(10, 77, 2, 1);
    let mut after = Vec::new();
    for _ in 0..2 {
        sandbox.add()?.ok()?;
        ensure!(links(&pod)? == ["eth0", "net1"]);
        let [address] = &held(&node, "bridge")[..] else { anyhow::bail!("{:?}", held(&node, "bridge")) };
        let address: Ipv4Addr = address.parse()?;
        answers(outside.namespace(), gateway, pod.namespace(), address)?;
        ensure!(rules(&node)?.contains(&address.to_string()) && shapers(&node)?.len() == 1, "{:?}", shapers(&node)?);
        let began = Instant::now();
        tcp_exchange(outside.namespace(), pod.namespace(), address.into())?;
        // Half a megabyte each way; a few milliseconds else.
        ensure!(began.elapsed() > Duration::from_millis(500), "{:?}", began.elapsed());
        sandbox.del()?.ok()?;
        let left = rules(&node)?;
        ensure!(!left.contains(&address.to_string()) && !left.contains(&PORT.to_string()), "{left}");
        ensure!(shapers(&node)?.is_empty(), "{:?}", shapers(&node)?);
        nothing_left(&node, &[&pod])?;
        after.push(left);
    }
    // What portmap keeps for good does not grow.
    ensure!(after[0] == after[1], "{} {}", after[0], after[1]);
    sandbox.del()?.ok()?;
    Ok(())
}
