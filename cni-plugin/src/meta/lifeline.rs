//! A plugin's process ends with the call that started it.
//!
//! Guarantees: when this program ends in any way, SIGKILL included, the kernel kills the plugin; one that is started just then does not
//! begin. What the plugin itself started (IPAM) may still come to its end, and has the attachment's lock until then ([`super::record`]). So
//! nobody makes anything for an attachment whose lock somebody else has.
#![expect(unsafe_code, reason = "work between fork and exec")]

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::{
    errno::Errno,
    sys::{prctl, signal::Signal},
    unistd::getppid,
};

/// Has what `command` starts die with this program.
///
/// The kernel's word is about the *thread* that starts it, not the process: start it by one that waits for its end, as the plugin's only
/// thread does.
pub(crate) fn bind(command: &mut Command) {
    let parent = nix::unistd::getpid();
    let bound = move || -> io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        // A parent that ended before that call sends nothing any more: somebody else has become the parent.
        if getppid() == parent { Ok(()) } else { Err(Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only prctl(2) and getppid(2) are called, both async-signal-safe; nothing is allocated or locked.
    unsafe {
        command.pre_exec(bound);
    }
}
