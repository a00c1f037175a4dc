//! [`Netns`]: a network namespace, held open.
//!
//! # Guarantees
//!
//! - A `Netns` *is* a network namespace: whatever file it was made from was asked, and anything else refused before it could be
//!   opened for real (a FIFO or a device given by a peer is never opened). No question goes to the server of a file system.
//! - The namespace, and its [`NetnsId`], live at least as long as the handle. Drop it when the work is done: it pins the namespace.
//! - What is opened inside for one holder serves all clones, and is closed with the last of them.
//! - [`Netns::run`] never leaves a thread of the caller's in another namespace, whatever the closure does.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::{fmt, io, thread};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, fstat};
use serde::{Deserialize, Serialize};

use crate::door::Door;
use crate::events::lock;
use crate::{Error, IfIndex, Nsid, sys};

/// A network namespace, held open. Clones share the descriptor.
#[derive(Clone)]
pub struct Netns {
    file: Arc<OwnedFd>,
    id: NetnsId,
    shared: Arc<Mutex<Shared>>,
}

/// What was found out and opened for one holder, for all of them.
#[derive(Default)]
struct Shared {
    door: Option<Arc<Door>>,
    /// What a namespace calls this one. It does as long as this one lives.
    number: Option<(NetnsId, Nsid)>,
}

impl fmt::Debug for Netns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Netns({})", self.id)
    }
}

/// Which namespace, among those alive: device and inode of its file. Numbers of dead ones are given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetnsId {
    /// `st_dev`.
    pub dev: u64,
    /// `st_ino`, the number in `net:[…]`.
    pub ino: u64,
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.dev, self.ino)
    }
}

impl Netns {
    /// Opens the namespace at a path (`/run/netns/…`, `/proc/PID/ns/net`).
    ///
    /// # Errors
    /// [`Error::NotNetns`] when something else is there, [`Error::Io`] when nothing is.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let file = nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Error::io(format!("open network namespace {}", path.display()), errno.into()))?;
        Self::checked(file.into(), &path.display().to_string())
    }

    /// Takes a descriptor that somebody passed, opened in whatever way, `O_PATH` included.
    ///
    /// # Errors
    /// [`Error::NotNetns`] when it is a descriptor of something else.
    pub fn from_file(file: impl Into<OwnedFd>) -> Result<Self, Error> {
        Self::from_shared(Arc::new(file.into()))
    }

    /// The same for a descriptor that others hold too.
    ///
    /// # Errors
    /// [`Error::NotNetns`] when it is a descriptor of something else.
    pub fn from_shared(file: Arc<OwnedFd>) -> Result<Self, Error> {
        Self::checked(file, "the passed descriptor")
    }

    /// A namespace that is mounted somewhere (`ip netns`, container runtimes) or that some process is in, found by what it is:
    /// for when nobody holds it and its path is not known. Looks at the mounts of this process, then at every process that
    /// `/proc` shows.
    pub fn of_a_process(id: NetnsId) -> Option<Self> {
        let is_it = |netns: &Self| netns.id() == id;
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
        if let Some(found) = mounted(&mounts, id.ino).find_map(|path| Self::open(path).ok().filter(is_it)) {
            return Some(found);
        }
        let processes = std::fs::read_dir("/proc").ok()?;
        processes
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
            .map(|entry| entry.path().join("ns/net"))
            .filter(|path| std::fs::metadata(path).is_ok_and(|file| NetnsId { dev: file.dev(), ino: file.ino() } == id))
            .find_map(|path| Self::open(path).ok().filter(is_it))
    }

    /// The namespace that the calling thread is in.
    pub fn current() -> Result<Self, Error> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// Makes a new namespace, with a loopback that is down and nothing else. It lives while anybody holds it open.
    pub fn create() -> Result<Self, Error> {
        in_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::io("create a network namespace", errno.into()))?;
            Self::current()
        })?
    }

    /// The links of these names, or alternative names: without a netlink socket, for who only asks whether they are there.
    ///
    /// # Errors
    /// Whatever keeps the namespace from being entered.
    pub fn indices<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Option<IfIndex>>, Error> {
        let names: Vec<&str> = names.into_iter().collect();
        let index = |name: &&str| nix::net::if_::if_nametoindex(*name).ok().and_then(IfIndex::new);
        self.run(|| names.iter().map(index).collect())
    }

    /// Which one it is.
    pub fn id(&self) -> NetnsId {
        self.id
    }

    /// Runs `work` inside the namespace, in a thread of its own that ends with it.
    ///
    /// Sockets opened by `work` stay in the namespace and may be returned; `/proc/sys/net` is the namespace's.
    ///
    /// # Errors
    /// [`Error::Io`] when the namespace cannot be entered, [`Error::Panicked`] when `work` panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        in_thread(|| {
            self.enter()?;
            Ok(work())
        })?
    }

    /// Moves the calling thread into the namespace, for good: only for threads that end afterwards.
    pub(crate) fn enter(&self) -> Result<(), Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::io(format!("enter network namespace {}", self.id), errno.into()))
    }

    /// The way in, opened when it is first asked for.
    pub(crate) fn door(&self) -> Result<Arc<Door>, Error> {
        let mut shared = lock(&self.shared);
        if let Some(door) = &shared.door {
            return Ok(door.clone());
        }
        let door = Arc::new(self.run(Door::open)??);
        shared.door = Some(door.clone());
        Ok(door)
    }

    /// What the namespace `by` calls this one, if that was noted.
    pub(crate) fn number(&self, by: NetnsId) -> Option<Nsid> {
        lock(&self.shared).number.filter(|(namespace, _)| *namespace == by).map(|(_, number)| number)
    }

    /// Notes what the namespace `by` calls this one.
    pub(crate) fn set_number(&self, by: NetnsId, number: Nsid) {
        lock(&self.shared).number = Some((by, number));
    }

    fn checked(file: Arc<OwnedFd>, what: &str) -> Result<Self, Error> {
        let failed = |errno: nix::Error| Error::io(format!("examine {what}"), errno.into());
        let not_netns = |found: &str| Error::NotNetns { what: what.to_owned(), found: found.to_owned() };
        let examined = |error| Error::io(format!("examine {what}"), error);
        if sys::device(file.as_fd()).map_err(examined)? != namespaces_device().map_err(examined)? {
            return Err(not_netns("no namespace"));
        }
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL).map_err(failed)?);
        let file = if flags.contains(OFlag::O_PATH) { Arc::new(reopen(&file).map_err(failed)?) } else { file };
        let kind = sys::namespace_type(file.as_fd()).map_err(examined)?;
        if kind != CloneFlags::CLONE_NEWNET.bits() {
            return Err(not_netns("a namespace of another kind"));
        }
        let stat = fstat(&file).map_err(failed)?;
        Ok(Self { file, id: NetnsId { dev: stat.st_dev, ino: stat.st_ino }, shared: Arc::default() })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The device of all namespaces' files (nsfs); there is one.
fn namespaces_device() -> io::Result<u64> {
    static DEVICE: OnceLock<u64> = OnceLock::new();
    if let Some(device) = DEVICE.get() {
        return Ok(*device);
    }
    let own = nix::fcntl::open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let device = sys::device(own.as_fd())?;
    Ok(*DEVICE.get_or_init(|| device))
}

/// An `O_PATH` descriptor enters no namespace and takes no ioctl: open what it refers to.
fn reopen(file: &OwnedFd) -> Result<OwnedFd, nix::Error> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

fn in_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, work)
            .map_err(|e| Error::io("start a thread", e))?;
        thread.join().map_err(|payload| Error::Panicked { message: panic_message(payload.as_ref()) })
    })
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => (*text).to_owned(),
        (None, Some(text)) => text.clone(),
        (None, None) => "no message".to_owned(),
    }
}

/// Where a network namespace is mounted, by `/proc/PID/mountinfo` (`proc_pid_mountinfo`(5)).
fn mounted(mounts: &str, ino: u64) -> impl Iterator<Item = PathBuf> {
    let root = format!("net:[{ino}]");
    mounts.lines().filter_map(move |line| {
        let mut fields = line.split(' ').skip(3);
        if fields.next()? != root {
            return None;
        }
        Some(PathBuf::from(OsString::from_vec(unescaped(fields.next()?))))
    })
}

/// Blanks and backslashes are a backslash and three octal digits there.
fn unescaped(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mounted_namespace_is_found_by_its_number() {
        let mounts = "22 28 0:20 / /proc rw,nosuid - proc proc rw\n\
            40 28 0:4 net:[4026532597] /run/netns/a\\040b\\134 rw shared:8 - nsfs nsfs rw\n\
            41 28 0:4 net:[402653259] /run/netns/other rw - nsfs nsfs rw\nnonsense\n";
        assert_eq!(mounted(mounts, 4_026_532_597).collect::<Vec<_>>(), [PathBuf::from("/run/netns/a b\\")]);
        assert_eq!(mounted(mounts, 7).count(), 0);
        assert_eq!(unescaped("\\04"), b"\\04");
    }
}
