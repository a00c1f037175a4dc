//! The listening side.
//!
//! Guarantees: a socket's path never names a socket with the wrong mode or owner; a path that a living process listens on is
//! refused, one that a dead process left is taken over, and of two that start at once one is refused; lack of descriptors slows
//! accepting down and does not end it; a peer has its part of the connections ([`Bounds`]), and one that does not begin to speak
//! HTTP/2 loses its connection.

use std::{
    fs::{self, File},
    io,
    os::fd::AsRawFd,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::{
    Bounds, FdStream, Inbox, Outbox, Peer,
    guests::{Complaint, Guest, Guests},
};

/// Pause after accept(2) failed, most likely for want of descriptors.
const BACK_OFF: Duration = Duration::from_millis(50);
/// First byte of a TLS record that opens a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// Length of what every HTTP/2 client says first (RFC 9113 section 3.4).
const PREFACE: usize = 24;

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
    /// Not for this user.
    #[error("cannot {action} {}: permission denied: run as root, or name a path where this user may write", path.display())]
    Denied {
        /// E.g. `listen on`.
        action: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// The system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// E.g. `listen on`.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl BindError {
    fn of(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        if source.kind() == io::ErrorKind::PermissionDenied {
            Self::Denied { action, path }
        } else {
            Self::Io { action, path, source }
        }
    }
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
    let failed = |action| move |source| BindError::of(action, path, source);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("make the folder of"))?;
    }
    let _alone = alone(path).map_err(failed("lock the name of"))?;
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

/// Held while a name is taken: of two processes that start at once, the second then finds the first.
struct Alone {
    path: PathBuf,
    _lock: Flock<File>,
}

fn alone(path: &Path) -> io::Result<Alone> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let path = PathBuf::from(name);
    loop {
        // Nobody else may open it: who can, can hold it.
        let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        // Its last holder has removed it, maybe.
        if fs::symlink_metadata(&path).is_ok_and(|now| lock.metadata().is_ok_and(|held| held.ino() == now.ino())) {
            return Ok(Alone { path, _lock: lock });
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
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
        Err(error) => Err(BindError::of("look who listens on", path, error.into())),
    }
}

impl Socket {
    /// Accepts connections.
    pub fn incoming(self) -> Incoming {
        self.incoming_within(Bounds::default())
    }

    /// The same within bounds of your own.
    pub fn incoming_within(self, bounds: Bounds) -> Incoming {
        Incoming { socket: self, guests: Guests::new(bounds), pause: None }
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
    guests: Arc<Guests>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Incoming {
    /// `None`: the peer has enough connections.
    fn accepted(&self, stream: UnixStream) -> io::Result<Option<Accepted>> {
        let peer = Arc::new(Peer::of(&stream)?);
        let Some(guest) = self.guests.admit(&peer) else { return Ok(None) };
        let silence = Box::pin(tokio::time::sleep(self.guests.bounds().silence));
        let stream = FdStream::accepted(stream, guest.files.clone());
        Ok(Some(Accepted { stream, peer, opening: Some(Opening { heard: 0, silence }), guest }))
    }
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
                Ok((stream, _)) => match self.accepted(stream) {
                    Ok(Some(accepted)) => return Poll::Ready(Some(Ok(accepted))),
                    Ok(None) => {}
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
    /// `None` once the peer speaks HTTP/2.
    opening: Option<Opening>,
    // After the stream: its place is free when its descriptor is.
    guest: Guest,
}

/// A peer that has not begun to speak HTTP/2.
#[derive(Debug)]
struct Opening {
    heard: usize,
    silence: Pin<Box<tokio::time::Sleep>>,
}

impl Accepted {
    /// What to make of the peer's first words.
    fn open(&mut self, words: &[u8]) -> io::Result<()> {
        let Some(opening) = &mut self.opening else { return Ok(()) };
        if opening.heard == 0 && words.first() == Some(&TLS_HANDSHAKE) {
            if self.guest.complain(Complaint::Tls) {
                tracing::warn!(
                    pid = self.peer.pid,
                    uid = self.peer.uid,
                    "a peer spoke TLS on this plain unix socket: closed; on a node the kernel says who asks, so have it connect without TLS"
                );
            }
            return Err(io::Error::new(io::ErrorKind::InvalidData, "TLS on a plain socket"));
        }
        opening.heard += words.len();
        if words.is_empty() || opening.heard >= PREFACE {
            self.opening = None;
        }
        Ok(())
    }

    fn silent(&self) -> io::Error {
        if self.guest.complain(Complaint::Silence) {
            tracing::warn!(pid = self.peer.pid, uid = self.peer.uid, "a peer connected and did not speak: closed");
        }
        io::Error::new(io::ErrorKind::TimedOut, "the peer did not speak")
    }
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
        let before = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(cx, buffer) {
            Poll::Pending => match &mut self.opening {
                Some(opening) => {
                    std::task::ready!(opening.silence.as_mut().poll(cx));
                    Poll::Ready(Err(self.silent()))
                }
                None => Poll::Pending,
            },
            Poll::Ready(read) => Poll::Ready(read.and_then(|()| self.open(&buffer.filled()[before..]))),
        }
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
