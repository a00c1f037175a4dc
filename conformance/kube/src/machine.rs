//! A machine of the cluster: a place with a runtime and a kubelet.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ipnetwork::IpNetwork;
use nsm_lab::{Namespace, Program};
use nsm_netlink::{IfName, LinkConfig, Mac, Netlink, Netns, NetnsSocket, Route, VethEnd, VethPair};
use serde_json::json;

use crate::agent::Agent;
use crate::cgroups;
use crate::claims::EXTENDED_RESOURCES;
use crate::cluster::{Cluster, SERVICE, UPLINK};
use crate::place::Place;
use crate::runtime::{self, BIN_DIR, Release, Runtime};

/// Of a line in a log that is shown, in bytes.
const LINE: usize = 800;

/// Lines of logs that tell nothing: a kubelet has no sizes of file systems in memory, an image comes in many steps.
const NOISE: [&str; 5] = ["eviction_manager", "cri_stats_provider", "loading plugin", "ImageUpdate", "ImageCreate"];

/// A node of Kubernetes.
#[derive(Debug)]
pub struct Machine {
    // In the order in which they end.
    pub(crate) agent: Option<Agent>,
    kubelet: Option<Program>,
    runtime: Option<Runtime>,
    place: Place,
    name: String,
    number: u8,
    group: String,
    kubeconfig: PathBuf,
    release: Release,
}

impl Machine {
    /// Number `number` of the cluster, with nothing running. `lab` names its control groups.
    pub(crate) fn create(cluster: &Cluster, number: u8, lab: &str, release: Release) -> anyhow::Result<Self> {
        let name = crate::cluster::MACHINES[usize::from(number) - 1];
        let dir = Path::new("/run/lab").join(name);
        fs::create_dir_all(dir.join("pods"))?;
        let place = Place::create(name, &dir)?;
        let group = cgroups::group(lab);
        cgroups::create(&group, name)?;
        connect(cluster.namespace(), place.network(), number)?;
        let kubeconfig = cluster.file(&format!("{name}.conf"));
        let machine = Self {
            agent: None,
            kubelet: None,
            runtime: None,
            place,
            name: name.into(),
            number,
            group,
            kubeconfig,
            release,
        };
        machine.plugins()?;
        Ok(machine)
    }

    /// The reference plugins, where a distribution would have installed them.
    fn plugins(&self) -> anyhow::Result<()> {
        let names = ["ptp", "bridge", "macvlan", "tuning", "host-local", "loopback"];
        names.into_iter().try_for_each(|name| self.add_plugin(name))
    }

    /// Puts one of the tools where plugins are.
    pub fn add_plugin(&self, name: &str) -> anyhow::Result<()> {
        let tool = nsm_peers::tools::tool(name)?;
        let to = Path::new(BIN_DIR).join(name);
        self.place.run(|| fs::copy(tool, &to))?.with_context(|| format!("plugin {name}"))?;
        Ok(())
    }

    /// Its name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network and files.
    pub const fn place(&self) -> &Place {
        &self.place
    }

    /// Where its pods have their addresses, `10.244.N.0/24`.
    pub fn pod_network(&self) -> IpNetwork {
        pods(self.number)
    }

    /// A first network of pods as a cluster has it: addresses by host-local, a veth and a route each.
    pub fn first_network(&self) -> serde_json::Value {
        json!({
            "cniVersion": self.release.cni_version(), "name": "first",
            "plugins": [{
                "type": "ptp", "ipMasq": false,
                "ipam": { "type": "host-local", "ranges": [[{ "subnet": self.pod_network() }]],
                    "routes": [{ "dst": "0.0.0.0/0" }] },
            }],
        })
    }

    /// Imports archives of images; containerd runs.
    pub fn import(&self, archives: &[PathBuf]) -> anyhow::Result<()> {
        runtime::import(&self.place, &self.release, archives)
    }

    /// `ctr` for the containers of Kubernetes; its standard output.
    pub fn ctr(&self, args: &[&str]) -> anyhow::Result<String> {
        self.place.output(self.release.ctr(&self.place).args(args))
    }

    /// The process of a running container.
    pub fn task(&self, id: &str) -> anyhow::Result<u32> {
        let tasks = self.ctr(&["tasks", "ls"])?;
        let mut lines = tasks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let found = lines.find(|words| words.first() == Some(&id) && words.last() == Some(&"RUNNING"));
        let words = found.with_context(|| format!("container {id} does not run:\n{tasks}"))?;
        Ok(words.get(1).context("no process")?.parse()?)
    }

    /// Starts containerd.
    pub fn start_runtime(&mut self) -> anyhow::Result<()> {
        self.runtime = Some(Runtime::start(&self.place, &self.release)?);
        Ok(())
    }

    /// SIGKILL to containerd; containers go on.
    pub fn kill_runtime(&mut self) -> anyhow::Result<()> {
        self.runtime.take().context("no containerd runs")?.kill()
    }

    /// Starts the kubelet.
    pub fn start_kubelet(&mut self) -> anyhow::Result<()> {
        let config = self.place.dir().join("kubelet.yaml");
        fs::write(&config, self.settings().to_string())?;
        let mut command = crate::cluster::command(&nsm_peers::tools::tool("kubelet")?);
        command.arg("--config").arg(&config).arg("--kubeconfig").arg(&self.kubeconfig);
        command.arg("--root-dir").arg(self.place.dir().join("kubelet"));
        command.arg("--cert-dir").arg(self.place.dir().join("kubelet/pki"));
        command.arg(format!("--hostname-override={}", self.name)).arg(format!("--node-ip={}", address(self.number)));
        self.kubelet = Some(self.place.start("kubelet", &mut command)?);
        Ok(())
    }

    /// SIGKILL to the kubelet.
    pub fn kill_kubelet(&mut self) -> anyhow::Result<()> {
        self.kubelet.take().context("no kubelet runs")?.kill()
    }

    /// Its mount namespace, for containers that see its processes: what `/proc/1/ns/mnt` is on a machine that is not a place.
    pub fn mount_namespace(&self) -> anyhow::Result<String> {
        let kubelet = self.kubelet.as_ref().context("no kubelet runs")?;
        Ok(format!("/proc/{}/ns/mnt", kubelet.pid()))
    }

    /// Where the kubelet reads pods that the API server has not told it.
    pub fn static_pods(&self) -> PathBuf {
        self.place.dir().join("pods")
    }

    /// The ends of its programs' logs.
    pub fn logs(&self, lines: usize) -> String {
        let tail = |name: &str| {
            let log = fs::read_to_string(self.place.dir().join(format!("{name}.log"))).unwrap_or_default();
            let all = log.lines().filter(|line| !NOISE.iter().any(|noise| line.contains(noise)));
            let all: Vec<&str> = all.map(|line| line.get(..LINE).unwrap_or(line)).collect();
            format!("---- {name} of {} ----\n{}\n", self.name, all[all.len().saturating_sub(lines)..].join("\n"))
        };
        ["containerd", "kubelet", "nsm-agent"].map(tail).concat()
    }

    fn settings(&self) -> serde_json::Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "cgroupDriver": "cgroupfs",
            "featureGates": { EXTENDED_RESOURCES: true },
            // Two kubelets with one root would take each other's pods for orphans.
            "cgroupRoot": format!("/{}/{}", self.group, self.name),
            "failCgroupV1": false,
            "failSwapOn": false,
            // Sizes of a file system that all machines share are nothing to count by.
            "localStorageCapacityIsolation": false,
            "resolvConf": "/dev/null",
            "staticPodPath": self.static_pods(),
            "volumePluginDir": self.place.dir().join("volumes"),
            "containerRuntimeEndpoint": format!("unix://{}", runtime::socket(&self.place).display()),
            "maxPods": 200,
            "evictionHard": { "memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
            "imageGCHighThresholdPercent": 100,
            // Who is in this network is the test.
            "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
            "authorization": { "mode": "AlwaysAllow" },
        })
    }
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 231, number, 1)
}

fn pods(number: u8) -> IpNetwork {
    let network = IpNetwork::new(Ipv4Addr::new(10, 244, number, 0).into(), 24);
    network.unwrap_or_else(|_| unreachable!("24 is a length"))
}

/// A wire from the API server's namespace to the machine's, and routes both ways.
fn connect(cluster: &Namespace, machine: &Namespace, number: u8) -> anyhow::Result<()> {
    let [near, far] = [Netns::open(cluster.path())?, Netns::open(machine.path())?];
    let end = |netns, name: &str| -> anyhow::Result<VethEnd<'_>> {
        Ok(VethEnd { netns, name: IfName::new(name)?, mac: Mac::random() })
    };
    let ends = [end(&near, machine.name())?, end(&far, "eth0")?];
    let [ours, theirs] = Netlink::open()?.create_veth(&VethPair { ends, mtu: None, group: None })?;
    let host = |address: IpAddr| IpNetwork::from(address);
    let (here, there) = (IpAddr::from(UPLINK), IpAddr::from(address(number)));
    // The same addresses on every wire: each is a network of two.
    let mut addresses = vec![host(here)];
    if number == 1 {
        addresses.push(host(SERVICE.into()));
    }
    let routes = vec![Route::on_link(host(there)), Route::via(pods(number), there)];
    let config = LinkConfig { up: true, addresses, routes, ..LinkConfig::default() };
    NetnsSocket::open(&near)?.configure(ours.index, &config)?;
    let rest = IpNetwork::new(Ipv4Addr::UNSPECIFIED.into(), 0)?;
    let routes = vec![Route::on_link(host(here)), Route::via(rest, here)];
    let config = LinkConfig { up: true, addresses: vec![host(there)], routes, ..LinkConfig::default() };
    NetnsSocket::open(&far)?.configure(theirs.index, &config)?;
    let forward = || fs::write("/proc/sys/net/ipv4/ip_forward", "1\n");
    cluster.run(forward)?.context("forwarding between machines")?;
    machine.run(forward)?.context("forwarding to pods")
}
