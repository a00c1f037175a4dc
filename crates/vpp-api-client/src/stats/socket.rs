//! The socket of the statistics: who connects is handed one descriptor.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, recvmsg, socket_with,
};

/// The kernel has no room for all that a duration can say.
const LONGEST: Duration = Duration::from_hours(24);

pub(super) fn segment(path: &Path, timeout: Duration) -> io::Result<File> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Both: connecting waits where too many others do.
    let timeout = timeout.min(LONGEST);
    set_socket_timeout(&socket, Timeout::Recv, Some(timeout))?;
    set_socket_timeout(&socket, Timeout::Send, Some(timeout))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut room);
    let mut bytes = [0; 256];
    recvmsg(&socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    // All are ours from here on: those that are not wanted are closed.
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights.map(File::from));
        }
    }
    let file = match (files.pop(), files.is_empty()) {
        (Some(file), true) => file,
        (None, _) => return Err(io::Error::other("it handed out no descriptor")),
        (Some(_), false) => return Err(io::Error::other("it handed out more than one descriptor")),
    };
    // Reading another kind of file could wait for somebody.
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("it handed out something that is no memory"))
    }
}
