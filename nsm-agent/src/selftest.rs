//! Whether an ADD could be served: a veth pair between two namespaces of the agent's own, and a record in the run directory.
//!
//! Run at start and again after it failed; a success is remembered, so that STATUS and `/readyz` cost nothing.

use std::{path::PathBuf, sync::Arc};

use nsm_netlink::{IfName, Mac, Netlink, Netns, NetnsSocket, VethEnd, VethPair};
use tokio::sync::Mutex;

use crate::state::blocking;

/// One thing that was looked at.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What.
    pub subject: &'static str,
    /// Why it failed and what to do; `None`: it works.
    pub problem: Option<Problem>,
}

/// A failure and its remedy.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What happened.
    pub detail: String,
    /// What to do.
    pub fix: &'static str,
}

/// The test and its last outcome. Clones share it.
#[derive(Clone)]
pub struct SelfTest {
    inner: Arc<Inner>,
}

struct Inner {
    netlink: Netlink,
    run_dir: PathBuf,
    passed: Mutex<bool>,
}

impl SelfTest {
    /// Not run yet.
    pub fn new(netlink: Netlink, run_dir: PathBuf) -> Self {
        Self { inner: Arc::new(Inner { netlink, run_dir, passed: Mutex::new(false) }) }
    }

    /// What keeps an ADD from being served; empty when the test has passed once.
    pub async fn problems(&self) -> Vec<String> {
        let mut passed = self.inner.passed.lock().await;
        if *passed {
            return Vec::new();
        }
        let problems: Vec<String> = self
            .findings()
            .await
            .into_iter()
            .filter_map(|finding| {
                finding.problem.map(|problem| format!("{}: {}; {}", finding.subject, problem.detail, problem.fix))
            })
            .collect();
        *passed = problems.is_empty();
        problems
    }

    /// Looks now.
    pub async fn findings(&self) -> Vec<Finding> {
        let inner = self.inner.clone();
        blocking(move || {
            let finding = |subject, outcome: Result<(), String>, fix| Finding {
                subject,
                problem: outcome.err().map(|detail| Problem { detail, fix }),
            };
            vec![
                finding(
                    "a veth pair between two network namespaces",
                    wire(&inner.netlink),
                    "the agent needs CAP_NET_ADMIN, CAP_SYS_ADMIN, CAP_NET_BROADCAST and a writable /proc/sys/net, and the kernel the veth driver (modprobe veth)",
                ),
                finding(
                    "a record in the run directory",
                    record(&inner.run_dir),
                    "the run directory needs free space and must belong to the agent",
                ),
            ]
        })
        .await
    }
}

fn wire(netlink: &Netlink) -> Result<(), String> {
    let names =
        [IfName::new("selftest0"), IfName::new("selftest1")].map(|name| name.map_err(|error| error.to_string()));
    let [first, second] = names;
    let (first, second) = (first?, second?);
    let make = move || {
        let [one, two] = [Netns::create()?, Netns::create()?];
        let ends = [
            VethEnd { netns: &one, name: first, mac: Mac::random() },
            VethEnd { netns: &two, name: second, mac: Mac::random() },
        ];
        let [link, _] = netlink.create_veth(&VethPair { ends, mtu: None, group: None })?;
        // Fails where the settings of interfaces cannot be written.
        let settings = NetnsSocket::open(&one).and_then(|end| end.refuse_advertisements("selftest0"));
        netlink.delete_link(&link.identity(None))?;
        settings?;
        Ok(())
    };
    make().map_err(|error: nsm_netlink::Error| error.to_string())
}

fn record(run_dir: &std::path::Path) -> Result<(), String> {
    let path = run_dir.join("selftest.new");
    let written = std::fs::write(&path, [0; 4096]).map_err(|error| format!("{}: {error}", path.display()));
    let _ = std::fs::remove_file(&path);
    written
}
