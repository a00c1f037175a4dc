//! The system calls that nix does not wrap, and descriptors that the kernel made for us.
//!
//! Invariant: every raw descriptor that enters here was made by the kernel for this process in the call just before and is
//! owned by nobody else; it leaves as an [`OwnedFd`].
#![allow(unsafe_code, reason = "raw descriptors of SCM_RIGHTS, and two calls without a safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::libc;
use tokio::io::{Interest, unix::AsyncFd};

/// ioctl of sockets: a descriptor of the network namespace that the socket was made in (linux/sockios.h).
const SIOCGSKNS: libc::Ioctl = 0x894C;
/// getsockopt of unix sockets: a pidfd of the peer (asm-generic/socket.h, Linux 6.5).
const SO_PEERPIDFD: libc::c_int = 77;

/// Takes descriptors that recvmsg(2) put into a control message of this call.
pub(crate) fn received(raw: Vec<RawFd>) -> Vec<OwnedFd> {
    // SAFETY: SCM_RIGHTS made these descriptors for this process; the control message is read once.
    raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// The network namespace of a socket. On an accepted unix socket: of the process that connected, when its socket was made.
pub(crate) fn socket_netns(socket: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: SIOCGSKNS takes no argument that is read or written.
    let fd = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), SIOCGSKNS) };
    // SAFETY: a descriptor that is not negative was made by the call above.
    if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// A pidfd of the process that connected.
pub(crate) fn peer_pidfd(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut length = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `length` bytes, the size of `fd`.
    let done = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut length,
        )
    };
    // SAFETY: on success `fd` was made by the call above.
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(unsafe { OwnedFd::from_raw_fd(fd) }) }
}

/// A descriptor that tells when it becomes readable.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd answers the same open descriptor for as long as it lives, which is as long as the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
