//! Whose a connection is, and so which id it has here.
//!
//! Guarantee: the id of a connection is a function of its owner and of the id that the owner gave it. A peer that learned
//! another's id gains nothing by it: whatever its path proposes, it gets an id of its own. The same caller with the same id
//! finds its connection again after its own restart and after the agent's.

use std::sync::Arc;

use nsm_fdpass::{Groups, Peer, Process};
use nsm_netlink::NetnsId;
use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Error, Kind, path, serve::Caller};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    privileges::is_operator,
    processes::{self, PodUid},
    share::{Full, Share, Shares},
    state::{AttachmentKey, Owner, Proof},
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
    /// The agent's own namespace: processes there are the host's, or of pods in its network.
    own_netns: NetnsId,
    /// The agent's own control groups.
    own_groups: String,
}

impl Ids {
    /// For the agent in `own_netns`.
    pub fn new(boot_id: &str, own_netns: NetnsId) -> Arc<Self> {
        let space = Uuid::new_v5(&Uuid::NAMESPACE_OID, boot_id.as_bytes());
        // A few lines that the kernel has at hand.
        let own_groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        Arc::new(Self { space, own_netns, own_groups })
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

    /// Who a peer is: its pod, or its user on the host. Pods in the host's network are told from the host where somebody has asked for the
    /// peer's control groups and processes can be seen.
    pub fn owner_of(&self, peer: &Peer) -> Result<Owner, Error> {
        match &peer.netns {
            Some(netns) => {
                let netns = NetnsId { dev: netns.id.dev, ino: netns.id.ino };
                if netns != self.own_netns {
                    return Ok(Owner::Pod(netns));
                }
                let (pod, proof) = self.pod_in_our_network(peer)?;
                Ok(Owner::Host { uid: peer.uid, pod, proof })
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

    /// Whether a peer is in the agent's own network namespace, where processes tell who it is.
    pub fn is_in_our_network(&self, peer: &Peer) -> bool {
        let own = self.own_netns;
        peer.netns.as_ref().is_some_and(|netns| (netns.id.dev, netns.id.ino) == (own.dev, own.ino))
    }

    fn pod_in_our_network(&self, peer: &Peer) -> Result<(Option<PodUid>, Proof), Error> {
        let nobody = |why: &dyn std::fmt::Display| {
            let who = format!("of process {} (user {}) the pod is not known", peer.pid, peer.uid);
            Error::new(Kind::Denied, format!("{who}: {why}; connect again from a process that stays"))
        };
        match peer.groups() {
            None | Some(Groups::Unseen) => Ok((None, Proof::Enough)),
            Some(Groups::Told(groups)) => {
                let pod = processes::pod_of(groups, &self.own_groups).map_err(|several| nobody(&several))?;
                let proof = match peer.process {
                    Process::Proved(_) => Proof::Enough,
                    Process::Numbered(_) | Process::Ended | Process::Unseen | Process::Failed(_) => Proof::NumberOnly,
                };
                Ok((pod, proof))
            }
            Some(Groups::Ended) => Err(nobody(&"it has ended, and who has its socket now could be anybody")),
            Some(Groups::Failed(why)) => Err(nobody(why)),
        }
    }

    /// Root (or the agent's own user) on the host: a runtime, or an operator's tool, that may act for pods. Where pods are told from the
    /// host by processes, the kernel must have said which process it is: a number alone can be made to be one of the host's.
    pub fn acts_for_others(&self, owner: &Owner) -> bool {
        match owner {
            Owner::Host { uid, pod: None, proof: Proof::Enough } => is_operator(*uid),
            Owner::Host { .. } | Owner::Pod(_) | Owner::Attachment(_) => false,
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
            Owner::Host { uid, pod: None, .. } => format!("host\0{uid}\0{client_id}"),
            // As in its own network, all of a pod's users are one.
            Owner::Host { pod: Some(pod), .. } => format!("pod of the host\0{pod}\0{client_id}"),
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
    use std::{
        io::Write,
        os::fd::OwnedFd,
        process::{Command, Stdio},
    };

    use nsm_fdpass::{Asked, InodeId, PeerNetns};
    use nsm_proto::connection::{Path, PathSegment};

    use super::*;

    const POD: &str = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0";

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
        let host = |uid| Owner::Host { uid, pod: None, proof: Proof::Enough };
        for (owner, acts) in [
            (host(0), true),
            (host(own), true),
            (host(own + 1), false),
            (Owner::Host { uid: 0, pod: Some(POD.parse().unwrap()), proof: Proof::Enough }, false),
            (Owner::Host { uid: 0, pod: None, proof: Proof::NumberOnly }, false),
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
        let host = |uid| Owner::Host { uid, pod: None, proof: Proof::Enough };
        let of_two = at_us(ids.id_of(&pod(2), "a"));
        assert!(ids.belongs(&of_two, &pod(2)));
        assert!(!ids.belongs(&of_two, &pod(3)) && !ids.belongs(&of_two, &host(0)));
        // Neither the id of another of its own, nor a connection without those before us.
        assert!(!ids.belongs(&at_us(ids.id_of(&pod(2), "b")), &pod(2)));
        assert!(!ids.belongs(&Connection { path: None, ..of_two }, &pod(2)));
    }

    #[test]
    fn a_process_of_our_network_is_known_while_it_lives() {
        let file: OwnedFd = std::fs::File::open("/proc/self/ns/net").unwrap().into();
        let id = InodeId::of(&file).unwrap();
        let ids = Ids::new("boot", NetnsId { dev: id.dev, ino: id.ino });
        let netns = PeerNetns { fd: Arc::new(file), id };
        let of =
            |pid, process| Peer { netns: Some(netns.clone()), pid, uid: 0, gid: 0, process, asked: Asked::default() };
        let host = |proof| Owner::Host { uid: 0, pod: None, proof };
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let Process::Numbered(held) = Process::of_number(pid) else { panic!("{pid} lives") };
        let proved = || of(pid, Process::Proved(held.clone()));
        let (living, ended, unseen) = (proved(), proved(), of(0, Process::Unseen));
        assert!(ids.is_in_our_network(&living));
        assert_eq!(ids.owner_of(&living).unwrap(), host(Proof::Enough), "nobody asked");
        for known in [&living, &unseen] {
            known.ask_groups();
            assert_eq!(ids.owner_of(known).unwrap(), host(Proof::Enough));
        }
        // Root of the host, as far as a number tells: it may be anybody's who made it be one of the host's.
        let numbered = of(pid, Process::Numbered(held.clone()));
        numbered.ask_groups();
        let owner = ids.owner_of(&numbered).unwrap();
        assert_eq!(owner, host(Proof::NumberOnly));
        assert!(!ids.acts_for_others(&owner));
        child.stdin.take().unwrap().flush().unwrap();
        child.wait().unwrap();
        ended.ask_groups();
        let refused = ids.owner_of(&ended).unwrap_err().to_string();
        assert!(refused.contains("it has ended") && refused.contains(&pid.to_string()), "{refused}");
    }

    #[test]
    fn all_users_of_a_pod_in_our_network_are_one() {
        let ids = Ids::new("boot", NetnsId { dev: 4, ino: 1 });
        let of = |uid| Owner::Host { uid, pod: Some(POD.parse().unwrap()), proof: Proof::Enough };
        assert_eq!(ids.id_of(&of(0), "a"), ids.id_of(&of(1000), "a"));
        let host = Owner::Host { uid: 0, pod: None, proof: Proof::Enough };
        assert_ne!(ids.id_of(&of(0), "a"), ids.id_of(&host, "a"));
    }
}
