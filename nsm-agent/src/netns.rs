//! Network namespaces that somebody passed or named.
//!
//! Guarantees: no thread that serves others waits for a file whose file system does not answer. A namespace has gone only where
//! its name would be seen and is not, or is another's: the runtime that gave the name may see more of the node than this process.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use nsm_fdpass::InodeId;
use nsm_netlink::{Error, Netns, NetnsId};

use crate::state::blocking;

/// Two spellings of one folder: on a node the first is a link to the second, in a container it need not be.
const SPELLINGS: [&str; 2] = ["/var/run", "/run"];
/// The node's own PID namespace (`PROC_PID_INIT_INO` of linux/proc_ns.h): elsewhere, processes of the node have no folder in /proc.
const PIDS_OF_THE_NODE: &str = "pid:[4026531836]";

/// What became of a pod's network namespace.
#[derive(Debug)]
pub enum PodsNetns {
    /// It lives.
    Here(Netns),
    /// The name is nothing's any more, or another namespace's.
    Gone,
    /// Not to be seen is not to be gone.
    Unseen(io::Error),
}

impl PodsNetns {
    /// Looks for the namespace `id` where its pod's ADD named it, and among all that this process sees if that name says nothing
    /// here. Blocking.
    pub(crate) fn find(name: &Path, id: NetnsId) -> Self {
        let error = match Place::of(name, id) {
            Place::Gone => return Self::Gone,
            Place::At(path) => match Netns::open(path) {
                Ok(netns) if netns.id() == id => return Self::Here(netns),
                // It went, or changed, between two looks; the next one tells.
                Ok(_) => io::Error::other(format!("{} has just become another namespace", name.display())),
                Err(error) => io::Error::other(error),
            },
            Place::Unseen(error) => error,
        };
        Netns::of_a_process(id).map_or(Self::Unseen(error), Self::Here)
    }

    /// Whether the pod has certainly ended.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Gone => true,
            Self::Here(_) | Self::Unseen(_) => false,
        }
    }
}

/// What a name says of a namespace.
#[derive(Debug)]
pub(crate) enum Place {
    /// It is there, under this spelling.
    At(PathBuf),
    /// It would be there.
    Gone,
    /// Nothing, for this process.
    Unseen(io::Error),
}

impl Place {
    /// Looks for the file with the number `id`. Blocking.
    pub(crate) fn of(name: &Path, id: NetnsId) -> Self {
        let unseen = |path: &Path, why: String| io::Error::other(format!("{}: {why}", path.display()));
        let (mut gone, mut error) = (false, None);
        for path in spellings(name) {
            match fs::metadata(&path) {
                Ok(file) if (file.dev(), file.ino()) == (id.dev, id.ino) => return Self::At(path),
                // Another namespace has its place.
                Ok(file) if file.dev() == id.dev => gone = true,
                Ok(_) => {
                    error.get_or_insert_with(|| unseen(&path, "a file on which no namespace is mounted here".into()));
                }
                Err(missing) if missing.kind() == io::ErrorKind::NotFound && would_be_seen(&path) => gone = true,
                Err(other) => {
                    error.get_or_insert_with(|| unseen(&path, other.to_string()));
                }
            }
        }
        match error {
            Some(error) if !gone => Self::Unseen(error),
            Some(_) | None => Self::Gone,
        }
    }

    /// Whether the namespace `id` lives, as far as can be seen. Blocking.
    pub(crate) fn stands(name: &Path, id: NetnsId) -> bool {
        match Self::of(name, id) {
            Self::At(_) => true,
            Self::Gone => false,
            Self::Unseen(_) => Netns::of_a_process(id).is_some(),
        }
    }
}

/// The name as it was given, then as others write it.
fn spellings(name: &Path) -> impl Iterator<Item = PathBuf> {
    let [long, short] = SPELLINGS;
    let other = match (name.strip_prefix(long), name.strip_prefix(short)) {
        (Ok(rest), _) => Some(Path::new(short).join(rest)),
        (_, Ok(rest)) => Some(Path::new(long).join(rest)),
        (Err(_), Err(_)) => None,
    };
    [name.to_owned()].into_iter().chain(other)
}

/// Whether a file that is missing has gone: what has no folder here may be on a mount that this process does not have.
fn would_be_seen(path: &Path) -> bool {
    if path.starts_with("/proc") {
        return fs::read_link("/proc/self/ns/pid").is_ok_and(|own| own == Path::new(PIDS_OF_THE_NODE));
    }
    path.parent().is_some_and(Path::is_dir)
}

/// The namespace that a passed file is. `known` is any other namespace.
pub(crate) async fn passed(file: Arc<OwnedFd>, known: NetnsId) -> Result<Netns, Error> {
    // All namespaces are files of one file system, which always answers.
    if InodeId::of(&*file).is_ok_and(|id| id.dev == known.dev) {
        return Netns::from_shared(file);
    }
    blocking(move || Netns::from_shared(file)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(path: &Path) -> NetnsId {
        let file = fs::metadata(path).unwrap();
        NetnsId { dev: file.dev(), ino: file.ino() }
    }

    #[test]
    fn a_name_says_gone_only_where_it_would_be_seen() {
        let dir = tempfile::tempdir().unwrap();
        let [netns, other] = ["netns", "other"].map(|name| dir.path().join(name));
        fs::write(&netns, "").unwrap();
        fs::write(&other, "").unwrap();
        let (id, own) = (numbers(&netns), numbers(Path::new("/proc/thread-self/ns/net")));
        assert!(matches!(Place::of(&netns, id), Place::At(path) if path == netns));
        assert!(matches!(Place::of(&other, id), Place::Gone));
        assert!(matches!(Place::of(&other, own), Place::Unseen(_)), "nothing is mounted on it");
        assert!(matches!(Place::of(&dir.path().join("none"), id), Place::Gone));
        assert!(matches!(Place::of(&dir.path().join("none/netns"), id), Place::Unseen(_)));
    }

    #[test]
    fn a_namespace_whose_name_only_the_runtime_sees_is_found() {
        let name = Path::new("/var/run/nsm-no-such-folder/cni-1");
        let own = Netns::current().unwrap();
        assert!(matches!(PodsNetns::find(name, own.id()), PodsNetns::Here(found) if found.id() == own.id()));
        assert!(Place::stands(name, own.id()));
        let nobodys = NetnsId { dev: own.id().dev, ino: 1 };
        assert!(matches!(PodsNetns::find(name, nobodys), PodsNetns::Unseen(_)));
        assert!(!Place::stands(name, nobodys));
    }

    #[test]
    fn var_run_and_run_are_one_folder() {
        let of =
            |name: &str| -> Vec<String> { spellings(Path::new(name)).map(|path| path.display().to_string()).collect() };
        assert_eq!(of("/var/run/netns/cni-1"), ["/var/run/netns/cni-1", "/run/netns/cni-1"]);
        assert_eq!(of("/run/netns/cni-1"), ["/run/netns/cni-1", "/var/run/netns/cni-1"]);
        assert_eq!(of("/proc/7/ns/net"), ["/proc/7/ns/net"]);
    }
}
