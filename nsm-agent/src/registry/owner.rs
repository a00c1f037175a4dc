//! Who registers: what the kernel says about the peer of a socket, never what the peer says about itself.

use std::{fmt, os::fd::OwnedFd, sync::Arc, time::SystemTime};

use nsm_fdpass::{InodeId, Peer};
use nsm_netlink::Netns;

use crate::processes::PodUid;

/// To whom a registered object belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Owner {
    /// Root in the agent's own network namespace: may change everything.
    Operator,
    /// Another node, another registry: who it is there is not known here.
    Elsewhere,
    /// Somebody of before this machine booted, or of a node that has gone: nobody is it any more.
    Departed,
    /// A user in a network namespace: a pod, usually. The same after a restart of its process.
    Peer {
        /// Its network namespace.
        netns: InodeId,
        /// Its user, as the agent's user namespace numbers it.
        uid: u32,
    },
    /// A pod in the host's network, by its process. The same after a restart of that.
    PodOfHost(PodUid),
}

impl Owner {
    /// Whether this caller may change what `other` registered.
    pub fn may_change(self, other: Self) -> bool {
        self == Self::Operator || self == other
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => write!(f, "operator"),
            Self::Elsewhere => write!(f, "another node"),
            Self::Departed => write!(f, "a pod of an earlier boot, or of a node that has gone"),
            Self::Peer { netns, uid } => write!(f, "user {uid} in network namespace {}", netns.ino),
            Self::PodOfHost(pod) => write!(f, "pod {pod} in the host's network"),
        }
    }
}

/// Who registers an endpoint, and with what.
#[derive(Debug, Clone)]
pub struct Registrant {
    /// To whom the endpoint will belong.
    pub owner: Owner,
    /// The process at the other end of the socket.
    pub process: Option<Arc<Peer>>,
    /// The network namespace of that process.
    pub netns: Option<Netns>,
    /// The file that the endpoint's `inode://` URL names: its listening socket.
    pub socket: Option<Arc<OwnedFd>>,
    /// How long the registration lasts.
    pub term: Term,
}

impl Registrant {
    /// The operator's own word, which needs no renewal.
    pub fn operator() -> Self {
        Self { owner: Owner::Operator, process: None, netns: None, socket: None, term: Term::Standing }
    }
}

/// How long a registration lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Term {
    /// As long as it asks for; for good when it does not ask.
    Standing,
    /// Until it must be renewed: the least of what it asks for, the registry's own bound and the caller's token.
    Renewed {
        /// When the caller's token expires.
        token: Option<SystemTime>,
    },
}
