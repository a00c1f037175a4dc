//! Programs that the tests need: found, installed, or said to be missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};

use crate::place::{root, target, tools};
use crate::run::run;

const INSTALL: Duration = Duration::from_mins(30);

const VPP_PAPI: &str = "vpp_papi==2.4.2";
const CARGO_DENY: &str = "0.20.2";
const HELM: &str = "helm.sh/helm/v3/cmd/helm@v3.19.0";
const CNITOOL: &str = "github.com/containernetworking/cni/cnitool@v1.3.0";
const PLUGINS: &str = "github.com/containernetworking/plugins/plugins";
const PLUGINS_VERSION: &str = "v1.9.1";
const PLUGINS_WANTED: [&str; 8] = [
    "main/ptp",
    "main/bridge",
    "main/macvlan",
    "main/loopback",
    "meta/tuning",
    "meta/portmap",
    "meta/bandwidth",
    "ipam/host-local",
];
const KUBERNETES: &str = "v1.34.1";
const CONTAINERD_2: [&str; 3] = ["containerd", "containerd-shim-runc-v2", "ctr"];
/// Its plugin, and its daemon with the plugin that calls it.
const MULTUS: [&str; 3] = ["multus", "multus-daemon", "multus-shim"];
const KUBE_NODE: [&str; 4] = ["kubelet", "kubectl", "kube-controller-manager", "kube-scheduler"];
const MIRI: &str = "rustup toolchain install nightly --component miri,rust-src";
/// Debian's packages: the program, and the drivers.
const DPDK: [&str; 2] = ["dpdk-dev", "librte-meta-net"];
const DPDK_THERE: &str =
    "command -v dpdk-testpmd && command -v stdbuf && ls /usr/lib/*/dpdk/pmds-*/librte_net_memif.so";

/// Something that a suite cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Rustfmt,
    Clippy,
    /// An interpreter that sees undefined behaviour, of a nightly compiler.
    Miri,
    CargoDeny,
    Go,
    Cnitool,
    Helm,
    ReferencePlugins,
    Etcd,
    KubeApiserver,
    /// What else a node and a user of Kubernetes need.
    KubeNode,
    Containerd,
    /// Of its next major version.
    Containerd2,
    Multus,
    Busybox,
    /// What `portmap` writes its rules with.
    Nftables,
    Strace,
    Pip,
    VppPapi,
    Vpp,
    /// Its test program, with the memif driver.
    Dpdk,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Rustfmt => "rustfmt",
            Self::Clippy => "clippy",
            Self::Miri => "Miri of a nightly compiler",
            Self::CargoDeny => "cargo-deny",
            Self::Go => "go",
            Self::Cnitool => "cnitool",
            Self::Helm => "helm",
            Self::ReferencePlugins => {
                "ptp, bridge, macvlan, tuning, portmap, bandwidth and host-local of containernetworking/plugins"
            }
            Self::Etcd => "etcd",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeNode => "kubelet, kubectl and Kubernetes' controllers",
            Self::Containerd => "containerd with runc",
            Self::Containerd2 => "containerd 2",
            Self::Multus => "Multus and its daemon",
            Self::Busybox => "a static busybox",
            Self::Dpdk => "dpdk-testpmd with DPDK's memif driver",
            Self::Nftables => "nft",
            Self::Strace => "strace",
            Self::Pip => "python3 with pip",
            Self::VppPapi => "vpp_papi",
            Self::Vpp => "vpp",
        }
    }

    fn there(self) -> bool {
        match self {
            Self::Rustfmt => answers("cargo", &["fmt", "--version"]),
            Self::Clippy => answers("cargo", &["clippy", "--version"]),
            Self::Miri => answers("rustup", &["run", "nightly", "cargo", "miri", "--version"]),
            Self::CargoDeny => tools().join("cargo-deny").is_file() || answers("cargo-deny", &["--version"]),
            Self::Go => go().is_ok(),
            Self::Cnitool => tools().join("cnitool").is_file(),
            Self::Helm => tools().join("helm").is_file(),
            Self::ReferencePlugins => {
                PLUGINS_WANTED.iter().all(|plugin| tools().join(plugin.rsplit('/').next().unwrap_or(plugin)).is_file())
            }
            Self::Etcd => answers("etcd", &["--version"]),
            Self::KubeApiserver => tools().join("kube-apiserver").is_file(),
            Self::KubeNode => KUBE_NODE.iter().all(|name| tools().join(name).is_file()),
            Self::Containerd => answers("containerd", &["--version"]) && answers("runc", &["--version"]),
            Self::Containerd2 => CONTAINERD_2.iter().all(|name| tools().join("containerd-2").join(name).is_file()),
            Self::Multus => MULTUS.iter().all(|name| tools().join(name).is_file()),
            Self::Busybox => answers("/bin/busybox", &["true"]),
            Self::Dpdk => answers("sh", &["-c", DPDK_THERE]),
            Self::Pip => answers("python3", &["-m", "pip", "--version"]),
            // What pip writes last, with the version.
            Self::VppPapi => vpp_papi().join(format!("{}.dist-info", VPP_PAPI.replace("==", "-"))).is_dir(),
            // To ask it would start it.
            Self::Nftables => answers("nft", &["--version"]),
            Self::Strace => answers("strace", &["--version"]),
            Self::Vpp => in_path("vpp"),
        }
    }

    /// How it would be installed.
    fn source(self) -> String {
        match self {
            Self::Rustfmt => "rustup component add rustfmt".into(),
            Self::Clippy => "rustup component add clippy".into(),
            Self::Miri => format!("nothing: {MIRI}"),
            Self::CargoDeny => format!("cargo install cargo-deny {CARGO_DENY} into {}", tools().display()),
            Self::Go => package_manager().map_or("https://go.dev/dl".into(), |manager| manager.words(manager.go)),
            Self::Etcd => package_manager().map_or("https://etcd.io".into(), |manager| manager.words(manager.etcd)),
            Self::KubeApiserver | Self::KubeNode => {
                format!("go build of Kubernetes {KUBERNETES} into {} (6 to 9 minutes, 4 GB)", tools().display())
            }
            Self::Containerd => {
                package_manager().map_or("https://containerd.io".into(), |manager| manager.words(manager.containerd))
            }
            Self::Containerd2 => {
                format!("go build of containerd 2.1.4 into {}", tools().join("containerd-2").display())
            }
            Self::Multus => format!("go build of Multus 4.2.2 into {}", tools().display()),
            Self::Busybox => {
                package_manager().map_or("https://busybox.net".into(), |manager| manager.words(manager.busybox))
            }
            Self::Nftables => {
                package_manager().map_or("https://nftables.org".into(), |manager| manager.words(NFTABLES))
            }
            Self::Strace => package_manager().map_or("https://strace.io".into(), |manager| manager.words(STRACE)),
            Self::Pip => package_manager().map_or("https://pip.pypa.io".into(), |manager| manager.words(manager.pip)),
            Self::Vpp => "nothing: it is in no registry; install VPP from https://fd.io".into(),
            Self::VppPapi => format!("pip install {VPP_PAPI} into {}", vpp_papi().display()),
            Self::Dpdk => format!("apt-get install -y --no-install-recommends {}", DPDK.join(" ")),
            Self::Helm => format!("go install {HELM} into {} (some minutes)", tools().display()),
            Self::Cnitool => format!("go install {CNITOOL} into {}", tools().display()),
            Self::ReferencePlugins => format!("go install {PLUGINS}/…@{PLUGINS_VERSION} into {}", tools().display()),
        }
    }

    fn install(self) -> anyhow::Result<()> {
        match self {
            Self::Rustfmt | Self::Clippy => {
                run(Command::new("rustup").args(["component", "add", self.name()]).current_dir(root()), INSTALL)
            }
            // A second compiler is for people to have, or not.
            Self::Miri => bail!(MIRI),
            Self::CargoDeny => {
                let mut command = Command::new("cargo");
                command.args(["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--root"]);
                command.arg(target().join("tools")).current_dir(root());
                // Not the workspace's: its artefacts are of no use there.
                command.env("CARGO_TARGET_DIR", target().join("tools/build"));
                run(&mut command, INSTALL)
            }
            Self::Go => install_package(|manager| manager.go),
            Self::Etcd => install_package(|manager| manager.etcd),
            Self::KubeApiserver => build_kubernetes("kube-apiserver"),
            Self::KubeNode => KUBE_NODE.iter().try_for_each(|name| build_kubernetes(name)),
            Self::Containerd => install_package(|manager| manager.containerd),
            Self::Containerd2 => CONTAINERD_2.iter().try_for_each(|name| {
                let package = format!("github.com/containerd/containerd/v2/cmd/{name}");
                build_pinned("containerd", &package, &tools().join("containerd-2").join(name), "-s -w")
            }),
            Self::Multus => MULTUS.iter().try_for_each(|name| {
                let package = format!("gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/{name}");
                build_pinned("multus", &package, &tools().join(name), "-s -w")
            }),
            Self::Busybox => install_package(|manager| manager.busybox),
            Self::Dpdk => DPDK.iter().try_for_each(|package| install_debian_package(package)),
            Self::Nftables => install_package(|_| NFTABLES),
            Self::Strace => install_package(|_| STRACE),
            Self::Pip => install_package(|manager| manager.pip),
            Self::Vpp => bail!("install VPP from https://fd.io, with its plugins, and have vpp in PATH"),
            Self::VppPapi => {
                let mut command = Command::new("python3");
                command
                    .args(["-m", "pip", "install", "--quiet", "--upgrade", "--target"])
                    .arg(vpp_papi())
                    .arg(VPP_PAPI);
                run(&mut command, INSTALL)
            }
            Self::Cnitool => go_install(CNITOOL),
            Self::Helm => go_install(HELM),
            Self::ReferencePlugins => PLUGINS_WANTED
                .iter()
                .try_for_each(|plugin| go_install(&format!("{PLUGINS}/{plugin}@{PLUGINS_VERSION}"))),
        }
    }
}

/// Sees to it that a tool is there; otherwise why not.
pub(crate) fn provide(tool: Tool, install: bool) -> Result<(), String> {
    if tool.there() {
        return Ok(());
    }
    if !install {
        return Err(format!("{} is missing; would do: {}", tool.name(), tool.source()));
    }
    println!("{} is missing. Installing it: {}", tool.name(), tool.source());
    tool.install().map_err(|error| format!("{} cannot be installed: {error:#}", tool.name()))?;
    if tool.there() { Ok(()) } else { Err(format!("{} was installed and still is not found", tool.name())) }
}

/// The plugins that the benchmark compares with.
pub(crate) fn reference_plugins() -> anyhow::Result<()> {
    provide(Tool::Go, true).and_then(|()| provide(Tool::ReferencePlugins, true)).map_err(|why| anyhow::anyhow!(why))
}

/// Where Python is told to look for it.
fn vpp_papi() -> PathBuf {
    target().join("tools/vpp-papi")
}

/// Go, where distributions and go.dev put it.
pub(crate) fn go() -> anyhow::Result<&'static str> {
    ["go", "/usr/local/go/bin/go", "/usr/lib/go/bin/go"]
        .into_iter()
        .find(|go| answers(go, &["version"]))
        .context("no go: install it from https://go.dev/dl")
}

fn go_install(package: &str) -> anyhow::Result<()> {
    let mut command = Command::new(go()?);
    command.args(["install", "-trimpath", "-ldflags=-s -w", package]).env("GOBIN", tools()).env("CGO_ENABLED", "0");
    run(&mut command, INSTALL)
}

fn build_kubernetes(program: &str) -> anyhow::Result<()> {
    let version = "k8s.io/component-base/version";
    let flags = format!("-s -w -X {version}.gitVersion={KUBERNETES} -X {version}.gitMajor=1 -X {version}.gitMinor=34");
    build_pinned("kubernetes", &format!("k8s.io/kubernetes/cmd/{program}"), &tools().join(program), &flags)
}

/// From a module of `conformance/kube` that pins it, through the module proxy.
fn build_pinned(module: &str, package: &str, to: &Path, flags: &str) -> anyhow::Result<()> {
    let mut command = Command::new(go()?);
    command.args(["build", "-ldflags", flags, "-o"]).arg(to).arg(package).env("CGO_ENABLED", "0");
    run(command.current_dir(root().join("conformance/kube").join(module)), INSTALL)
}

pub(crate) fn answers(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

struct Manager {
    program: &'static str,
    refresh: &'static [&'static str],
    install: &'static [&'static str],
    go: &'static str,
    etcd: &'static str,
    containerd: &'static str,
    busybox: &'static str,
    pip: &'static str,
}

/// Packages that all of them call so.
const NFTABLES: &str = "nftables";
const STRACE: &str = "strace";

const MANAGERS: [Manager; 5] = [
    Manager {
        program: "apt-get",
        refresh: &["update"],
        install: &["install", "-y", "--no-install-recommends"],
        go: "golang-go",
        etcd: "etcd-server",
        containerd: "containerd",
        busybox: "busybox-static",
        pip: "python3-pip",
    },
    Manager {
        program: "dnf",
        refresh: &[],
        install: &["install", "-y"],
        go: "golang",
        etcd: "etcd",
        containerd: "containerd",
        busybox: "busybox",
        pip: "python3-pip",
    },
    Manager {
        program: "apk",
        refresh: &[],
        install: &["add"],
        go: "go",
        etcd: "etcd",
        containerd: "containerd",
        busybox: "busybox-static",
        pip: "py3-pip",
    },
    Manager {
        program: "zypper",
        refresh: &[],
        install: &["--non-interactive", "install"],
        go: "go",
        etcd: "etcd",
        containerd: "containerd",
        busybox: "busybox-static",
        pip: "python3-pip",
    },
    Manager {
        program: "pacman",
        refresh: &[],
        install: &["-S", "--noconfirm"],
        go: "go",
        etcd: "etcd",
        containerd: "containerd",
        busybox: "busybox",
        pip: "python-pip",
    },
];

impl Manager {
    fn words(&self, package: &str) -> String {
        format!("{} {} {package}", self.program, self.install.join(" "))
    }
}

fn in_path(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|dir| dir.join(program).is_file())
}

fn package_manager() -> Option<&'static Manager> {
    MANAGERS.iter().find(|manager| in_path(manager.program) || Path::new("/usr/bin").join(manager.program).is_file())
}

/// Where Debian's packages are.
pub(crate) fn install_debian_package(package: &'static str) -> anyhow::Result<()> {
    match package_manager() {
        Some(manager) if manager.program == "apt-get" => install_package(|_| package),
        _ => bail!("no apt-get here"),
    }
}

fn install_package(of: impl Fn(&Manager) -> &'static str) -> anyhow::Result<()> {
    let manager = package_manager().context("no package manager known here")?;
    let package = of(manager);
    let root = nix::unistd::geteuid().is_root();
    if !root && !answers("sudo", &["-n", "true"]) {
        bail!("that needs root: run `{}` as root", manager.words(package));
    }
    let command = |args: &[&str]| {
        let mut command = Command::new(if root { manager.program } else { "sudo" });
        if !root {
            command.args(["-n", manager.program]);
        }
        command.args(args);
        command
    };
    if !manager.refresh.is_empty() {
        run(&mut command(manager.refresh), INSTALL)?;
    }
    run(command(manager.install).arg(package), INSTALL)
}
