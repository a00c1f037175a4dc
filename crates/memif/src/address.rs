//! Where servers listen: a file, or a name that belongs to a network namespace.

use std::{
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
};

use rustix::{
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

/// The longest path and the longest abstract name, in bytes (`sun_path` less a NUL).
const LONGEST: usize = 107;

/// A memif server's address. From text: `@name` and `abstract:name` are abstract names, anything else is a path.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address(Kind);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Kind {
    Path(PathBuf),
    Abstract(Vec<u8>),
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("memif socket {given:?}: expected a path or @NAME of 1 to {LONGEST} bytes without NUL")]
pub struct InvalidAddress {
    given: String,
}

impl Address {
    /// A socket that is a file.
    ///
    /// # Errors
    /// A path that is empty or too long for a socket.
    pub fn path(path: impl Into<PathBuf>) -> Result<Self, InvalidAddress> {
        let path = path.into();
        if !fits(path.as_os_str().as_encoded_bytes()) {
            return Err(InvalidAddress { given: path.display().to_string() });
        }
        Ok(Self(Kind::Path(path)))
    }

    /// A name without a file. It belongs to the network namespace that the socket is made in.
    ///
    /// # Errors
    /// A name that is empty or too long.
    pub fn abstract_name(name: impl AsRef<[u8]>) -> Result<Self, InvalidAddress> {
        let name = name.as_ref();
        if !fits(name) {
            return Err(InvalidAddress { given: format!("@{}", String::from_utf8_lossy(name)) });
        }
        Ok(Self(Kind::Abstract(name.to_vec())))
    }

    /// The file, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Path(path) => Some(path),
            Kind::Abstract(_) => None,
        }
    }

    pub(crate) fn to_socket_address(&self) -> io::Result<SocketAddrUnix> {
        Ok(match &self.0 {
            Kind::Path(path) => SocketAddrUnix::new(path.as_path())?,
            Kind::Abstract(name) => SocketAddrUnix::new_abstract_name(name)?,
        })
    }
}

fn fits(name: &[u8]) -> bool {
    (1..=LONGEST).contains(&name.len()) && !name.contains(&0)
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        match text.strip_prefix('@').or_else(|| text.strip_prefix("abstract:")) {
            Some(name) => Self::abstract_name(name),
            None => Self::path(text),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Path(path) => write!(f, "{}", path.display()),
            Kind::Abstract(name) => write!(f, "@{}", String::from_utf8_lossy(name).escape_debug()),
        }
    }
}

/// A socket of this thread's network namespace, for either role.
pub(crate) fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// A socket of another network namespace: abstract names are looked up there, wherever the socket is used afterwards.
///
/// A thread enters the namespace for it and ends: none comes back from there.
///
/// # Errors
/// `netns` is no network namespace, or this process may not enter it (`CAP_SYS_ADMIN`).
pub fn socket_in(netns: impl AsFd) -> io::Result<OwnedFd> {
    let netns = netns.as_fd().try_clone_to_owned()?;
    let maker = thread::Builder::new().name("memif-netns".into()).spawn(move || {
        move_into_link_name_space(netns.as_fd(), Some(LinkNameSpaceType::Network))?;
        socket()
    })?;
    maker.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the other namespace panicked")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_told_apart() {
        let address: Address = "/run/memif.sock".parse().unwrap();
        assert_eq!(address.as_path(), Some(Path::new("/run/memif.sock")));
        for name in ["@nsm/test-1", "abstract:nsm/test-1"] {
            assert_eq!(name.parse::<Address>().unwrap().to_string(), "@nsm/test-1");
        }
    }

    #[test]
    fn what_fits_no_socket_is_refused() {
        for wrong in ["", "@", "a\0b", &"x".repeat(108), &format!("@{}", "x".repeat(108))] {
            let error = wrong.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("expected a path or @NAME"), "{error}");
        }
    }
}
