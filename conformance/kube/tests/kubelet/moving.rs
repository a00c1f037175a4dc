//! A node moves from Multus and back, as `docs/moving-from-multus.md` says, with pods that run: they keep their interfaces, and each
//! store of addresses has those of the pods that live and no others, after each step.

mod lived;
mod thick;
mod thin;

use std::net::IpAddr;
use std::process::Command;

use anyhow::{Context, ensure};
use nsm_kube::definitions::{NETWORKS, definition, kind};
use nsm_kube::{BIN_DIR, Machine, Mesh, SOON, idle, patiently};
use serde_json::{Value, json};

pub(crate) use thick::from_the_daemon_and_back;
pub(crate) use thin::from_the_plugin_and_back;

/// What all pods of a story ask for.
struct Pod {
    name: &'static str,
    networks: &'static str,
    /// Beside `eth0`: interface, and store of its addresses.
    added: &'static [(&'static str, &'static str)],
}

const PLAIN: Pod = Pod { name: "plain", networks: "", added: &[] };
const ONE: Pod = Pod { name: "one", networks: "lan,chain", added: &[("net1", "lan"), ("net2", "chain")] };
const TWO: Pod = Pod { name: "two", networks: "lan,chain@chain0", added: &[("net1", "lan"), ("chain0", "chain")] };
const OLD: Pod = Pod { name: "old", networks: "reaching", added: &[("net1", "reaching")] };
/// Made after the move.
const NEW: Pod = Pod { name: "new", ..ONE };
/// Made after the way back.
const AGAIN: Pod = Pod { name: "again", ..ONE };

/// Where the networks keep their addresses.
const STORES: [&str; 4] = ["first", "lan", "chain", "reaching"];

/// A machine that moves.
struct Node<'a> {
    mesh: &'a Mesh,
    at: usize,
    namespace: &'static str,
}

impl Node<'_> {
    fn machine(&self) -> anyhow::Result<&Machine> {
        self.mesh.machine(self.at)
    }

    /// Networks by one plugin and by a list; and one that says to whereabouts where credentials and logs are, in its manner.
    fn define(&self) -> anyhow::Result<()> {
        // A bridge's own hardware address changes with its ports, and CHECK of its plugin fails for the pods that were first.
        let ptp = |third: u8| {
            let ranges = json!([[{ "subnet": format!("10.67.{third}.0/24") }]]);
            json!({ "type": "ptp", "ipam": { "type": "host-local", "ranges": ranges } })
        };
        let mut lan = ptp(1);
        lan["cniVersion"] = "1.0.0".into();
        let tuning = json!({ "type": "tuning", "mtu": 1400 });
        let chain = json!({ "cniVersion": "1.0.0", "name": "chain", "plugins": [ptp(2), tuning] });
        let mut reaching = ptp(3);
        reaching["cniVersion"] = "1.0.0".into();
        reaching["ipam"]["kubernetes"] = json!({ "kubeconfig": "/etc/cni/net.d/whereabouts.d/whereabouts.kubeconfig" });
        reaching["ipam"]["log_file"] = "/tmp/whereabouts.log".into();
        self.mesh.kubectl_apply(&kind())?;
        for (name, config) in [("lan", lan), ("chain", chain), ("reaching", reaching)] {
            let network = definition(self.namespace, name, &config);
            patiently("a definition", SOON, || self.mesh.kubectl_apply(&network), |_| true)?;
        }
        Ok(())
    }

    /// Makes pods and waits for them.
    fn make(&self, pods: &[&Pod]) -> anyhow::Result<()> {
        for pod in pods {
            let mut object = idle(self.namespace, pod.name, self.machine()?.name());
            if !pod.networks.is_empty() {
                object["metadata"]["annotations"] = json!({ NETWORKS: pod.networks });
            }
            self.mesh.create(&object)?;
        }
        pods.iter().try_for_each(|pod| self.mesh.running(self.namespace, pod.name).map(drop))
    }

    /// Deletes a pod and waits for its end.
    fn end(&self, pod: &Pod) -> anyhow::Result<()> {
        self.mesh.delete(self.namespace, &[pod.name])?;
        self.mesh.gone(self.namespace, &[pod.name])
    }

    /// The addresses of a pod's interface.
    fn addresses(&self, pod: &Pod, interface: &str) -> anyhow::Result<Vec<IpAddr>> {
        lived::addresses(&self.mesh.network_of(self.machine()?, self.namespace, pod.name)?, interface)
    }

    /// Each store has the addresses of these pods and no others.
    fn exact(&self, pods: &[&Pod]) -> anyhow::Result<()> {
        let mut there: Vec<(&str, String)> = Vec::new();
        for pod in pods {
            for (interface, store) in [("eth0", "first")].iter().chain(pod.added) {
                let addresses = self.addresses(pod, interface)?;
                ensure!(addresses.len() == 1, "{} of {}: {addresses:?}", interface, pod.name);
                there.extend(addresses.iter().map(|address| (*store, address.to_string())));
            }
        }
        there.sort();
        let machine = self.machine()?;
        let given = || -> anyhow::Result<Vec<(&str, String)>> {
            let mut given = Vec::new();
            for store in STORES {
                given.extend(machine.addresses_of(store)?.into_iter().map(|address| (store, address)));
            }
            given.sort();
            Ok(given)
        };
        patiently("the addresses of living pods in the stores, and no others", SOON, given, |given| *given == there)
            .map(drop)
    }

    /// A line of the document, by root's shell on the machine; its standard output.
    fn shell(&self, line: &str) -> anyhow::Result<String> {
        let mut command = Command::new("/bin/sh");
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(["-ec", line]);
        self.machine()?.place().output(&mut command)
    }

    /// Puts a program in the place of a plugin: there is always one under that name.
    fn replace(&self, plugin: &str, by: &str) -> anyhow::Result<()> {
        self.shell(&format!("cp {by} {BIN_DIR}/.{plugin} && mv {BIN_DIR}/.{plugin} {BIN_DIR}/{plugin}")).map(drop)
    }

    /// What `nsmctl check --moving` finds: level, subject, detail and fix of each.
    fn findings(&self) -> anyhow::Result<Vec<[String; 4]>> {
        let place = self.machine()?.place();
        for (kind, file) in [("network-attachment-definitions", "definitions"), ("pods", "pods")] {
            let list = self.mesh.kubectl(&["get", kind, "-A", "-o", "json"])?;
            place.write(&format!("/run/nsm/{file}.json"), &list)?;
        }
        let more = ["--moving", "--definitions", "/run/nsm/definitions.json", "--pods", "/run/nsm/pods.json"];
        let found = self.machine()?.findings(&more)?;
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let keys = ["level", "subject", "detail", "fix"];
        Ok(found.iter().map(|finding| keys.map(|key| text(finding, key))).collect())
    }

    /// Files of Multus's, and of its library's cache, about a container.
    fn of_multus(&self, container: &str) -> anyhow::Result<Vec<String>> {
        let place = self.machine()?.place();
        let mut files = place.list("/var/lib/cni/multus")?;
        files.extend(place.list("/var/lib/cni/multus/results")?);
        files.retain(|file| file.contains(container));
        Ok(files)
    }
}

/// What is found of a subject has these words.
/// `words` are whole: of "10 pods" "0 pods" is none.
fn is_told(found: &[[String; 4]], level: &str, subject: &str, words: &[&str]) -> anyhow::Result<()> {
    let has = |text: &str, word: &str| {
        text.match_indices(word).any(|(at, _)| !text[..at].ends_with(|before: char| before.is_ascii_alphanumeric()))
    };
    let is_it = |finding: &&[String; 4]| {
        finding[0] == level
            && finding[1] == format!("moving: {subject}")
            && words.iter().all(|word| has(&finding[2], word) || has(&finding[3], word))
    };
    found.iter().find(is_it).map(drop).with_context(|| format!("no {level} of {subject} with {words:?}: {found:#?}"))
}
