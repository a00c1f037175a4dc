//! File descriptors over gRPC on unix sockets, as NSM v1 passes them, and who the peer of such a socket is.

mod inode;

pub use inode::{InodeId, NotAnInode};
