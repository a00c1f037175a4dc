//! `bench`: our figures beside other people's, in one run.

use std::process::Command;
use std::time::Duration;

use crate::place::{cargo, root, target, tools};
use crate::run::run;
use crate::{dist, tools as tool};

const BUILD: Duration = Duration::from_hours(1);
const MEASURE: Duration = Duration::from_hours(1);

pub(crate) fn bench(args: &[String]) -> anyhow::Result<bool> {
    run(&mut cargo(&["build", "--release", "--workspace", "--bins"]), BUILD)?;
    dist::plugin()?;
    tool::reference_plugins()?;
    run(&mut command(args), MEASURE)?;
    Ok(true)
}

/// The benchmark, with the tools where it finds them.
pub(crate) fn command(args: &[String]) -> Command {
    let mut command = Command::new(target().join("release/nsm-bench"));
    command.args(args).current_dir(root()).env("NSM_LAB_TOOLS", tools());
    command
}
