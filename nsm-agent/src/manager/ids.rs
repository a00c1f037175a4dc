//! Whose a connection is, and so which id it has here.
//!
//! Guarantee: the id of a connection is a function of its owner and of the id that the owner gave it. A peer that learned
//! another's id gains nothing by it: whatever its path proposes, it gets an id of its own. The same caller with the same id
//! finds its connection again after its own restart and after the agent's.

use std::sync::Arc;

use nsm_fdpass::Peer;
use nsm_netlink::NetnsId;
use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Error, Kind, path, serve::Caller};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    privileges::is_operator,
    share::{Full, Share, Shares},
    state::{AttachmentKey, Owner},
};

/// In an in-process call: the attachment that it is for.
#[derive(Debug, Clone)]
pub struct ForAttachment(pub AttachmentKey);

/// In an in-process call: cancelled when nobody wants its answer any more.
#[derive(Debug, Clone, Default)]
pub struct CalledOff(pub CancellationToken);

/// Derives ids.
#[derive(Debug, Clone)]
pub struct Ids {
    /// Ids of one boot: connections do not survive it.
    space: Uuid,
    /// The agent's own namespace: processes there are the host's.
    own_netns: NetnsId,
}

impl Ids {
    /// For the agent in `own_netns`.
    pub fn new(boot_id: &str, own_netns: NetnsId) -> Arc<Self> {
        Arc::new(Self { space: Uuid::new_v5(&Uuid::NAMESPACE_OID, boot_id.as_bytes()), own_netns })
    }

    /// The agent's own namespace.
    pub fn own_netns(&self) -> NetnsId {
        self.own_netns
    }

    /// Who makes this call.
    pub fn owner(&self, call: &Call) -> Result<Owner, Error> {
        if let Some(ForAttachment(key)) = call.noted() {
            return Ok(Owner::Attachment(key));
        }
        match call.noted::<Caller>() {
            Some(Caller::Peer(peer)) => self.owner_of(&peer),
            Some(Caller::InProcess) | None => Err(Error::new(Kind::Internal, "a call from nobody")),
        }
    }

    /// Who a peer is: its pod, or its user on the host.
    pub fn owner_of(&self, peer: &Peer) -> Result<Owner, Error> {
        match &peer.netns {
            Some(netns) => {
                let netns = NetnsId { dev: netns.id.dev, ino: netns.id.ino };
                Ok(if netns == self.own_netns { Owner::Host { uid: peer.uid } } else { Owner::Pod(netns) })
            }
            None => Err(Error::new(
                Kind::Denied,
                format!(
                    "the kernel does not tell the network namespace of process {} (user {}): the agent needs CAP_NET_ADMIN in it",
                    peer.pid, peer.uid
                ),
            )),
        }
    }

    /// Root (or the agent's own user) in the agent's own namespace: a runtime, or an operator's tool, that may act for pods.
    pub fn acts_for_others(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Host { uid } => is_operator(*uid),
            Owner::Pod(_) | Owner::Attachment(_) => false,
        }
    }

    /// A share for this owner; none for those that are not counted: root on the host, and the runtime, which acts for pods.
    pub fn share(&self, owner: &Owner, shares: &Arc<Shares<Owner>>) -> Result<Option<Share<Owner>>, Full> {
        match owner {
            Owner::Attachment(_) => Ok(None),
            Owner::Pod(_) | Owner::Host { .. } if self.acts_for_others(owner) => Ok(None),
            Owner::Pod(_) | Owner::Host { .. } => shares.take(owner).map(Some),
        }
    }

    /// The id of the owner's connection.
    pub fn id_of(&self, owner: &Owner, client_id: &str) -> String {
        let name = match owner {
            Owner::Attachment(key) if key.client_id() == client_id => {
                format!("attachment\0{}\0{}\0{client_id}", key.container_id, key.ifname)
            }
            // A pod's own: the same in its next sandbox. Only this agent makes such calls.
            Owner::Attachment(_) => format!("attachment of a pod\0{client_id}"),
            Owner::Pod(netns) => format!("pod\0{netns}\0{client_id}"),
            Owner::Host { uid } => format!("host\0{uid}\0{client_id}"),
        };
        Uuid::new_v5(&self.space, name.as_bytes()).to_string()
    }

    /// Whether this connection, as it is at this agent, is the owner's. It is told from the connection alone: the news that one
    /// has ended comes when its record has gone.
    pub fn belongs(&self, connection: &Connection, owner: &Owner) -> bool {
        path::previous(connection).is_some_and(|client| self.id_of(owner, &client.id) == connection.id)
    }
}

impl path::Ids for Ids {
    fn id(&self, call: &Call, connection: &Connection, _: Option<&str>) -> Result<String, Error> {
        Ok(self.id_of(&self.owner(call)?, &connection.id))
    }
}

#[cfg(test)]
mod tests {
    use nsm_proto::connection::{Path, PathSegment};

    use super::*;

    #[test]
    fn an_id_belongs_to_its_owner() {
        let ids = Ids::new("boot", NetnsId { dev: 4, ino: 1 });
        let pod = |ino| Owner::Pod(NetnsId { dev: 4, ino });
        assert_eq!(ids.id_of(&pod(2), "a"), ids.id_of(&pod(2), "a"));
        assert_ne!(ids.id_of(&pod(2), "a"), ids.id_of(&pod(3), "a"));
        assert_ne!(ids.id_of(&pod(2), "a"), ids.id_of(&pod(2), "b"));
        assert_ne!(ids.id_of(&pod(2), "a"), Ids::new("next", ids.own_netns).id_of(&pod(2), "a"));
    }

    #[test]
    fn a_pod_has_its_ids_in_each_sandbox() {
        let ids = Ids::new("boot", NetnsId { dev: 4, ino: 1 });
        let key = |container: &str| AttachmentKey { container_id: container.into(), ifname: "nsm-1".into() };
        let at = |container: &str, client: &str| ids.id_of(&Owner::Attachment(key(container)), client);
        assert_eq!(at("old", "of the pod"), at("new", "of the pod"));
        assert_ne!(at("old", &key("old").client_id()), at("new", &key("new").client_id()));
        assert_ne!(at("old", &key("old").client_id()), at("new", &key("old").client_id()));
    }

    #[test]
    fn root_and_the_agents_own_user_on_the_host_act_for_others() {
        let ids = Ids::new("boot", NetnsId { dev: 4, ino: 1 });
        let own = nix::unistd::geteuid().as_raw();
        for (owner, acts) in [
            (Owner::Host { uid: 0 }, true),
            (Owner::Host { uid: own }, true),
            (Owner::Host { uid: own + 1 }, false),
            (Owner::Pod(NetnsId { dev: 4, ino: 2 }), false),
        ] {
            assert_eq!(ids.acts_for_others(&owner), acts, "{owner}");
        }
    }

    #[test]
    fn a_connection_says_whose_it_is() {
        let ids = Ids::new("boot", NetnsId { dev: 4, ino: 1 });
        let pod = |ino| Owner::Pod(NetnsId { dev: 4, ino });
        let segment = |id: &str| PathSegment { id: id.into(), ..PathSegment::default() };
        let at_us = |id: String| Connection {
            path: Some(Path { index: 1, path_segments: vec![segment("a"), segment(&id), segment("z")] }),
            id,
            ..Connection::default()
        };
        let of_two = at_us(ids.id_of(&pod(2), "a"));
        assert!(ids.belongs(&of_two, &pod(2)));
        assert!(!ids.belongs(&of_two, &pod(3)) && !ids.belongs(&of_two, &Owner::Host { uid: 0 }));
        // Neither the id of another of its own, nor a connection without those before us.
        assert!(!ids.belongs(&at_us(ids.id_of(&pod(2), "b")), &pod(2)));
        assert!(!ids.belongs(&Connection { path: None, ..of_two }, &pod(2)));
    }
}
