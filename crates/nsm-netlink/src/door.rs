//! [`Door`]: what is kept open of a namespace while somebody works inside.
//!
//! # Guarantees
//!
//! - It is opened by a throw-away thread inside the namespace, and stays of that namespace whoever uses it.
//! - Who asks through it waits for the conversations of others, never for what they wait for besides.
//!
//! # Assumptions
//!
//! - Its owner holds the namespace open anyway: the socket pins it.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::Error;
use crate::events::lock;
use crate::transport::Transport;

/// Where the kernel's settings are.
static SETTINGS: OnceLock<PathBuf> = OnceLock::new();
/// Below that: per-interface settings of IPv6; absent from kernels without it.
const IPV6: &str = "net/ipv6/conf";

/// Names another mount of `/proc/sys`, for this process: a container's own is read-only. To be called once, before anything is
/// opened; whichever mount it is, a thread sees the settings of its own network namespace there.
pub fn settings_at(proc_sys: PathBuf) {
    let _ = SETTINGS.set(proc_sys);
}

fn ipv6_settings() -> PathBuf {
    SETTINGS.get().map_or_else(|| Path::new("/proc/sys"), PathBuf::as_path).join(IPV6)
}

/// A netlink socket inside a namespace, and the directory of its IPv6 settings.
pub(crate) struct Door {
    transport: Mutex<Transport>,
    /// `None`: no IPv6 in this kernel.
    ipv6: Option<OwnedFd>,
}

impl Door {
    /// Opens both in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, Error> {
        Ok(Self { transport: Mutex::new(Transport::open()?), ipv6: open_ipv6_settings()? })
    }

    /// For one conversation.
    pub(crate) fn transport(&self) -> MutexGuard<'_, Transport> {
        lock(&self.transport)
    }

    /// Sets an IPv6 setting of one interface. False: there is no such setting, as the kernel or the interface has no IPv6.
    pub(crate) fn set_ipv6(&self, ifname: &str, setting: &str, value: &str) -> Result<bool, Error> {
        let Some(directory) = &self.ipv6 else { return Ok(false) };
        let write = || -> io::Result<()> {
            let path = format!("{ifname}/{setting}");
            let file = openat(directory, path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
            File::from(file).write_all(value.as_bytes())
        };
        match write() {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => {
                let directory = ipv6_settings();
                Err(Error::io(format!("set {}/{ifname}/{setting} to {value}", directory.display()), e))
            }
        }
    }
}

fn open_ipv6_settings() -> Result<Option<OwnedFd>, Error> {
    let directory = ipv6_settings();
    match nix::fcntl::open(&directory, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::io(format!("open {}", directory.display()), errno.into())),
    }
}
