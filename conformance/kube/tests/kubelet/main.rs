//! Pods as a real kubelet and containerd start them.

mod plain;

use std::process::ExitCode;
use std::time::Duration;

use nsm_kube::{Mesh, Release, scenarios};

/// For all scenarios together.
const BOUND: Duration = Duration::from_mins(15);

fn main() -> ExitCode {
    let all = scenarios![
        plain::pods_of_the_first_network_reach_each_other,
        plain::pods_of_two_machines_reach_each_other,
        plain::a_static_pod_and_restarts,
    ];
    scenarios::main(all, start, BOUND)
}

fn start(lab: &str) -> anyhow::Result<Mesh> {
    let mut mesh = Mesh::start(lab)?;
    mesh.add(Release::Packaged)?;
    mesh.add(Release::newer()?)?;
    Ok(mesh)
}
