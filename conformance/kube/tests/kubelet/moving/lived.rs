//! What happens on a node between the move and the way back, whichever Multus there was.

use std::fs::File;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use ipnetwork::IpNetwork;
use nsm_kube::definitions::NETWORKS;
use nsm_kube::pods::interfaces;
use nsm_kube::{BIN_DIR, CONF_DIR, Mesh, SOON, idle, patiently, sandbox_of};
use nsm_lab::{Namespace, Pinger};
use nsm_netlink::{IfName, LinkConfig, Netns, NetnsSocket};
use serde_json::{Value, json};

use super::{AGAIN, NEW, Node, OLD, ONE, PLAIN, Pod, TWO, is_told};

const PACE: Duration = Duration::from_millis(50);
/// The records of pods that we made.
const OURS: &str = "/var/lib/cni/multus/nsm-cni";

/// Addresses of an interface that reach beyond its link.
pub(super) fn addresses(network: &Namespace, interface: &str) -> anyhow::Result<Vec<IpAddr>> {
    let mut socket = NetnsSocket::open(&Netns::open(network.path())?)?;
    let link = socket.link_by_name(&IfName::new(interface)?)?.with_context(|| format!("no {interface}"))?;
    let all = socket.addresses()?.into_iter().filter(|address| address.index == link.index);
    Ok(all.map(|address| address.network.ip()).filter(IpAddr::is_ipv4).collect())
}

/// A plugin and the configuration that it is called with.
pub(super) struct Called<'a> {
    pub(super) plugin: &'a str,
    pub(super) configuration: &'a str,
}

impl Node<'_> {
    /// CHECK of a pod, with what the runtime remembers of its ADD.
    fn check(&self, called: &Called<'_>, pod: &Pod) -> anyhow::Result<()> {
        let place = self.machine()?.place();
        let (container, _) = sandbox_of(self.machine()?, self.namespace, pod.name)?;
        let results = "/var/lib/cni/results";
        let names = place.list(results)?;
        let is_it = |name: &&String| name.ends_with(&format!("{container}-eth0"));
        let name = names.iter().find(is_it).with_context(|| format!("no result of the runtime's: {names:?}"))?;
        let cached: Value = serde_json::from_str(&place.read(&format!("{results}/{name}"))?)?;
        let mut conf: Value = serde_json::from_str(&place.read(&format!("{CONF_DIR}/{}", called.configuration))?)?;
        ensure!(cached["networkName"] == conf["name"], "DEL would come without a result: {cached}, {conf}");
        conf["prevResult"] = cached["result"].clone();
        let interfaces = cached["result"]["interfaces"].as_array().context("no interfaces")?;
        let netns = interfaces.iter().find_map(|one| one["sandbox"].as_str()).context("no namespace")?;
        let stdin = place.dir().join("check.json");
        std::fs::write(&stdin, conf.to_string())?;
        let args: Vec<[String; 2]> = serde_json::from_value(cached["cniArgs"].clone())?;
        let args: Vec<String> = args.iter().map(|[key, value]| format!("{key}={value}")).collect();
        let mut command = Command::new(format!("{BIN_DIR}/{}", called.plugin));
        command.env_clear().env("CNI_COMMAND", "CHECK").env("CNI_PATH", BIN_DIR).env("CNI_IFNAME", "eth0");
        command.env("CNI_CONTAINERID", container).env("CNI_NETNS", netns);
        command.env("CNI_ARGS", args.join(";")).stdin(File::open(stdin)?);
        let output = place.run(|| command.output())?.context("CHECK")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "CHECK: {said} {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A step during which pods that run lose no packet.
    pub(super) fn without_loss(&self, step: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        let to = *self.addresses(&TWO, "net1")?.first().context("no address")?;
        let pinger = Pinger::start(&self.mesh.network_of(self.machine()?, self.namespace, ONE.name)?, to, PACE)?;
        let stepped = step();
        let sent = pinger.sent();
        patiently("pings after the step", SOON, || Ok(pinger.sent()), |now| *now > sent + 5)?;
        let pings = pinger.stop();
        stepped?;
        ensure!(pings.lost == 0, "{pings:?}");
        Ok(())
    }

    /// Pods that Multus made are checked and end, in whatever state its records are, and others start.
    pub(super) fn ends_those_of_multus(&self, called: &Called<'_>) -> anyhow::Result<()> {
        for pod in [&PLAIN, &ONE, &TWO, &OLD] {
            self.check(called, pod).with_context(|| pod.name.to_owned())?;
        }
        strip(self.mesh, self, &ONE, "net2")?;
        let told = self.check(called, &ONE).err().context("CHECK does not see that an address has gone")?.to_string();
        ensure!(told.contains("network \\\"") && told.contains("chain") && told.contains("net2"), "{told}");
        self.ends(&ONE, |_| Ok(()))?;
        self.exact(&[&PLAIN, &TWO, &OLD]).context("after the end of a pod of Multus's")?;
        // What the cache lacks the list has.
        self.ends(&TWO, |container| self.shell(&format!("rm /var/lib/cni/multus/results/*{container}*")).map(drop))?;
        self.exact(&[&PLAIN, &OLD]).context("after the end of a pod without Multus's cache")?;
        // Its definition is refused by now, but not its end.
        self.ends(&OLD, |_| Ok(()))?;
        self.exact(&[&PLAIN]).context("after the end of a pod of a definition that is refused")?;
        self.make(&[&NEW])?;
        let network = self.mesh.network_of(self.machine()?, self.namespace, NEW.name)?;
        ensure!(interfaces(&network)? == ["eth0", "net1", "net2"], "{:?}", interfaces(&network)?);
        self.exact(&[&PLAIN, &NEW]).context("after the start of a pod")?;
        self.is_ours(&NEW)?;
        self.check(called, &NEW)?;
        self.refuses(OLD.networks, &["reaches into the host", "the node's own configuration"])?;
        is_told(&self.findings()?, "ok", "records", &["1 pods of Multus's", "1 pods are ours"])
    }

    /// Ends a pod that Multus made, after `first`; nothing of Multus's is left of it.
    fn ends(&self, pod: &Pod, first: impl FnOnce(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let (container, _) = sandbox_of(self.machine()?, self.namespace, pod.name)?;
        let files = self.of_multus(&container)?;
        ensure!(files.len() == pod.added.len() + 2, "a list, and an entry of each network: {files:?}");
        first(&container)?;
        self.end(pod)?;
        patiently("Multus's files forgotten", SOON, || self.of_multus(&container), Vec::is_empty).map(drop)
    }

    fn is_ours(&self, pod: &Pod) -> anyhow::Result<()> {
        let (container, _) = sandbox_of(self.machine()?, self.namespace, pod.name)?;
        let records = self.machine()?.place().list(OURS)?;
        ensure!(records.contains(&format!("{container}@eth0.json")), "{records:?}");
        ensure!(self.of_multus(&container)?.is_empty(), "{:?}", self.of_multus(&container)?);
        Ok(())
    }

    /// A pod does not start, and an event says why.
    fn refuses(&self, networks: &str, words: &[&str]) -> anyhow::Result<()> {
        let mut pod = idle(self.namespace, "refused", self.machine()?.name());
        pod["metadata"]["annotations"] = json!({ NETWORKS: networks });
        self.mesh.create(&pod)?;
        let why = |events: &Vec<String>| events.iter().any(|event| words.iter().all(|word| event.contains(word)));
        let told = patiently("an event", SOON, || self.mesh.events(self.namespace, "refused"), why);
        self.mesh.delete(self.namespace, &["refused"])?;
        self.mesh.gone(self.namespace, &["refused"])?;
        told.map(drop)
    }

    /// The node is emptied: whoever made its pods, nothing of them is left.
    pub(super) fn drained(&self) -> anyhow::Result<()> {
        let name = self.machine()?.name();
        self.mesh.kubectl(&["drain", name, "--ignore-daemonsets", "--force", "--timeout=60s"])?;
        self.mesh.kubectl(&["taint", "node", name, "moving=back:NoExecute"])?;
        self.mesh.gone(self.namespace, &[PLAIN.name, NEW.name])?;
        self.exact(&[]).context("after drain")?;
        let place = self.machine()?.place();
        let records = || {
            let mut records = place.list(OURS)?;
            records.retain(|name| !name.starts_with('.') && name != "lock");
            records.extend(
                self.of_multus("")?.into_iter().filter(|name| !["nsm-cni", "results"].contains(&name.as_str())),
            );
            Ok(records)
        };
        patiently("no record of a pod", SOON, records, Vec::is_empty)?;
        is_told(&self.findings()?, "ok", "records", &["0 pods of Multus's", "0 pods are ours"])
    }

    /// The node takes pods, also where a story has ended before its time.
    pub(super) fn open(&self) -> anyhow::Result<()> {
        let name = self.machine()?.name();
        // Fails where there is no taint.
        let untainted = self.mesh.kubectl(&["taint", "node", name, "moving-"]);
        self.mesh.kubectl(&["uncordon", name])?;
        untainted.map(drop)
    }

    /// A pod is Multus's again.
    pub(super) fn is_back(&self) -> anyhow::Result<()> {
        self.open()?;
        self.make(&[&AGAIN])?;
        self.exact(&[&AGAIN])?;
        let (container, _) = sandbox_of(self.machine()?, self.namespace, AGAIN.name)?;
        let files = self.of_multus(&container)?;
        ensure!(files.contains(&container), "{files:?}");
        Ok(())
    }

    /// Moved once more, so that its last pod ends with all its addresses.
    pub(super) fn ends_the_last(&self) -> anyhow::Result<()> {
        self.ends(&AGAIN, |_| Ok(()))?;
        self.exact(&[])
    }
}

/// Takes the addresses of a pod's interface away.
fn strip(mesh: &Mesh, node: &Node<'_>, pod: &Pod, interface: &str) -> anyhow::Result<()> {
    let network = mesh.network_of(node.machine()?, node.namespace, pod.name)?;
    let mut socket = NetnsSocket::open(&Netns::open(network.path())?)?;
    let link = socket.link_by_name(&IfName::new(interface)?)?.context("no such interface")?;
    let all = socket.addresses()?.into_iter().filter(|one| one.index == link.index && one.network.is_ipv4());
    let addresses: Vec<IpNetwork> = all.map(|one| one.network).collect();
    let without = LinkConfig { up: true, ..LinkConfig::default() };
    socket.reconfigure(link.index, &LinkConfig { addresses, ..without.clone() }, &without)?;
    Ok(())
}
