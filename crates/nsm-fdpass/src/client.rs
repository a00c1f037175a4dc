//! The calling side: one gRPC channel over one socket.

use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::Instant};
use tonic::transport::{Channel, Endpoint};

use crate::{FdStream, Inbox, Outbox};

/// Pause before a socket whose queue is full is tried again.
const FULL: Duration = Duration::from_millis(5);

/// A gRPC channel over one unix socket. When the socket dies, calls fail with UNAVAILABLE: it is not dialled again behind the
/// caller's back, since the files that were passed on it are gone with it.
#[derive(Debug, Clone)]
pub struct FdChannel {
    /// For generated clients. `:authority` is `localhost`.
    pub channel: Channel,
    /// Files that came with answers.
    pub inbox: Inbox,
    /// Files to pass, before the call that names them.
    pub outbox: Outbox,
    alive: Weak<()>,
}

impl FdChannel {
    /// Whether the socket is known to be closed: every further call would fail.
    pub fn is_closed(&self) -> bool {
        self.alive.strong_count() == 0
    }
}

/// Why a socket cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No such file.
    #[error("nothing at {}: is its process running, and is this the right path?", .0.display())]
    Missing(PathBuf),
    /// A socket that nobody listens on.
    #[error("nobody listens on {}: its process has ended and left the socket", .0.display())]
    Refused(PathBuf),
    /// Not for us.
    #[error("no permission to connect to {}: its mode or owner excludes user {uid}", path.display())]
    Denied {
        /// Where.
        path: PathBuf,
        /// Who we are.
        uid: u32,
    },
    /// The listener does not accept.
    #[error("{} did not accept a connection in time", .0.display())]
    Timeout(PathBuf),
    /// Anything else.
    #[error("cannot connect to {}: {source}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl ConnectError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::ConnectionRefused => Self::Refused(path),
            io::ErrorKind::PermissionDenied => Self::Denied { path, uid: nix::unistd::geteuid().as_raw() },
            _ => Self::Io { path, source },
        }
    }
}

/// Connects to the socket at `path`, at the latest at `deadline`.
pub async fn connect(path: &Path, deadline: Instant) -> Result<FdChannel, ConnectError> {
    let socket = loop {
        match tokio::time::timeout_at(deadline, UnixStream::connect(path)).await {
            Err(_) => return Err(ConnectError::Timeout(path.to_owned())),
            Ok(Ok(socket)) => break socket,
            // A full queue is EAGAIN on a socket that does not block (unix(7)).
            Ok(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                if Instant::now() + FULL >= deadline {
                    return Err(ConnectError::Timeout(path.to_owned()));
                }
                tokio::time::sleep(FULL).await;
            }
            Ok(Err(error)) => return Err(ConnectError::of(path, error)),
        }
    };
    channel(socket, path, deadline).await
}

/// Connects to a socket whose file was passed (`O_PATH` is enough).
pub async fn connect_file(file: &OwnedFd, deadline: Instant) -> Result<FdChannel, ConnectError> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    connect(&path, deadline).await.map_err(|error| match error {
        // The magic link is no help to a reader; what it points to is.
        ConnectError::Refused(path) => ConnectError::Refused(fs::read_link(&path).unwrap_or(path)),
        other => other,
    })
}

async fn channel(socket: UnixStream, path: &Path, deadline: Instant) -> Result<FdChannel, ConnectError> {
    let stream = FdStream::new(socket);
    let (inbox, outbox) = (stream.inbox().clone(), stream.outbox().clone());
    let alive = stream.alive();
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        let lost = || io::Error::new(io::ErrorKind::NotConnected, "the socket of this channel is closed");
        std::future::ready(stream.map(TokioIo::new).ok_or_else(lost))
    });
    let endpoint = Endpoint::from_static("http://localhost");
    match tokio::time::timeout_at(deadline, endpoint.connect_with_connector(connector)).await {
        Err(_) => Err(ConnectError::Timeout(path.to_owned())),
        Ok(Err(error)) => Err(ConnectError::Io { path: path.to_owned(), source: io::Error::other(error) }),
        Ok(Ok(channel)) => Ok(FdChannel { channel, inbox, outbox, alive }),
    }
}
