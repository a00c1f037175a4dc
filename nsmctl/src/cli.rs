//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::labels;

/// Shows, explains and changes what the agent of this node knows.
#[derive(Debug, Parser)]
#[command(name = "nsmctl", version)]
pub(crate) struct Cli {
    /// The agent's private socket.
    #[arg(long, global = true, env = "NSM_CNI_SOCKET", default_value = "/run/nsm/cni.sock", value_name = "PATH")]
    pub(crate) cni_socket: PathBuf,

    /// How long to wait for the agent; of attach and detach, for each call of the API server, and with --wait for the agent to follow.
    #[arg(long, global = true, default_value_t = 10, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or replace network services and endpoints from the YAML documents that kubectl takes.
    Apply(Apply),
    /// List objects, or show one.
    Get(Get),
    /// Tell all about an object; for a network service, which endpoints a client would get, and why not the others.
    Describe(Describe),
    /// Remove objects. Deleting a connection closes it.
    Delete(Delete),
    /// What attaching a pod would do, without doing it.
    Plan(Plan),
    /// Give a running pod network services: edits its annotation; the agent of its node follows.
    Attach(Attach),
    /// Take network services from a running pod: edits its annotations; the agent of its node follows.
    Detach(Detach),
    /// Look for what would keep the agent from working; also when it does not run.
    Check(Check),
    /// Put this node back as it was before the agent was installed; the agent must have ended.
    Uninstall(Uninstall),
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    /// A file with documents; - for standard input.
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) file: Vec<PathBuf>,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Get {
    /// networkservice (netsvc), networkserviceendpoint (nse) or connection.
    pub(crate) kind: String,
    /// Only these; all without. Also KIND/NAME in one word.
    pub(crate) names: Vec<String>,
    /// How to write.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    /// Go on with every change.
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// Leave the headings out.
    #[arg(long)]
    pub(crate) no_headers: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// The columns that matter most.
    Table,
    /// All columns.
    Wide,
    /// As kubectl writes it.
    Json,
    /// As kubectl takes it.
    Yaml,
    /// Kind and name only.
    Name,
}

#[derive(Debug, Args)]
pub(crate) struct Describe {
    /// networkservice (netsvc), networkserviceendpoint (nse) or connection.
    pub(crate) kind: String,
    /// Its name; the id of a connection. Also KIND/NAME in one word.
    pub(crate) name: Option<String>,
    /// Labels of a client, e.g. app=firewall,zone=a.
    #[arg(short, long, value_parser = labels::pair, value_delimiter = ',', value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// How to write.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// networkservice (netsvc), networkserviceendpoint (nse) or connection.
    pub(crate) kind: Option<String>,
    /// What to delete. Also KIND/NAME in one word each, as get -o name writes them.
    pub(crate) names: Vec<String>,
    /// Delete what these documents name; - for standard input.
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with_all = ["kind", "names"])]
    pub(crate) file: Vec<PathBuf>,
    /// What is not there counts as deleted.
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// The network service.
    pub(crate) service: String,
    /// The client's labels.
    #[arg(short, long, value_parser = labels::pair, value_delimiter = ',', value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<(String, String)>,
    /// The pod's network namespace, e.g. /run/netns/pod.
    #[arg(long, default_value = "", value_name = "PATH")]
    pub(crate) netns: String,
    /// The interface that the pod would get.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) ifname: String,
    /// The mechanism.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub(crate) mechanism: String,
    /// How to write.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    // As far as the agent cannot be asked.
    #[command(flatten)]
    pub(crate) paths: Paths,
    /// The installed plugin, which is asked for its version.
    #[arg(long, env = "NSM_CNI_PLUGIN", default_value = "/opt/cni/bin/nsm-cni", value_name = "PATH")]
    pub(crate) cni_plugin: PathBuf,
    /// Tell instead what would change when this node moves from Multus.
    #[arg(long)]
    pub(crate) moving: bool,
    /// With --moving: what `kubectl get network-attachment-definitions -A -o json` says.
    #[arg(long, value_name = "FILE", requires = "moving")]
    pub(crate) definitions: Option<PathBuf>,
    /// With --definitions: what `kubectl get pods -A -o json` says.
    #[arg(long, value_name = "FILE", requires = "definitions")]
    pub(crate) pods: Option<PathBuf>,
    /// With --moving: the configuration of Multus's daemon, which a ConfigMap has.
    #[arg(long, value_name = "FILE", requires = "moving")]
    pub(crate) daemon_config: Option<PathBuf>,
    /// How to write.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
}

/// Where the agent and the runtime have their files.
#[derive(Debug, Args)]
pub(crate) struct Paths {
    /// The agent's state directory.
    #[arg(long, env = "NSM_STATE_DIR", default_value = "/var/lib/nsm", value_name = "DIR")]
    pub(crate) state_dir: PathBuf,
    /// The agent's per-boot directory.
    #[arg(long, env = "NSM_RUN_DIR", default_value = "/run/nsm/state", value_name = "DIR")]
    pub(crate) run_dir: PathBuf,
    /// The socket of clients and endpoints.
    #[arg(
        long,
        env = "NSM_NSM_SOCKET",
        default_value = "/var/lib/networkservicemesh/nsm.io.sock",
        value_name = "PATH"
    )]
    pub(crate) nsm_socket: PathBuf,
    /// The runtime's configuration directory.
    #[arg(long, env = "NSM_INSTALL_CNI_CONF", default_value = "/etc/cni/net.d", value_name = "DIR")]
    pub(crate) cni_conf_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Attach {
    #[command(flatten)]
    pub(crate) on: OnPod,
    /// Network services, e.g. kernel://firewall/nsm-1?app=x; kernel://, interface and labels may be left out.
    #[arg(required = true, value_name = "SERVICE-URL")]
    pub(crate) services: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Detach {
    #[command(flatten)]
    pub(crate) on: OnPod,
    /// What to take away: a network service, an interface of the pod, or an entry as the annotation has it.
    #[arg(required = true, value_name = "SERVICE-OR-INTERFACE")]
    pub(crate) names: Vec<String>,
}

/// A pod, and the way to it.
#[derive(Debug, Args)]
pub(crate) struct OnPod {
    /// The pod.
    pub(crate) pod: String,
    /// Its namespace. Default: the context's.
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Whom to ask as whom. Default: as kubectl does it, KUBECONFIG, ~/.kube/config, or the account of the pod that this runs in.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: its current one.
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Wait until the agent has followed, for the time of --timeout, and show the pod's network services.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[derive(Debug, Args)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    pub(crate) paths: Paths,
    /// The runtime's plugin directory.
    #[arg(long, env = "NSM_INSTALL_PLUGIN", default_value = "/opt/cni/bin", value_name = "DIR")]
    pub(crate) cni_plugin_dir: PathBuf,
    /// Where the runtime remembers what it has started.
    #[arg(long, default_value = "/var/lib/cni", value_name = "DIR")]
    pub(crate) cni_cache: PathBuf,
    /// Go on although pods hold connections.
    #[arg(long)]
    pub(crate) yes: bool,
    /// Only say what would be removed.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Remove the plugin although containers were started with it: right with containerd.
    #[arg(long)]
    pub(crate) remove_plugin: bool,
    /// Stay when it is done, until ended: for a DaemonSet.
    #[arg(long)]
    pub(crate) stay: bool,
}
