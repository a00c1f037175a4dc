//! Settings: flags win over environment over `--config` file, and every mistake is reported at once.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{CommandFactory, FromArgMatches, Parser, ValueEnum};
use nsm_cni_types::chained;
use nsm_netlink::IpNetwork;

use crate::{install, registry::ServiceAccess};

/// The node's Network Service Mesh agent: manager, kernel forwarder and CNI server in one process.
#[derive(Debug, Clone, Parser)]
#[command(name = "nsm-agent", version = crate::VERSION, about, max_term_width = 100)]
pub struct Settings {
    /// Settings in a YAML file with the same keys as these flags, e.g. `cni-socket: /run/nsm/cni.sock`.
    #[arg(long, env = "NSM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Socket of the CNI plugin and of nsmctl. Root only.
    #[arg(long, env = "NSM_CNI_SOCKET", value_name = "PATH", default_value = "/run/nsm/cni.sock")]
    pub cni_socket: PathBuf,

    /// Socket where clients and endpoints of this node speak NSM v1.
    #[arg(
        long,
        env = "NSM_NSM_SOCKET",
        value_name = "PATH",
        default_value = "/var/lib/networkservicemesh/nsm.io.sock"
    )]
    pub nsm_socket: PathBuf,

    /// Who may connect to the NSM socket, as an octal mode. Endpoints that do not run as root need more than the default.
    #[arg(long, env = "NSM_NSM_SOCKET_MODE", value_name = "MODE", default_value = "0660", value_parser = octal_mode)]
    pub nsm_socket_mode: u32,

    /// User id that owns the NSM socket. Default: the agent's.
    #[arg(long, env = "NSM_NSM_SOCKET_OWNER", value_name = "UID")]
    pub nsm_socket_owner: Option<u32>,

    /// Group id of the NSM socket. Default: the agent's.
    #[arg(long, env = "NSM_NSM_SOCKET_GROUP", value_name = "GID")]
    pub nsm_socket_group: Option<u32>,

    /// Durable state: the embedded registry.
    #[arg(long, env = "NSM_STATE_DIR", value_name = "DIR", default_value = "/var/lib/nsm")]
    pub state_dir: PathBuf,

    /// State that ends with a reboot: attachments and connections.
    #[arg(long, env = "NSM_RUN_DIR", value_name = "DIR", default_value = "/run/nsm/state")]
    pub run_dir: PathBuf,

    /// Where network services and endpoints are found.
    #[arg(long, env = "NSM_REGISTRY", value_name = "KIND", default_value = "embedded")]
    pub registry: RegistryKind,

    /// Who may use and serve a network service that does not name namespaces itself.
    #[arg(long, env = "NSM_SERVICE_ACCESS", value_name = "WHO", default_value = "any-namespace")]
    pub service_access: ServiceAccess,

    /// Prefixes that no network service gives addresses of, beside those of the cluster.
    #[arg(long, env = "NSM_EXCLUDED_PREFIX", value_name = "CIDR", value_delimiter = ',')]
    pub excluded_prefix: Vec<IpNetwork>,

    /// Whom to ask for `--registry kubernetes`. Default: the cluster that the agent is a pod of.
    #[arg(long, env = "NSM_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Namespace of the agents' leases and of objects that belong to no pod. Default: the agent's pod's, or the kubeconfig's.
    #[arg(long, env = "NSM_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,

    /// How long this node's endpoints outlive the agent's last sign of life, in seconds; the same for all agents.
    #[arg(long, env = "NSM_LEASE_SECONDS", value_name = "SECONDS", default_value_t = 40,
          value_parser = clap::value_parser!(u64).range(4..=3600))]
    pub lease_seconds: u64,

    /// This node's name: a label of its clients and the agent's name on paths. Default: the host name.
    #[arg(long, env = "NSM_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,

    /// The cluster's name: label clusterName of its clients. Not set: no such label.
    #[arg(long, env = "NSM_CLUSTER_NAME", value_name = "NAME")]
    pub cluster_name: Option<String>,

    /// Where the kernel's settings can be written. In a container its own /proc/sys is read-only: name another mount of the host's.
    #[arg(long, env = "NSM_PROC_SYS", value_name = "DIR", default_value = "/proc/sys")]
    pub proc_sys: PathBuf,

    /// Where the kubelet tells which devices it has given a pod, for networks that need one.
    #[arg(long, env = "NSM_POD_RESOURCES", value_name = "PATH", default_value = crate::networks::SOCKET)]
    pub pod_resources: PathBuf,

    /// The host's mount namespace, where this process has its own, for networks of running pods: the host's nsm-cni is called there.
    #[arg(long, env = "NSM_HOST_MOUNT_NAMESPACE", value_name = "FILE")]
    pub host_mount_namespace: Option<PathBuf>,

    /// Install nsm-cni in this directory: the one where the runtime looks for plugins. Off unless set.
    #[arg(long, env = "NSM_INSTALL_PLUGIN", value_name = "DIR")]
    pub install_plugin: Option<PathBuf>,

    /// The nsm-cni that is installed. Default: the one beside nsm-agent.
    #[arg(long, env = "NSM_INSTALL_PLUGIN_FROM", value_name = "FILE")]
    pub install_plugin_from: Option<PathBuf>,

    /// Chain nsm-cni after the first network of this directory: the one where the runtime looks for configurations. Off unless set.
    #[arg(long, env = "NSM_INSTALL_CNI_CONF", value_name = "DIR")]
    pub install_cni_conf: Option<PathBuf>,

    /// What the written configuration tells nsm-cni: how long an ADD waits for an agent that is not there, in seconds.
    #[arg(long, env = "NSM_INSTALL_AGENT_WAIT_SECONDS", value_name = "SECONDS", default_value_t = 10,
          value_parser = clap::value_parser!(u64).range(0..=60))]
    pub install_agent_wait_seconds: u64,

    /// Serve /metrics, /healthz and /readyz over HTTP. Off unless set.
    #[arg(long, env = "NSM_METRICS", value_name = "IP:PORT")]
    pub metrics: Option<SocketAddr>,

    /// Longest life of a token that this agent issues, and so of a connection that nobody refreshes, in seconds.
    #[arg(long, env = "NSM_MAX_TOKEN_LIFETIME_SECONDS", value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(2..=86_400))]
    pub max_token_lifetime_seconds: u64,

    /// Longest wait for connections to be handed over at shutdown, in seconds.
    #[arg(long, env = "NSM_SHUTDOWN_SECONDS", value_name = "SECONDS", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(0..=120))]
    pub shutdown_seconds: u64,

    /// What to log: a level, or directives such as `info,nsm_agent=debug`.
    #[arg(long, env = "NSM_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub log_level: String,

    /// How to log.
    #[arg(long, env = "NSM_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Prints the names that NSM_FAILPOINT takes.
    #[arg(long, hide = true)]
    pub list_failpoints: bool,
}

/// Registry backends of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RegistryKind {
    /// In this agent, durable in the state directory.
    Embedded,
    /// Objects of a Kubernetes cluster.
    Kubernetes,
}

impl RegistryKind {
    /// As the setting calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Shape of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wrong with the settings, one line each.
#[derive(Debug, thiserror::Error)]
pub struct Mistakes(Vec<String>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.join("\n"))
    }
}

/// Settings cannot be had: wrong ones, or clap has something to print (`--help`, `--version`, a wrong flag).
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What clap says, with its own exit code.
    #[error(transparent)]
    Flags(#[from] clap::Error),
    /// What the file or the combination gets wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Settings {
    /// Reads flags, environment and, when one is named, the file.
    pub fn read(args: impl IntoIterator<Item = impl Into<OsString> + Clone> + Clone) -> Result<Self, Error> {
        let first = Self::command().ignore_errors(true).try_get_matches_from(args.clone())?;
        let file = first.get_one::<PathBuf>("config").cloned();
        let defaults = match &file {
            Some(path) => read_file(path)?,
            None => BTreeMap::new(),
        };
        let mut command = Self::command();
        for (key, value) in defaults {
            // clap wants defaults that live as long as the command, which is the process.
            let value: &'static str = value.leak();
            command = command.mut_arg(key.replace('-', "_"), |arg| arg.default_value(value));
        }
        let settings = Self::from_arg_matches(&command.try_get_matches_from(args)?)?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), Mistakes> {
        let mut mistakes = Vec::new();
        for (key, path) in [
            ("cni-socket", &self.cni_socket),
            ("nsm-socket", &self.nsm_socket),
            ("state-dir", &self.state_dir),
            ("run-dir", &self.run_dir),
            ("proc-sys", &self.proc_sys),
        ] {
            if !path.is_absolute() {
                mistakes.push(format!("{key} is {}: expected an absolute path", path.display()));
            }
        }
        for (key, path) in [
            ("install-plugin", &self.install_plugin),
            ("install-plugin-from", &self.install_plugin_from),
            ("install-cni-conf", &self.install_cni_conf),
        ] {
            if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
                mistakes.push(format!("{key} is {}: expected an absolute path", path.display()));
            }
        }
        if self.cni_socket == self.nsm_socket {
            mistakes.push(format!(
                "cni-socket and nsm-socket are both {}: expected two sockets, the first for root only",
                self.cni_socket.display()
            ));
        }
        // sun_path has 108 bytes with its end; the socket is made under a temporary name beside its own.
        for (key, path) in [("cni-socket", &self.cni_socket), ("nsm-socket", &self.nsm_socket)] {
            if path.as_os_str().len() > 100 {
                mistakes
                    .push(format!("{key} is {} bytes long: a unix socket's path may have 100", path.as_os_str().len()));
            }
        }
        if let Some(name) = &self.node_name
            && (name.is_empty() || name.len() > 253)
        {
            mistakes.push(format!("node-name is {name:?}: expected 1 to 253 bytes"));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }

    /// What is to be installed on the node.
    pub fn install(&self) -> install::Settings {
        let beside = || {
            let agent = std::env::current_exe().unwrap_or_default();
            agent.with_file_name(chained::TYPE)
        };
        let from = |dir| (dir, self.install_plugin_from.clone().unwrap_or_else(beside));
        install::Settings {
            plugin: self.install_plugin.clone().map(from),
            conf_dir: self.install_cni_conf.clone(),
            entry: chained::Entry {
                cni_socket: self.cni_socket.to_string_lossy().into_owned(),
                agent_wait_seconds: self.install_agent_wait_seconds,
            },
        }
    }

    /// The node's name: as set, else the host's.
    pub fn node_name(&self) -> String {
        self.node_name.clone().unwrap_or_else(|| {
            nix::unistd::gethostname()
                .ok()
                .and_then(|name| name.into_string().ok())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "localhost".into())
        })
    }
}

/// The file's keys and values as flags take them.
fn read_file(path: &Path) -> Result<BTreeMap<String, String>, Mistakes> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Mistakes(vec![format!("--config {}: {error}", path.display())]))?;
    let values: BTreeMap<String, serde_json::Value> = serde_saphyr::from_str(&text).map_err(|error| {
        Mistakes(vec![format!("--config {}: expected `key: value` lines: {error}", path.display())])
    })?;
    let known: Vec<String> = Settings::command()
        .get_arguments()
        .filter(|arg| !arg.is_hide_set())
        .filter_map(|arg| arg.get_long().map(str::to_owned))
        .filter(|long| !["config", "help", "version"].contains(&long.as_str()))
        .collect();
    let mut settings = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (key, value) in values {
        if !known.contains(&key) {
            mistakes.push(format!("{}: unknown key {key:?}: expected one of {}", path.display(), known.join(", ")));
            continue;
        }
        match value {
            serde_json::Value::String(text) => drop(settings.insert(key, text)),
            serde_json::Value::Number(number) => drop(settings.insert(key, number.to_string())),
            other => mistakes.push(format!("{}: {key} is {other}: expected a text or a number", path.display())),
        }
    }
    if mistakes.is_empty() { Ok(settings) } else { Err(Mistakes(mistakes)) }
}

fn octal_mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("expected an octal mode of at most 0777, e.g. 0660".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, text).unwrap();
        file
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = file("node-name: from-file\nrun-dir: /run/file\nshutdown-seconds: 7\n");
        let path = file.path().to_str().unwrap();
        let settings = Settings::read(["nsm-agent", "--config", path, "--run-dir", "/run/flag"]).unwrap();
        assert_eq!(settings.node_name(), "from-file");
        assert_eq!(settings.run_dir, Path::new("/run/flag"));
        assert_eq!(settings.shutdown_seconds, 7);
        assert_eq!(settings.state_dir, Path::new("/var/lib/nsm"));
    }

    #[test]
    fn every_mistake_of_a_file_is_named_at_once() {
        let file = file("nodename: x\nrun-dir: [1]\n");
        let error = Settings::read(["nsm-agent", "--config", file.path().to_str().unwrap()]).unwrap_err().to_string();
        assert!(error.contains("unknown key \"nodename\"") && error.contains("run-dir is [1]"), "{error}");
    }

    #[test]
    fn paths_are_absolute_and_sockets_differ() {
        let error = Settings::read(["nsm-agent", "--cni-socket", "a", "--nsm-socket", "a"]).unwrap_err().to_string();
        assert!(error.contains("cni-socket is a: expected an absolute path"), "{error}");
        assert!(error.contains("expected two sockets"), "{error}");
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal_mode("0666"), Ok(0o666));
        assert!(octal_mode("8").is_err() && octal_mode("1777").is_err());
    }
}
