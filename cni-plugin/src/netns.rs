//! The network namespace that the runtime names.
//!
//! Guarantee: what leaves here is an open network namespace, whatever the path is.
#![expect(unsafe_code, reason = "one ioctl without a safe wrapper")]

use std::{
    fs::{File, OpenOptions},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::Arc,
};

use nix::libc;
use nsm_cni_types::{Environment, Error, code};
use nsm_fdpass::InodeId;

/// `_IO(0xb7, 3)`: the kind of a namespace file (linux/nsfs.h).
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;

/// An open network namespace.
pub(crate) struct Netns {
    pub(crate) file: Arc<OwnedFd>,
    pub(crate) id: InodeId,
}

impl Netns {
    /// Opens `CNI_NETNS`.
    ///
    /// # Errors
    /// Code 4, naming the variable: it does not exist, or is no network namespace.
    pub(crate) fn open(env: &Environment) -> Result<Self, Error> {
        let path = &env.netns;
        let wrong = |why: String| Error::new(code::INVALID_ENVIRONMENT, format!("CNI_NETNS {path:?}: {why}"));
        // A FIFO in its place must not block.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|error| wrong(format!("cannot open: {error}")))?;
        if !is_netns(&file) {
            return Err(wrong("is no network namespace".to_owned()));
        }
        let id = InodeId::of(&file).map_err(|error| wrong(error.to_string()))?;
        Ok(Self { file: Arc::new(file.into()), id })
    }

    /// Whether this is the namespace that the plugin runs in.
    fn is_own(&self) -> bool {
        File::open("/proc/thread-self/ns/net").and_then(InodeId::of).is_ok_and(|own| own == self.id)
    }
}

/// The library's error for a namespace that is the plugin's own, unless the runtime insists.
pub(crate) fn refuse_own(env: &Environment, netns: &Netns) -> Result<(), Error> {
    if env.netns_override || !netns.is_own() {
        return Ok(());
    }
    Err(Error::new(code::INVALID_NETNS, "plugin's netns and netns from CNI_NETNS should not be the same"))
}

fn is_netns(file: &File) -> bool {
    // SAFETY: NS_GET_NSTYPE takes no argument that is read or written.
    unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE) == libc::CLONE_NEWNET }
}
