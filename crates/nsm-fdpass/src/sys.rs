//! The system calls that nix does not wrap, and descriptors that the kernel made for us.
//!
//! Invariant: every raw descriptor that enters here was made by the kernel for this process in the call just before and is
//! owned by nobody else; it leaves as an [`OwnedFd`].
#![expect(unsafe_code, reason = "raw descriptors of SCM_RIGHTS, and calls without a safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{errno::Errno, libc};
use tokio::io::{Interest, unix::AsyncFd};

/// ioctl of sockets: a descriptor of the network namespace that the socket was made in (linux/sockios.h).
const SIOCGSKNS: libc::Ioctl = 0x894C;
/// getsockopt of unix sockets: a pidfd of the peer (asm-generic/socket.h, Linux 6.5).
const SO_PEERPIDFD: libc::c_int = 77;

/// Most descriptors that the kernel passes in one message (`SCM_MAX_FD`).
const MOST: usize = 253;

/// What one recvmsg(2) brought.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) bytes: usize,
    pub(crate) files: Vec<OwnedFd>,
    /// Descriptors were lost on the way.
    pub(crate) truncated: bool,
}

/// Reads bytes and files. nix tells nothing about the files of a truncated message, which would stay open for ever.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // Aligned as cmsghdr is, with room for a header and padding.
    let mut control = [0_u64; MOST * size_of::<RawFd>() / 8 + 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: a msghdr of zeroes is an empty one.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control) as _;
    // SAFETY: `header` points to `buffer` and `control`, which outlive the call, and says how long they are.
    let bytes = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_CMSG_CLOEXEC) };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    let mut files = Vec::new();
    // SAFETY: the kernel filled `control` and `msg_controllen`; the macros stay within them.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: `message` is a complete header inside `control`; of SCM_RIGHTS, `cmsg_len` less the header is descriptors
        // that the kernel made for this process in this call, each read once.
        unsafe {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS {
                let length = (*message).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                let first = libc::CMSG_DATA(message);
                for place in 0..length / size_of::<RawFd>() {
                    let mut raw = [0; size_of::<RawFd>()];
                    first.add(place * raw.len()).copy_to(raw.as_mut_ptr(), raw.len());
                    files.push(OwnedFd::from_raw_fd(RawFd::from_ne_bytes(raw)));
                }
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok(Received { bytes, files, truncated: header.msg_flags & libc::MSG_CTRUNC != 0 })
}

/// Device and inode of an open file, from what the kernel has: a file of a FUSE file system whose server does not answer
/// must not stop us, and peers choose what they pass.
pub(crate) fn identity(file: impl AsFd) -> io::Result<(u64, u64)> {
    let found = examined(file, libc::STATX_INO)?;
    Ok((libc::makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino))
}

/// Whether a file is a socket's, asked in the same way.
pub fn is_socket(file: impl AsFd) -> io::Result<bool> {
    let found = examined(file, libc::STATX_TYPE)?;
    Ok(libc::mode_t::from(found.stx_mode) & libc::S_IFMT == libc::S_IFSOCK)
}

fn examined(file: impl AsFd, what: libc::c_uint) -> io::Result<libc::statx> {
    // SAFETY: a statx of zeroes is a valid value.
    let mut found: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    // SAFETY: the path is an empty C string and `found` is written by the kernel.
    let done = unsafe { libc::statx(file.as_fd().as_raw_fd(), c"".as_ptr(), flags, what, &raw mut found) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(found) }
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

/// A pidfd of the process that has this number now.
pub(crate) fn pidfd_open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    let no_flags: libc::c_uint = 0;
    // SAFETY: pidfd_open(2) takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, no_flags) };
    match RawFd::try_from(fd) {
        // SAFETY: a descriptor that is not negative was made by the call above.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A descriptor that tells when it becomes readable.
pub(crate) fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd answers the same open descriptor for as long as it lives, which is as long as the AsyncFd.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

/// How many files this process may have open.
pub fn file_limit() -> usize {
    limits().map_or(1024, |limits| usize::try_from(limits.rlim_cur).unwrap_or(usize::MAX))
}

/// Takes as many open files as this process may have (setrlimit(2)): the usual soft limit of 1024 is for programs that use
/// select(2).
pub fn raise_file_limit() -> io::Result<()> {
    let mut limits = limits()?;
    limits.rlim_cur = limits.rlim_max;
    // SAFETY: the kernel reads the structure that the reference is to, during the call.
    Errno::result(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limits) })?;
    Ok(())
}

fn limits() -> io::Result<libc::rlimit> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the kernel fills the structure that the reference is to, during the call.
    Errno::result(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limits) })?;
    Ok(limits)
}
