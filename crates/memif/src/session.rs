//! What the queues of one connection share.

use crate::{
    index::{Broken, Role},
    link::{Down, Link},
    memory::Region,
};

/// A connection's memory and link. It ends with the last of its queues.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) role: Role,
    pub(crate) link: Link,
    pub(crate) regions: Vec<Region>,
}

impl Session {
    /// The peer's index is no index.
    pub(crate) fn broken(&self, broken: Broken) -> Down {
        self.link.broken(broken)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.link.close("interface closed");
    }
}

/// Whose buffers a ring's slots point to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Buffers {
    /// A client's own: slot `k` has the `k`-th, whatever a descriptor says.
    Own { first: u32, size: u32 },
    /// A server has what the client's descriptors say, each time checked.
    Peers,
}

impl Buffers {
    /// The client's buffer of a slot.
    #[inline]
    pub(crate) fn own(first: u32, size: u32, slot: u16, slots: u16) -> u32 {
        first + u32::from(slot & (slots - 1)) * size
    }
}
