//! Who the other end of an accepted socket is, as the kernel tells: no certificate, no trust in what it says.

use std::{io, os::fd::OwnedFd, sync::Arc};

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
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
    /// Tells the end of that process (Linux 6.5).
    pub pidfd: Option<Arc<OwnedFd>>,
    /// Its control groups, once they were asked for.
    pub asked: Asked,
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
            pidfd: sys::peer_pidfd(socket).ok().map(Arc::new),
            asked: Asked::default(),
        })
    }

    /// Returns when the process has ended. Never, where the kernel gives no pidfd.
    pub async fn ended(&self) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else { return std::future::pending().await };
        let ended = sys::watched(pidfd.try_clone()?)?;
        let _ = ended.readable().await?;
        Ok(())
    }
}
