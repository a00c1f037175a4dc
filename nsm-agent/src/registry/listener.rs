//! Whether a process listens on a socket file itself, or passed another's.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt::PeerCredentials,
};

/// The process that listens on that socket file; `None` when nobody does, or its queue is full.
pub(super) fn listener(file: impl AsFd) -> Option<i32> {
    let address = UnixAddr::new(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).as_str()).ok()?;
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, flags, None).ok()?;
    connect(socket.as_raw_fd(), &address).ok()?;
    Some(getsockopt(&socket, PeerCredentials).ok()?.pid())
}
