//! Places where a test may kill the agent, to prove that a restart finishes or undoes what was half done.
//!
//! `NSM_FAILPOINT=NAME` makes the agent send itself SIGKILL when it gets there; unset, a failpoint is one atomic load.

use std::sync::OnceLock;

/// Every failpoint in the order in which an ADD and then a DEL passes them.
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
    "del.start",
    "del.closing-recorded",
    "del.wire-deleted",
    "del.attachment-removed",
    "del.endpoint-closed",
    "del.connection-removed",
];

/// Kills the process here when `NSM_FAILPOINT` names this place.
pub fn hit(name: &'static str) {
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    debug_assert!(ALL.contains(&name), "{name} is not in failpoint::ALL");
    if CHOSEN.get_or_init(|| std::env::var("NSM_FAILPOINT").ok()).as_deref() == Some(name) {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
}
