//! `demo`: the first example, live.

use std::process::Command;
use std::time::Duration;

use anyhow::bail;

use crate::place::{cargo, target};
use crate::run::{run, stay};

/// Packages and their programs that the demo starts, itself among them.
const STARTED: [(&str, &str); 5] = [
    ("nsm-cni", "nsm-cni"),
    ("nsm-agent", "nsm-agent"),
    ("nsmctl", "nsmctl"),
    ("icmp-responder", "icmp-responder"),
    ("nsm-lab", "nsm-demo"),
];
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
    eprintln!("Building what the demo starts (release): this takes some minutes the first time, seconds from then on");
    let mut build = cargo(&["build", "--release"]);
    for (package, program) in STARTED {
        build.args(["-p", package, "--bin", program]);
    }
    run(&mut build, BUILD)?;
    let mut command = Command::new(target().join("release/nsm-demo"));
    if keep {
        stay(command.arg("--keep"), KEPT)?;
    } else {
        run(&mut command, SHOW)?;
    }
    Ok(true)
}
