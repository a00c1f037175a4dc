//! `demo`: the first example, live.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::place::{cargo, target};
use crate::run::run;

const BUILD: Duration = Duration::from_hours(1);
const SHOW: Duration = Duration::from_mins(2);
/// `--keep` ends when it is told to.
const KEPT: Duration = Duration::from_hours(365 * 24);

pub(crate) fn demo(args: &[String]) -> anyhow::Result<bool> {
    let keep = match args {
        [] => false,
        [flag] if flag == "--keep" => true,
        _ => bail!("demo takes --keep or nothing"),
    };
    eprintln!("Building (release; minutes the first time, seconds from then on)");
    run(&mut cargo(&["build", "--release", "--workspace", "--bins"]), BUILD)?;
    let mut command = Command::new(target().join("release/nsm-demo"));
    if keep {
        command.arg("--keep");
    }
    run(&mut command, if keep { KEPT } else { SHOW })?;
    Ok(true)
}
