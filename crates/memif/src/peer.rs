//! Who is at the other end.

use crate::text::Name;

/// The process that connected, as the kernel saw it at that moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Credentials {
    /// Its number, where it can be seen from this process's pid namespace. Another process may have it by now.
    pub process: Option<u32>,
    /// Its effective user.
    pub user: u32,
    /// Its effective group.
    pub group: u32,
}

/// What is known of the other end of a link. Names are what it says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// Its program.
    pub program: Name,
    /// Its interface.
    pub interface: Name,
    /// Its process; of a server the one that listened.
    pub credentials: Option<Credentials>,
}
