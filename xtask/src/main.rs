//! `cargo xtask VERB`: a file per verb.
#![forbid(unsafe_code)]

mod bench;
mod cross;
mod demo;
mod deploy;
mod dist;
mod image;
mod lint;
mod place;
mod run;
mod suites;
mod test;
mod tools;

use std::process::ExitCode;

const USAGE: &str = "\
cargo xtask VERB

  demo [--keep]               builds, then shows one service, two endpoints and four pods, in namespaces of its own;
                              --keep leaves them standing until it is ended
  test [--no-install] [SUITE…]  every check and test, or the suites called SUITE or with that in their names; installs what is missing
                              with the system's package manager, or with --no-install only says what that is
  test --list                 the suites
  lint                        format, clippy, documentation, licences and dependencies
  bench [ARGUMENT…]           release binaries, then conformance/bench with these arguments
  bench memif [--rounds N] [--only rates,waking,idle]  shared-memory interfaces beside DPDK's and an eventfd, with verdicts
  bench kube [NAME…]          the shipped programs and their image, then the figures of a cluster whose names contain NAME
  crds                        writes deploy/crds.yaml from the Rust types of crates/nsm-crds
  manifests                   writes deploy/nsm.yaml and the chart's copies of what is in deploy/
  dist                        the shipped binaries, in the target directory's release/
  image [--arch ARCH]… [--quick]  the OCI image archive nsm-image.tar in the target directory, without a container engine, of amd64 and
                              arm64 or of those named; --quick: unoptimised, of this machine's architecture only
";

fn main() -> ExitCode {
    run::pass_signals_on();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (verb, rest) = args.split_first().map_or(("help", &[][..]), |(verb, rest)| (verb.as_str(), rest));
    let result = match verb {
        "demo" => demo::demo(rest),
        "test" => test::test(rest),
        "lint" => Ok(lint::lint()),
        "bench" => bench::bench(rest),
        "crds" => deploy::crds(),
        "manifests" => deploy::manifests(),
        "dist" => dist::dist(),
        "image" => image::image(rest),
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(true)
        }
        other => Err(anyhow::anyhow!("unknown verb {other}\n\n{USAGE}")),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
