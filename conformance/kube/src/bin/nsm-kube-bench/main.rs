//! Figures of a cluster: what a network service adds to a pod's start, beside the same pods without us, interleaved in one run.
//!
//! Assumption: nothing else is at work on the machine.
#![forbid(unsafe_code)]

mod chain;
mod figures;
mod multus;
mod plugin;
mod ready;
mod running;
mod shipped;

use std::process::ExitCode;
use std::time::Duration;

use nsm_kube::{Mesh, Release, pods, scenarios};
use nsm_lab::binary;

const BOUND: Duration = Duration::from_mins(45);

fn main() -> ExitCode {
    let all = scenarios![
        chain::add_beside_the_first_network,
        multus::two_networks_beside_multus,
        running::edits_of_a_running_pod,
        ready::sixty_four_pods_at_once,
    ];
    scenarios::main(all, start, BOUND)
}

fn start(lab: &str) -> anyhow::Result<Mesh> {
    shipped::is_static(&binary("nsm-cni")?)?;
    let mut mesh = Mesh::start(lab)?;
    mesh.add(Release::Packaged)?;
    for file in ["deploy/crds.yaml", "deploy/rbac.yaml"] {
        mesh.kubectl(&["apply", "-f", &pods::file(file)?])?;
    }
    mesh.machine(0)?.import(&[pods::image()?])?;
    mesh.start_agent(0)?;
    mesh.machine(0)?.install()?;
    Ok(mesh)
}
