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
use std::sync::{Mutex, MutexGuard};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::Error;
use crate::events::lock;
use crate::transport::Transport;

/// Per-interface settings of IPv6; absent from kernels without it.
const IPV6_SETTINGS: &str = "/proc/sys/net/ipv6/conf";

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
            Err(e) => Err(Error::io(format!("set {IPV6_SETTINGS}/{ifname}/{setting} to {value}"), e)),
        }
    }
}

fn open_ipv6_settings() -> Result<Option<OwnedFd>, Error> {
    match nix::fcntl::open(IPV6_SETTINGS, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(Error::io(format!("open {IPV6_SETTINGS}"), errno.into())),
    }
}
