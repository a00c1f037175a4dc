//! Who is at the other end of a socket.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use crate::peer::Credentials;

/// The process that connected, as it was then. The process number is 0 where the peer's is not seen from here, for which rustix has no
/// value.
pub(crate) fn credentials(socket: impl AsFd) -> io::Result<Credentials> {
    let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = size_of::<libc::ucred>();
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes, the size of `found`.
    let done =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERCRED, (&raw mut found).cast(), &raw mut length) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    let process = u32::try_from(found.pid).ok().filter(|pid| *pid > 0);
    Ok(Credentials { process, user: found.uid, group: found.gid })
}
