//! Who the other end of an accepted socket is, as the kernel tells: no certificate, no trust in what it says.

use std::{io, os::fd::OwnedFd, sync::Arc};

use nix::{
    libc,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};
use tokio::net::UnixStream;

use crate::{Asked, InodeId, sys};

/// The process that connected, as it was then.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its network namespace, when its socket was made. `None` where the kernel does not tell (no `CAP_NET_ADMIN`).
    pub netns: Option<PeerNetns>,
    /// Process id in our pid namespace; 0 when it is not visible there. For logs: ids are used again.
    pub pid: i32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
    /// The process itself.
    pub process: Process,
    /// Its control groups, once they were asked for.
    pub asked: Asked,
}

/// How a process is held since its socket was accepted, by a pidfd, so that its number is not another's unnoticed.
#[derive(Debug, Clone)]
pub enum Process {
    /// The kernel says that this one connected (SO_PEERPIDFD, Linux 6.5).
    Proved(Arc<OwnedFd>),
    /// The one that had the number when the socket was accepted: before Linux 6.5 the kernel tells no more. It is another if the one that
    /// connected had ended by then.
    Numbered(Arc<OwnedFd>),
    /// It had ended: who has its socket now is not known.
    Ended,
    /// It is not in this process's PID namespace, and the kernel tells no more.
    Unseen,
    /// The system said no.
    Failed(Box<str>),
}

impl Process {
    /// What the kernel said about who connected, and the number that it gave.
    pub(crate) fn of(said: io::Result<OwnedFd>, pid: libc::pid_t) -> Self {
        let error = match said {
            Ok(pidfd) => return Self::Proved(Arc::new(pidfd)),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Self::of_number(pid),
            // Kernels differ in how they say it.
            Some(libc::ESRCH | libc::EINVAL) => Self::Ended,
            _ => Self::Failed(error.to_string().into()),
        }
    }

    /// The one that has this number now; 0 is none that is seen.
    pub fn of_number(pid: libc::pid_t) -> Self {
        if pid <= 0 {
            return Self::Unseen;
        }
        match sys::pidfd_open(pid) {
            Ok(pidfd) => Self::Numbered(Arc::new(pidfd)),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Self::Ended,
            Err(error) => Self::Failed(error.to_string().into()),
        }
    }
}

/// A network namespace that stays what it is while this is held: inode numbers are used again afterwards.
#[derive(Debug, Clone)]
pub struct PeerNetns {
    /// Keeps it.
    pub fd: Arc<OwnedFd>,
    /// Names it.
    pub id: InodeId,
}

impl Peer {
    /// Asks the kernel about an accepted socket.
    pub fn of(socket: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(socket, PeerCredentials)?;
        let netns = sys::socket_netns(socket).and_then(|fd| {
            let id = InodeId::of(&fd)?;
            Ok(PeerNetns { fd: Arc::new(fd), id })
        });
        if let Err(error) = &netns {
            tracing::debug!(pid = credentials.pid(), %error, "the peer's network namespace is not known");
        }
        Ok(Self {
            netns: netns.ok(),
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
            process: Process::of(sys::peer_pidfd(socket), credentials.pid()),
            asked: Asked::default(),
        })
    }

    /// Returns when the process has ended. Never, where the kernel does not say which one connected.
    pub async fn ended(&self) -> io::Result<()> {
        let Process::Proved(pidfd) = &self.process else { return std::future::pending().await };
        let ended = sys::watched(pidfd.try_clone()?)?;
        let _ = ended.readable().await?;
        Ok(())
    }
}
