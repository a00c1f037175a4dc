//! The table of suites: what `test` runs, in this order.

use std::process::Command;
use std::time::Duration;

use crate::place::{cargo, root, target, tools};
use crate::tools::Tool;

/// One suite.
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Suites that run before it also when only this one is asked for.
    pub(crate) after: &'static [&'static str],
    pub(crate) needs: &'static [Tool],
    pub(crate) bound: Duration,
    pub(crate) counts: Counts,
    pub(crate) command: fn() -> Command,
}

/// How many tests a suite counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counts {
    /// One: it succeeds or fails as a whole.
    Whole,
    /// The sum of its `test result:` lines and of its `N passed, N failed, N skipped` lines.
    Printed,
}

/// What `lint` runs too.
pub(crate) const LINTS: &[Suite] = &[
    Suite {
        name: "format",
        after: &[],
        needs: &[Tool::Rustfmt],
        bound: Duration::from_mins(5),
        counts: Counts::Whole,
        command: || cargo(&["fmt", "--all", "--check"]),
    },
    Suite {
        name: "clippy",
        after: &[],
        needs: &[Tool::Clippy],
        bound: Duration::from_hours(1),
        counts: Counts::Whole,
        command: || cargo(&["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
    },
    Suite {
        name: "docs",
        after: &[],
        needs: &[],
        bound: Duration::from_hours(1),
        counts: Counts::Whole,
        command: || {
            let mut command = cargo(&["doc", "--workspace", "--no-deps", "--features", "memif/tokio"]);
            command.env("RUSTDOCFLAGS", "-D warnings");
            command
        },
    },
    Suite {
        name: "deny",
        after: &[],
        needs: &[Tool::CargoDeny],
        bound: Duration::from_mins(10),
        counts: Counts::Whole,
        command: deny,
    },
];

/// What runs the product. `build` comes first: the labs start real programs.
pub(crate) const TESTS: &[Suite] = &[
    Suite {
        name: "build",
        after: &[],
        needs: &[],
        bound: Duration::from_hours(1),
        counts: Counts::Whole,
        command: || cargo(&["build", "--workspace", "--all-targets"]),
    },
    Suite {
        name: "unit",
        after: &[],
        needs: &[],
        bound: Duration::from_hours(1),
        counts: Counts::Printed,
        command: || {
            cargo(&[
                "test",
                "--workspace",
                "--exclude",
                "nsm-lab",
                "--exclude",
                "nsm-peers",
                "--exclude",
                "nsm-kube",
                "--exclude",
                "nsm-memif-peers",
                "--features",
                "memif/tokio",
                "--all-targets",
                "--no-fail-fast",
            ])
        },
    },
    Suite {
        name: "doctests",
        after: &[],
        needs: &[],
        bound: Duration::from_mins(30),
        counts: Counts::Printed,
        command: || cargo(&["test", "--workspace", "--doc", "--no-fail-fast"]),
    },
    Suite {
        name: "lab",
        after: &["build"],
        needs: &[Tool::Go, Tool::ReferencePlugins, Tool::Multus, Tool::Nftables, Tool::Strace],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "nsm-lab", "--test", "lab", "--test", "e2e", "--no-fail-fast"]),
    },
    Suite {
        name: "faults",
        after: &["build"],
        needs: &[],
        bound: Duration::from_mins(30),
        counts: Counts::Printed,
        command: || cargo(&["test", "-p", "nsm-lab", "--test", "faults"]),
    },
    Suite {
        name: "cnitool",
        after: &["build"],
        needs: &[Tool::Go, Tool::Cnitool],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "nsm-lab", "--test", "cnitool"]),
    },
    Suite {
        name: "go-peers",
        after: &["build"],
        needs: &[Tool::Go],
        bound: Duration::from_mins(40),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "nsm-peers", "--test", "peers"]),
    },
    Suite {
        name: "memif",
        after: &[],
        needs: &[Tool::Dpdk],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: memif,
    },
    Suite {
        name: "memif-model",
        after: &[],
        needs: &[],
        bound: Duration::from_mins(30),
        counts: Counts::Printed,
        command: memif_model,
    },
    Suite {
        name: "memif-miri",
        after: &[],
        needs: &[Tool::Miri],
        bound: Duration::from_mins(30),
        counts: Counts::Printed,
        command: memif_miri,
    },
    Suite {
        name: "kubernetes",
        after: &["build"],
        needs: &[Tool::Go, Tool::Etcd, Tool::KubeApiserver],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "nsm-kube", "--test", "kube"]),
    },
    Suite {
        name: "helm",
        after: &[],
        needs: &[Tool::Go, Tool::Helm],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "nsm-manifests", "--test", "helm", "--features", "helm"]),
    },
    Suite {
        name: "vpp-papi",
        after: &[],
        needs: &[Tool::Pip, Tool::VppPapi],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "vpp-api-client", "--test", "papi", "--features", "papi"]),
    },
    Suite {
        name: "vpp",
        after: &[],
        needs: &[Tool::Vpp],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: vpp,
    },
    Suite {
        name: "image",
        after: &[],
        needs: &[],
        bound: Duration::from_mins(40),
        counts: Counts::Whole,
        command: || cargo(&["xtask", "image", "--quick"]),
    },
    Suite {
        name: "kubelet",
        after: &["build", "image"],
        needs: &[
            Tool::Go,
            Tool::Etcd,
            Tool::KubeApiserver,
            Tool::KubeNode,
            Tool::Helm,
            Tool::Cnitool,
            Tool::Containerd,
            Tool::Containerd2,
            Tool::Multus,
            Tool::Busybox,
            Tool::ReferencePlugins,
        ],
        bound: Duration::from_mins(20),
        counts: Counts::Printed,
        command: || with_tools(&["test", "-p", "nsm-kube", "--test", "kubelet"]),
    },
    Suite {
        name: "bench-smoke",
        after: &["build"],
        needs: &[Tool::Go, Tool::ReferencePlugins],
        bound: Duration::from_hours(1),
        counts: Counts::Whole,
        command: || with_tools(&["run", "-p", "nsm-bench", "--", "--smoke"]),
    },
    Suite {
        name: "memif-smoke",
        after: &["build"],
        needs: &[],
        bound: Duration::from_mins(10),
        counts: Counts::Whole,
        command: memif_smoke,
    },
];

fn deny() -> Command {
    let ours = tools().join("cargo-deny");
    let mut command = Command::new(if ours.is_file() { ours } else { "cargo-deny".into() });
    // Advisories come from a git host, which a CI with registries alone cannot reach: `cargo deny check advisories` by hand.
    command.args(["--workspace", "check", "licenses", "bans", "sources"]).current_dir(root());
    command
}

/// memif against DPDK's.
fn memif() -> Command {
    cargo(&["test", "-p", "nsm-memif-peers", "--test", "dpdk", "--no-fail-fast", "--", "--test-threads", "1"])
}

/// The benchmark of shared-memory interfaces, without DPDK.
fn memif_smoke() -> Command {
    let mut command =
        cargo(&["run", "-p", "nsm-memif-peers", "--bin", "nsm-memif-bench", "--", "--smoke", "--memif-gen"]);
    command.arg(target().join("debug/memif-gen"));
    command
}

/// The API and memif against a VPP.
fn vpp() -> Command {
    let both = ["test", "-p", "vpp-api-client", "-p", "nsm-memif-peers", "--features", "vpp-api-client/vpp"];
    cargo(&[&both[..], &["--test", "vpp", "--no-fail-fast"]].concat())
}

/// The ring under a model checker. Its flag is for that build alone, so it has a directory of its own.
fn memif_model() -> Command {
    let mut command = cargo(&["test", "-p", "memif", "--release", "--test", "loom"]);
    command.env("RUSTFLAGS", "--cfg memif_loom").env("CARGO_TARGET_DIR", target().join("memif-model"));
    command
}

/// What of memif asks nothing of the kernel, under Miri: it parses what peers say, and touches memory that they write to.
fn memif_miri() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "miri", "test", "-p", "memif", "--lib", "--"]);
    command.args(["address", "control", "frame", "handshake", "index", "layout", "settings", "spin", "sys", "text"]);
    // Proptest asks where it is. Miri's emulation of weak memory fails where words are written over bytes; orders are the model checker's.
    command.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-disable-weak-memory-emulation");
    command.env("PROPTEST_CASES", "4").current_dir(root());
    command.env("CARGO_TARGET_DIR", target().join("memif-miri"));
    command
}

/// cargo, with the tools where the tests find them.
fn with_tools(args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.env("NSM_LAB_TOOLS", tools());
    command
}
