//! `bench`: our figures beside other people's, in one run; `bench kube`: those of a cluster; `bench memif`: those of
//! shared-memory interfaces.

use std::process::Command;
use std::time::Duration;

use crate::place::{cargo, root, target, tools};
use crate::run::run;
use crate::tools::{self as tool, Tool};
use crate::{dist, image};

const BUILD: Duration = Duration::from_hours(1);
const MEASURE: Duration = Duration::from_hours(1);

/// What a cluster is made of.
const CLUSTER: [Tool; 8] = [
    Tool::Go,
    Tool::Etcd,
    Tool::KubeApiserver,
    Tool::KubeNode,
    Tool::Containerd,
    Tool::Busybox,
    Tool::ReferencePlugins,
    Tool::Multus,
];

pub(crate) fn bench(args: &[String]) -> anyhow::Result<bool> {
    if let Some(("memif", rest)) = args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return memif(rest);
    }
    let kube = args.split_first().filter(|(first, _)| *first == "kube").map(|(_, rest)| rest);
    if kube.is_some() {
        image::image(&["--arch".to_owned(), image::own()?.to_owned()])?;
    }
    run(&mut cargo(&["build", "--release", "--workspace", "--bins"]), BUILD)?;
    dist::plugin()?;
    if let Some(scenarios) = kube {
        CLUSTER.iter().try_for_each(|tool| tool::provide(*tool, true)).map_err(|why| anyhow::anyhow!(why))?;
        run(&mut measurement("nsm-kube-bench", scenarios), MEASURE)?;
        return Ok(true);
    }
    tool::reference_plugins()?;
    run(&mut command(args), MEASURE)?;
    Ok(true)
}

/// Shared-memory interfaces beside DPDK's, which is needed for rates alone.
fn memif(args: &[String]) -> anyhow::Result<bool> {
    let only = args.iter().skip_while(|arg| *arg != "--only").nth(1);
    if only.is_none_or(|only| only.contains("rates")) {
        tool::provide(Tool::Dpdk, true).map_err(|why| anyhow::anyhow!(why))?;
    }
    run(&mut cargo(&["build", "--release", "-p", "memif-programs", "-p", "nsm-memif-peers"]), BUILD)?;
    let mut command = measurement("nsm-memif-bench", args);
    command.arg("--memif-gen").arg(target().join("release/memif-gen"));
    run(&mut command, MEASURE)?;
    Ok(true)
}

/// The benchmark, with the tools where it finds them.
pub(crate) fn command(args: &[String]) -> Command {
    measurement("nsm-bench", args)
}

fn measurement(program: &str, args: &[String]) -> Command {
    let mut command = Command::new(target().join("release").join(program));
    command.args(args).current_dir(root()).env("NSM_LAB_TOOLS", tools());
    command
}
