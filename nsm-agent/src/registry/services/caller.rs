//! Who calls, and the files that came along.

use std::{os::fd::OwnedFd, sync::Arc};

use nix::sys::stat::{SFlag, fstat};
use nsm_fdpass::{Connection, InodeId};
use tonic::{Extensions, Status};

use crate::registry::{Error, Owner};

/// Whom the extensions of a request name.
///
/// `host` is the agent's own network namespace: root (or the agent's own user) in there is the operator.
pub(super) fn owner(connection: &Connection, host: Option<InodeId>) -> Owner {
    let peer = &connection.peer;
    let netns = peer.netns.as_ref().map(|netns| netns.id);
    let privileged = peer.uid == 0 || peer.uid == nix::unistd::geteuid().as_raw();
    if netns.is_some() && netns == host && privileged {
        return Owner::Operator;
    }
    Owner::Peer { netns: netns.unwrap_or(InodeId { dev: 0, ino: 0 }), uid: peer.uid }
}

/// The connection that a request came on.
pub(super) fn connection(extensions: &Extensions) -> Result<Connection, Status> {
    let connection = extensions.get::<Connection>().cloned();
    connection.ok_or_else(|| Status::unauthenticated("the registry is served on the agent's unix socket only"))
}

/// The socket that an `inode://` URL names.
pub(super) fn socket(connection: &Connection, url: &str) -> Result<Option<Arc<OwnedFd>>, Error> {
    if !url.starts_with("inode://") {
        return Ok(None);
    }
    let invalid = |expected: &str| Error::Invalid {
        field: "url".into(),
        value: url.chars().take(80).collect(),
        expected: expected.to_owned(),
    };
    let id: InodeId = url.parse().map_err(|_| invalid("inode://DEV/INO with two decimal numbers"))?;
    let Some(file) = connection.inbox.take(id) else { return Ok(None) };
    let is_socket =
        fstat(&file).is_ok_and(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFSOCK);
    if !is_socket {
        return Err(invalid("the file of a listening unix socket"));
    }
    Ok(Some(Arc::new(file)))
}
