//! The listening side.
//!
//! Guarantees: a socket's path never names a socket with the wrong mode or owner; a path that a living process listens on is
//! refused, one that a dead process left is taken over; lack of descriptors slows accepting down and does not end it.

use std::{
    fs, io,
    os::fd::AsRawFd,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::{FdStream, Inbox, Outbox, Peer};

/// Pause after accept(2) failed, most likely for want of descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);

/// What a service finds in the extensions of each request.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Who called.
    pub peer: Arc<Peer>,
    /// Files that the caller passed.
    pub inbox: Inbox,
    /// Files to pass with the answer.
    pub outbox: Outbox,
}

/// Who may connect.
#[derive(Debug, Clone, Copy)]
pub struct Permissions {
    /// Mode of the socket file.
    pub mode: u32,
    /// Its owner; `None`: this process's.
    pub uid: Option<u32>,
    /// Its group; `None`: this process's.
    pub gid: Option<u32>,
}

/// Why a path cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody lives there.
    #[error("another process listens on {}: stop it, or choose another path", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} exists and is no socket: remove it, or choose another path", .0.display())]
    NoSocket(PathBuf),
    /// The system said no.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// E.g. `listen on`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A listening socket and its path, which goes with it.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Listens on `path`; the folder is made where it is missing.
pub fn bind(path: &Path, permissions: Permissions) -> Result<Socket, BindError> {
    let failed = |action| move |source| BindError::Io { action, path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
    }
    take_over(path)?;
    // Complete under another name first: nobody sees it with the umask's mode.
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let _ = fs::remove_file(&fresh);
    let listener = UnixListener::bind(&fresh).map_err(failed("listen on"))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(permissions.mode)).map_err(failed("set the mode of"))?;
    if permissions.uid.is_some() || permissions.gid.is_some() {
        chown(&fresh, permissions.uid, permissions.gid).map_err(failed("set the owner of"))?;
    }
    let inode = fs::symlink_metadata(&fresh).map_err(failed("look at"))?.ino();
    fs::rename(&fresh, path).map_err(failed("name"))?;
    Ok(Socket { listener, path: path.to_owned(), inode })
}

fn take_over(path: &Path) -> Result<(), BindError> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if !metadata.file_type().is_socket() {
        return Err(BindError::NoSocket(path.to_owned()));
    }
    let asked = || {
        // Without blocking: a listener whose queue is full is alive too.
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let probe = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
    };
    match asked() {
        // Gone in between counts as stale too.
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(()),
        Ok(()) | Err(Errno::EAGAIN) => Err(BindError::InUse(path.to_owned())),
        Err(error) => Err(BindError::Io { action: "look who listens on", path: path.to_owned(), source: error.into() }),
    }
}

impl Socket {
    /// Accepts connections.
    pub fn incoming(self) -> Incoming {
        Incoming { socket: self, pause: None }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The name goes with the socket, unless it has become another one's.
impl Drop for Socket {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Accepted connections, for tonic's `serve_with_incoming`. Never ends by itself.
#[derive(Debug)]
pub struct Incoming {
    socket: Socket,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Incoming {
    fn accepted(stream: UnixStream) -> io::Result<Accepted> {
        let peer = Arc::new(Peer::of(&stream)?);
        Ok(Accepted { stream: FdStream::accepted(stream, refuse_tls), peer })
    }
}

fn refuse_tls(socket: &UnixStream) {
    let (pid, uid) = socket.peer_cred().map_or((None, None), |cred| (cred.pid(), Some(cred.uid())));
    tracing::warn!(
        pid,
        uid,
        "a peer spoke TLS on this plain unix socket: closed; on a node the kernel says who asks, so have it connect without TLS"
    );
}

impl Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.socket.listener.poll_accept(cx)) {
                Ok((stream, _)) => match Self::accepted(stream) {
                    Ok(accepted) => return Poll::Ready(Some(Ok(accepted))),
                    Err(error) => tracing::warn!(%error, "a connection ended before it was looked at"),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections for a moment");
                    self.pause = Some(Box::pin(tokio::time::sleep(BACK_OFF)));
                }
            }
        }
    }
}

/// One accepted connection.
#[derive(Debug)]
pub struct Accepted {
    stream: FdStream,
    peer: Arc<Peer>,
}

impl Connected for Accepted {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        Connection { peer: self.peer.clone(), inbox: self.stream.inbox().clone(), outbox: self.stream.outbox().clone() }
    }
}

impl tokio::io::AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl tokio::io::AsyncWrite for Accepted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
