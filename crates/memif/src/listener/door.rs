//! The listening socket, and the file that it may be.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    net::{
        AddressFamily, SocketType, bind as bind_socket, connect, listen,
        sockopt::{socket_acceptconn, socket_domain, socket_type},
    },
};

use crate::address::{Address, socket, socket_in};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 64;
/// How long to wait for others who bind in the same directory, and how often to look. Anybody who may read it can keep us waiting, so it
/// has an end.
const TURN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(1);

/// Why nobody can connect.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody answers there: another process, or this one.
    #[error("memif socket {address} is in use by a listener: expected a free address")]
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
    /// The directory of the file is missing.
    #[error("memif socket {address}: its directory does not exist: create the directory first")]
    NoDirectory {
        /// Where.
        address: Address,
    },
    /// The kernel says no.
    #[error("memif socket {address}: {cause}")]
    Bind {
        /// Where.
        address: Address,
        /// Why.
        cause: io::Error,
    },
    /// A descriptor that clients cannot connect to.
    #[error("the given socket: expected one of AF_UNIX and SOCK_SEQPACKET that listens")]
    WrongSocket,
    /// No thread or no descriptor.
    #[error("starting the listener: {cause}")]
    Thread {
        /// Why.
        cause: io::Error,
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
    let failed = |cause: io::Error| ListenError::Bind { address: address.clone(), cause };
    let socket_address = address.to_socket_address().map_err(failed)?;
    // Until it listens, it is like one that was left behind; and of two who find one of those, the second would remove the first one's.
    let _turn = address.as_path().and_then(turn);
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
        Err(rustix::io::Errno::NOENT) => return Err(ListenError::NoDirectory { address: address.clone() }),
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

/// One after another: the directory, locked for as long as this lives. It is best effort, as locks between strangers are.
fn turn(path: &Path) -> Option<File> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let directory = File::open(parent).ok()?;
    let began = Instant::now();
    while flock(&directory, FlockOperation::NonBlockingLockExclusive).is_err() {
        if began.elapsed() > TURN {
            return None;
        }
        thread::sleep(LOOK);
    }
    Some(directory)
}

/// Whether clients can connect to it.
pub(super) fn judge(socket: &OwnedFd) -> Result<(), ListenError> {
    let good = socket_domain(socket) == Ok(AddressFamily::UNIX)
        && socket_type(socket) == Ok(SocketType::SEQPACKET)
        && socket_acceptconn(socket) == Ok(true);
    rustix::io::ioctl_fionbio(socket, true).map_err(|_| ListenError::WrongSocket)?;
    if good { Ok(()) } else { Err(ListenError::WrongSocket) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_who_find_a_stale_file_one_listens() {
        let dir = tempfile::tempdir().unwrap();
        for turn in 0..20 {
            let path = dir.path().join(format!("memif{turn}.sock"));
            let address = Address::path(&path).unwrap();
            let stale = socket().unwrap();
            bind_socket(&stale, &address.to_socket_address().unwrap()).unwrap();
            drop(stale);
            let bound: Vec<_> = thread::scope(|scope| {
                let all: Vec<_> = (0..4).map(|_| scope.spawn(|| bind(&address, None))).collect();
                all.into_iter().map(|one| one.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|one| one.is_ok()).count(), 1, "{bound:?}");
            let others = bound.iter().filter(|one| matches!(one, Err(ListenError::InUse { .. })));
            assert_eq!(others.count(), 3, "{bound:?}");
            connect(socket().unwrap(), &address.to_socket_address().unwrap()).unwrap();
        }
    }
}
