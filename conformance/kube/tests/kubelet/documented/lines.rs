//! Which command lines of the documents are typed in by which scenario, and what is of the others. Without code: the test of the documents
//! reads it too, and fails for a line that is not here.

/// Document, section and the scenario that types in the section's lines, all but those of [`OTHERS`].
pub(crate) const TYPED: [(&str, &str, &str); 15] = [
    ("README.md", "Install", "without_a_cluster"),
    ("README.md", "An endpoint", "without_a_cluster"),
    ("README.md", "A pod, with cnitool", "without_a_cluster"),
    ("README.md", "Which endpoint?", "without_a_cluster"),
    ("docs/examples.md", "nsc", "without_a_cluster"),
    ("docs/nsmctl.md", "Attach and detach", "on_pods_and_nodes"),
    ("docs/moving-from-multus.md", "Before", "on_pods_and_nodes"),
    ("docs/troubleshooting.md", "Look around", "on_pods_and_nodes"),
    ("docs/install.md", "Install", "installed_upgraded_uninstalled"),
    ("docs/install.md", "With Helm", "installed_upgraded_uninstalled"),
    ("docs/install.md", "An example", "installed_upgraded_uninstalled"),
    ("docs/install.md", "Upgrade", "installed_upgraded_uninstalled"),
    ("docs/install.md", "Uninstall", "installed_upgraded_uninstalled"),
    ("docs/kubernetes.md", "Set up", "by_hand_and_by_the_readme"),
    ("README.md", "In a cluster", "by_hand_and_by_the_readme"),
];

/// Why nobody types in a line.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Instead {
    /// That file, which has this text, does the same in other words; how it differs.
    Like(&'static str, &'static str, &'static str),
    /// It cannot be done where the tests run.
    Not(&'static str),
}
use Instead::{Like, Not};

const SUITES: &str = "xtask/src/suites.rs";
const IMAGE: &str = r#"cargo(&["xtask", "image", "--quick"])"#;
const INSTALL: &str = "conformance/kube/src/agent.rs";
const PLUGIN: &str = "pub fn install(&self)";
const MOVING: &str = "docs/moving-from-multus.md";
const MOVED: &str = "conformance/kube/tests/kubelet/moving.rs";
const LIVED: &str = "conformance/kube/tests/kubelet/moving/lived.rs";
const THICK: &str = "conformance/kube/tests/kubelet/moving/thick.rs";
const VPP: &str = "crates/vpp-api-client/README.md";
const VPP_TEST: &str = "crates/vpp-api-client/tests/program.rs";

/// Document and line.
pub(crate) const OTHERS: [(&str, &str, Instead); 35] = [
    (
        "README.md",
        "cargo xtask demo",
        Not("it builds everything in release mode first, for some minutes, to be watched"),
    ),
    ("README.md", "cargo xtask test", Like(".ci/run", "exec cargo xtask test", "it runs this")),
    ("README.md", "cargo xtask image", Like(SUITES, IMAGE, "the suite before this one, of unoptimised programs")),
    (
        "README.md",
        "cargo xtask dist",
        Not("an optimised build of some minutes; the tests run the same programs unoptimised"),
    ),
    (
        "README.md",
        "install -m 755 target/release/nsm-cni /opt/cni/bin/",
        Like(INSTALL, PLUGIN, "of the unoptimised one, on each machine"),
    ),
    (
        "README.md",
        "install -m 755 target/release/{nsm-agent,nsmctl,icmp-responder,nsc} /usr/local/bin/",
        Like("conformance/kube/src/documented.rs", "A shell that finds our programs", "the unoptimised ones, by PATH"),
    ),
    (
        "README.md",
        "install -m 644 deploy/nsm-agent.service /etc/systemd/system/",
        Like("tests/tests/e2e/unit.rs", "fn under_systemd", "in a systemd of the test's own"),
    ),
    (
        "README.md",
        "systemctl enable --now nsm-agent",
        Like("tests/tests/e2e/unit.rs", "fn under_systemd", "in a systemd of the test's own"),
    ),
    ("CONTRIBUTING.md", "cargo build", Like(SUITES, r#"cargo(&["build", "--workspace""#, "the first suite")),
    ("CONTRIBUTING.md", "cargo xtask test", Like(".ci/run", "exec cargo xtask test", "it runs this")),
    ("CONTRIBUTING.md", "cargo xtask lint", Like(SUITES, "pub(crate) const LINTS", "each of them is a suite")),
    (
        "CONTRIBUTING.md",
        "cargo xtask test --list",
        Like("nsm-agent/tests/docs/commands.rs", "fn suites_are_listed", "typed in"),
    ),
    ("CONTRIBUTING.md", "cargo xtask test faults", Like(SUITES, r#"name: "faults""#, "a suite, with the others")),
    (
        "CONTRIBUTING.md",
        "cargo +nightly fuzz run connection fuzz/corpus/connection fuzz/seeds/connection -- -max_total_time=600",
        Not("a nightly compiler; the suite `unit` runs the same target for a moment"),
    ),
    ("docs/install.md", "cargo xtask image", Like(SUITES, IMAGE, "the suite before this one, of unoptimised programs")),
    ("docs/install.md", "cargo xtask image --arch arm64", Not("a compiler and a C library of another processor")),
    (
        "docs/install.md",
        "cargo xtask image --arch amd64 --arch arm64",
        Not("a compiler and a C library of another processor"),
    ),
    (
        "docs/install.md",
        "ctr -n k8s.io images import nsm-image.tar",
        Like(
            "conformance/kube/src/runtime.rs",
            r#"["images", "import"]"#,
            "the containerd of a machine has a socket of its own",
        ),
    ),
    ("docs/install.md", "cp nsm-image.tar /var/lib/rancher/k3s/agent/images/", Not("K3s")),
    ("docs/install.md", "kind load image-archive target/nsm-image.tar", Not("kind, which takes a container engine")),
    (
        "docs/troubleshooting.md",
        "journalctl -u nsm-agent",
        Not("a systemd that has the agent; machines of the tests have none"),
    ),
    (
        MOVING,
        "cd /etc/cni/net.d && cp -p 00-multus.conf 00-multus-nsm.conf.new && mv 00-multus-nsm.conf.new 00-multus-nsm.conf",
        Like(THICK, "cp -p {THEIRS} {COPY}.new && mv {COPY}.new {COPY}", "the same"),
    ),
    (
        MOVING,
        "cp /opt/cni/bin/nsm-cni /opt/cni/bin/.multus && mv /opt/cni/bin/.multus /opt/cni/bin/multus",
        Like(MOVED, "cp {by} {BIN_DIR}/.{plugin} && mv {BIN_DIR}/.{plugin} {BIN_DIR}/{plugin}", "the same"),
    ),
    (MOVING, "kubectl label node NODE multus-", Like(THICK, r#""multus-"]"#, "the same")),
    (MOVING, "kubectl drain NODE --ignore-daemonsets", Like(LIVED, r#""drain", name"#, "its pods have no owner")),
    (MOVING, "kubectl taint node NODE moving=back:NoExecute", Like(LIVED, "moving=back:NoExecute", "the same")),
    (MOVING, "rm /etc/cni/net.d/00-multus-nsm.conf", Like(THICK, "unconfigure(COPY)", "the same")),
    (MOVING, "kubectl label node NODE multus=on", Like(THICK, r#""multus=on""#, "the same")),
    (MOVING, "kubectl taint node NODE moving-", Like(LIVED, r#"name, "moving-"]"#, "the same")),
    (MOVING, "kubectl uncordon NODE", Like(LIVED, r#""uncordon", name"#, "the same")),
    (VPP, "vpp-api call show_version", Like(VPP_TEST, r#""call", "show_version""#, "of a VPP of the test's")),
    (
        VPP,
        "vpp-api dump sw_interface_dump '{\"name_filter_valid\": true, \"name_filter\": \"memif\"}'",
        Like(VPP_TEST, r#""dump", "sw_interface_dump""#, "of a VPP of the test's, without a filter"),
    ),
    (
        VPP,
        "vpp-api events want_interface_events",
        Like(VPP_TEST, r#""events", "want_interface_events""#, "of a VPP of the test's, up to the first one"),
    ),
    (VPP, "vpp-api list wireguard", Like(VPP_TEST, r#""list", "memif_delete""#, "of another message")),
    (VPP, "vpp-api stats --watch", Not("a VPP that counts, of which there is none; it does not end")),
];
