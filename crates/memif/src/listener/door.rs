//! The listening socket, and the file that it may be.

use std::{
    fs, io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::net::{
    AddressFamily, SocketType, bind as bind_socket, connect, listen,
    sockopt::{socket_acceptconn, socket_domain, socket_type},
};

use crate::address::{Address, socket, socket_in};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Another process answers there.
    #[error("memif socket {address} is in use by another process: expected a free address")]
    InUse {
        /// Where.
        address: Address,
    },
    /// A file that is no socket stands there.
    #[error(
        "memif socket {address}: there is a file that is no socket, which is left alone: remove it or choose another path"
    )]
    NoSocket {
        /// Where.
        address: Address,
    },
    /// The kernel says no.
    #[error("memif socket {address}: {source}")]
    Bind {
        /// Where.
        address: Address,
        /// Why. It is printed with this error.
        source: io::Error,
    },
    /// A descriptor that clients cannot connect to.
    #[error("the given socket: expected one of AF_UNIX and SOCK_SEQPACKET that listens")]
    WrongSocket,
    /// No thread or no descriptor.
    #[error("starting the listener: {source}")]
    Thread {
        /// Why. It is printed with this error.
        source: io::Error,
    },
}

/// The file of a socket. It goes when the socket does, if it is still the same.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|there| there == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

pub(super) fn bind(address: &Address, netns: Option<&OwnedFd>) -> Result<(OwnedFd, Option<SocketFile>), ListenError> {
    let failed = |source: io::Error| ListenError::Bind { address: address.clone(), source };
    let socket_address = address.to_socket_address().map_err(failed)?;
    let fresh = || netns.map_or_else(socket, socket_in).map_err(failed);
    let listening = fresh()?;
    match bind_socket(&listening, &socket_address) {
        Err(rustix::io::Errno::ADDRINUSE) => {
            let path = address.as_path().ok_or_else(|| ListenError::InUse { address: address.clone() })?;
            let there = fs::symlink_metadata(path).map_err(failed)?;
            if !there.file_type().is_socket() {
                return Err(ListenError::NoSocket { address: address.clone() });
            }
            // Nobody listens on a socket that refuses.
            match connect(fresh()?, &socket_address) {
                Err(rustix::io::Errno::CONNREFUSED) => {}
                Ok(()) | Err(_) => return Err(ListenError::InUse { address: address.clone() }),
            }
            fs::remove_file(path).map_err(failed)?;
            bind_socket(&listening, &socket_address).map_err(|error| failed(error.into()))?;
        }
        bound => bound.map_err(|error| failed(error.into()))?,
    }
    let file = address
        .as_path()
        .map(|path| identity(path).map(|identity| SocketFile { path: path.to_owned(), identity }))
        .transpose()
        .map_err(failed)?;
    listen(&listening, BACKLOG).map_err(|error| failed(error.into()))?;
    Ok((listening, file))
}

/// Whether clients can connect to it.
pub(super) fn judge(socket: &OwnedFd) -> Result<(), ListenError> {
    let good = socket_domain(socket) == Ok(AddressFamily::UNIX)
        && socket_type(socket) == Ok(SocketType::SEQPACKET)
        && socket_acceptconn(socket) == Ok(true);
    rustix::io::ioctl_fionbio(socket, true).map_err(|_| ListenError::WrongSocket)?;
    if good { Ok(()) } else { Err(ListenError::WrongSocket) }
}
