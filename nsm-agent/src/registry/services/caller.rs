//! Who calls, and the files that came along.

use std::{os::fd::OwnedFd, sync::Arc};

use nsm_fdpass::{Connection, InodeId};
use tonic::{Extensions, Status};

use crate::{
    manager::Ids,
    registry::{Error, Owner},
    state::Owner as CallOwner,
};

/// To whom belongs what this peer registers. A peer whose namespace is not known is nobody: it could be any pod.
pub(super) fn owner(connection: &Connection, ids: &Ids) -> Result<Owner, Status> {
    let peer = &connection.peer;
    let who = ids.owner_of(peer)?;
    match (&who, &peer.netns) {
        (CallOwner::Host { pod: Some(pod), .. }, _) => Ok(Owner::PodOfHost(*pod)),
        (_, Some(netns)) if !ids.acts_for_others(&who) => Ok(Owner::Peer { netns: netns.id, uid: peer.uid }),
        (_, Some(_) | None) => Ok(Owner::Operator),
    }
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
    if !nsm_fdpass::is_socket(&file).unwrap_or(false) {
        return Err(invalid("the file of a listening unix socket"));
    }
    Ok(Some(Arc::new(file)))
}

#[cfg(test)]
mod tests {
    use nsm_fdpass::{Asked, Inbox, Outbox, Peer, PeerNetns, Process};
    use nsm_netlink::NetnsId;

    use super::*;

    fn connected(netns: Option<PeerNetns>) -> Connection {
        let peer = Peer { netns, pid: 7, uid: 0, gid: 0, process: Process::Unseen, asked: Asked::default() };
        Connection { peer: Arc::new(peer), inbox: Inbox::default(), outbox: Outbox::default() }
    }

    #[test]
    fn a_peer_of_an_unknown_namespace_is_nobody() {
        let file: OwnedFd = std::fs::File::open("/proc/self/ns/net").unwrap().into();
        let id = InodeId::of(&file).unwrap();
        let of = |id: InodeId| Ids::new("boot", NetnsId { dev: id.dev, ino: id.ino });
        let (here, elsewhere) = (of(id), of(InodeId { dev: 0, ino: 0 }));
        assert_eq!(owner(&connected(None), &elsewhere).unwrap_err().code(), tonic::Code::PermissionDenied);
        let known = connected(Some(PeerNetns { fd: Arc::new(file), id }));
        assert_eq!(owner(&known, &here).unwrap(), Owner::Operator);
        assert_eq!(owner(&known, &elsewhere).unwrap(), Owner::Peer { netns: id, uid: 0 });
    }
}
