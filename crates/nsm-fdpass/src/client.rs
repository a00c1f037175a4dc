//! The calling side: one gRPC channel over one socket.
//!
//! Guarantee: connecting ends at its deadline, also where a file system does not answer when the socket's file is looked up: that
//! happens on threads of their own, so many for each file system. [`connect_here`] alone does without, for programs that have
//! nothing else to do.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, socket};
use tokio::{net::UnixStream, sync::Semaphore, time::Instant};
use tonic::transport::{Channel, Endpoint};

use crate::{FdStream, Inbox, InodeId, Outbox};

/// Pause before a socket whose queue is full is tried again.
const FULL: Duration = Duration::from_millis(5);

/// Most socket files of one file system that are looked up at a time.
const LOOKUPS: usize = 8;

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
    #[error("nothing at {}: its process does not run, or listens elsewhere", .0.display())]
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
    #[error("cannot connect to {}: {cause}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// Why. In the text already, so no source: it would be read twice.
        cause: io::Error,
    },
}

impl ConnectError {
    fn of(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing(path),
            io::ErrorKind::ConnectionRefused => Self::Refused(path),
            io::ErrorKind::PermissionDenied => Self::Denied { path, uid: nix::unistd::geteuid().as_raw() },
            _ => Self::Io { path, cause: source },
        }
    }
}

/// Connects to the socket at `path`, at the latest at `deadline`.
pub async fn connect(path: &Path, deadline: Instant) -> Result<FdChannel, ConnectError> {
    connect_at(&Place::Path(path.to_owned()), deadline).await
}

/// The same, with the file looked up by the calling thread: a program that makes one call, to a socket beside files that it works
/// with anyway, starts no thread for it.
pub async fn connect_here(path: &Path, deadline: Instant) -> Result<FdChannel, ConnectError> {
    connected(path, deadline, || async { UnixStream::from_std(dial_here(path)?) }).await
}

async fn connect_at(place: &Place, deadline: Instant) -> Result<FdChannel, ConnectError> {
    connected(&place.path(), deadline, || dial(place)).await
}

async fn connected<F>(path: &Path, deadline: Instant, dial: impl Fn() -> F) -> Result<FdChannel, ConnectError>
where
    F: Future<Output = io::Result<UnixStream>>,
{
    let socket = loop {
        match tokio::time::timeout_at(deadline, dial()).await {
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
    let path = || PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let own = file.try_clone().map_err(|error| ConnectError::of(&path(), error))?;
    connect_at(&Place::File(Arc::new(own)), deadline).await.map_err(|error| match error {
        // The magic link is no help to a reader; what it points to is.
        ConnectError::Refused(path) => ConnectError::Refused(fs::read_link(&path).unwrap_or(path)),
        other => other,
    })
}

/// Where a socket's file is.
#[derive(Debug, Clone)]
enum Place {
    Path(PathBuf),
    /// Held by who looks it up, however long that takes: the number of a closed file soon means another.
    File(Arc<OwnedFd>),
}

impl Place {
    fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::File(file) => PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())),
        }
    }

    /// The file system of a passed file. What is named is the operator's, wherever it is.
    fn device(&self) -> Option<u64> {
        match self {
            Self::Path(_) => None,
            Self::File(file) => InodeId::of(&**file).ok().map(|id| id.dev),
        }
    }
}

/// Those who look up a file of that file system.
fn lookups(device: Option<u64>) -> Arc<Semaphore> {
    static OF_EACH: Mutex<BTreeMap<Option<u64>, Weak<Semaphore>>> = Mutex::new(BTreeMap::new());
    let mut of_each = OF_EACH.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lookups) = of_each.get(&device).and_then(Weak::upgrade) {
        return lookups;
    }
    of_each.retain(|_, lookups| lookups.strong_count() > 0);
    let lookups = Arc::new(Semaphore::new(LOOKUPS));
    of_each.insert(device, Arc::downgrade(&lookups));
    lookups
}

async fn dial(place: &Place) -> io::Result<UnixStream> {
    let turn = lookups(place.device()).acquire_owned().await.map_err(io::Error::other)?;
    let place = place.clone();
    let looked_up = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        dial_here(&place.path())
    });
    UnixStream::from_std(looked_up.await.map_err(io::Error::other)??)
}

/// Waits for the file system, not for the listener.
fn dial_here(path: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket.into())
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
        Ok(Err(error)) => Err(ConnectError::Io { path: path.to_owned(), cause: io::Error::other(error) }),
        Ok(Ok(channel)) => Ok(FdChannel { channel, inbox, outbox, alive }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    #[tokio::test]
    async fn a_file_system_that_does_not_answer_holds_up_its_own_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let file: OwnedFd = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::fcntl::OFlag::O_PATH.bits())
            .open(&path)
            .unwrap()
            .into();
        let place = Place::File(Arc::new(file.try_clone().unwrap()));
        dial(&place).await.unwrap();
        let stuck = lookups(place.device());
        let _all = stuck.acquire_many(u32::try_from(LOOKUPS).unwrap()).await.unwrap();
        let late = connect_file(&file, Instant::now() + Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(late, ConnectError::Timeout(_)), "{late}");
        dial(&Place::Path(path)).await.unwrap();
    }
}
