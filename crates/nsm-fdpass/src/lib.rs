//! File descriptors over gRPC on unix sockets, as NSM v1 passes them, and who the peer of such a socket is.
//!
//! A file that a message names (`inode://DEV/INO`, [`InodeId`]) travels on the same socket as the HTTP/2 bytes, as `SCM_RIGHTS`
//! on one byte ahead of the message. [`FdStream`] carries both; the sending side puts files into its [`Outbox`] before the
//! call, the receiving side finds them in its [`Inbox`] when the message is there: a file can only precede its message.

mod client;
mod files;
mod groups;
mod guests;
mod inode;
mod peer;
mod server;
mod stream;
mod sys;

pub use client::{ConnectError, FdChannel, connect, connect_file, connect_here};
pub use files::{Inbox, MAX_FILES, Outbox, TooMany};
pub use groups::{Asked, Groups};
pub use guests::Bounds;
pub use inode::{InodeId, NotAnInode};
pub use peer::{Peer, PeerNetns, Process};
pub use server::{BindError, Connection, Incoming, Permissions, Socket, bind};
pub use stream::FdStream;
pub use sys::{file_limit, is_socket, raise_file_limit};
