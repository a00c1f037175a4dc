//! Places where a test may kill the agent, to prove that a restart finishes or undoes what was half done, or have it dawdle.
//!
//! `NSM_FAILPOINT=NAME` makes the agent send itself SIGKILL when it gets there, `NSM_FAILPOINT=NAME:slow` stop there for
//! [`SLOW`]; unset, a failpoint is one atomic load.

use std::{sync::OnceLock, time::Duration};

/// Longer than a Request whose time is a second may take, its grace included.
pub const SLOW: Duration = Duration::from_secs(3);

/// Every failpoint, those of ADD, those of a pod's ADD alone, those of DEL, and those of networks of running pods.
pub const ALL: &[&str] = &[
    "add.start",
    "add.attachment-recorded",
    "add.connection-recorded",
    "add.endpoint-answered",
    "add.wire-recorded",
    "add.wire-created",
    "add.wire-configured",
    "add.connection-up",
    "add.answered",
    "pod.one-made",
    "del.start",
    "del.closing-recorded",
    "del.wire-deleted",
    "del.attachment-removed",
    "del.endpoint-closed",
    "del.connection-removed",
    "attach.recorded",
    "attach.answered",
    "detach.recorded",
    "detach.answered",
];

/// Does here what `NSM_FAILPOINT` says about this place.
pub fn hit(name: &'static str) {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(ALL.contains(&name), "{name} is not in failpoint::ALL");
    let Some(chosen) = CHOSEN.get_or_init(|| std::env::var("NSM_FAILPOINT").ok()) else { return };
    match chosen.strip_prefix(name) {
        Some("") => drop(nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL)),
        Some(":slow") => std::thread::sleep(SLOW),
        Some(_) | None => {}
    }
}
