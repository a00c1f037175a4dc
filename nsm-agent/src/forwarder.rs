//! What builds a wire between the two mechanisms of a connection.
//!
//! A forwarder plans without touching anything, so that the plan can be recorded before [`Forwarder::apply`] acts on it; what
//! it made can be recognised and undone from the record alone, in another process, in any half-made state. All of it blocks:
//! callers are on threads of their own.

pub mod kernel;
pub mod relay;

use nsm_netlink::{IfName, Mac, Netns};
use nsm_proto::connection::{Connection, Mechanism};
use serde::{Deserialize, Serialize};

use crate::state::RoutePolicy;

/// What was, or is about to be, made: the record of a forwarder, by which it finds its own again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wire {
    /// A pair of kernel interfaces.
    Kernel(Box<kernel::Wire>),
    /// Nothing of ours: the two ends share a file (memif).
    Relay,
}

/// What the two ends agreed on.
#[derive(Debug, Clone)]
pub struct Agreement {
    /// The connection's id at this agent.
    pub id: String,
    /// Context and payload, as the endpoint answered.
    pub connection: Connection,
    /// The client's end.
    pub client: End,
    /// The endpoint's end.
    pub endpoint: End,
    /// What the endpoint may do to the client's routes.
    pub routes: RoutePolicy,
    /// Interfaces of the client's whose addresses and routes this one may have too.
    pub aware: Vec<IfName>,
}

/// One end of a wire to be.
#[derive(Debug, Clone)]
pub struct End {
    /// As that end named it.
    pub mechanism: Mechanism,
    /// Its network namespace, where the mechanism has one.
    pub netns: Option<Netns>,
    /// The hardware address that it must have.
    pub mac: Option<Mac>,
}

/// Whose fault a failure is, which decides whether another endpoint would do better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// What the client asked for cannot be: no other endpoint changes that.
    Client,
    /// What this endpoint answered cannot be done.
    Endpoint,
    /// This node's.
    Node,
}

/// Why a wire cannot be planned, made or undone.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Error {
    /// Who has to change something.
    pub fault: Fault,
    what: String,
    #[source]
    cause: Option<nsm_netlink::Error>,
}

impl Error {
    /// A failure that has no errno behind it.
    pub fn new(fault: Fault, what: impl Into<String>) -> Self {
        Self { fault, what: what.into(), cause: None }
    }

    /// A failure of the kernel's, with what was being done.
    pub fn kernel(fault: Fault, what: impl Into<String>, cause: nsm_netlink::Error) -> Self {
        Self { fault, what: what.into(), cause: Some(cause) }
    }
}

/// What differs from the record of a wire, in a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// The wire, or a part without which it is none, is not there.
    #[error("{0}")]
    Gone(String),
    /// It is there and was changed: the pod's business, and CHECK's.
    #[error("{0}")]
    Changed(String),
}

impl Finding {
    /// Whether there is no wire any more.
    pub fn is_gone(&self) -> bool {
        match self {
            Self::Gone(_) => true,
            Self::Changed(_) => false,
        }
    }
}

/// Builds one kind of wire.
pub trait Forwarder: Send + Sync + 'static {
    /// What is to be made, down to names and hardware addresses. Nothing is touched.
    fn plan(&self, agreement: &Agreement) -> Result<Wire, Error>;

    /// Makes what was planned, or fails and leaves nothing. The answer is the plan with what only the kernel knew.
    fn apply(&self, wire: &Wire, agreement: &Agreement) -> Result<Wire, Error>;

    /// Changes a wire that stands into a new plan of the same two ends, keeping traffic up; `None` when it has to be made anew.
    fn change(&self, wire: &Wire, plan: &Wire, agreement: &Agreement) -> Result<Option<Wire>, Error>;

    /// Removes what is there of a wire. What is missing is fine; what is not ours stays. Policy rules do not go with their
    /// interface: they are removed where the client's namespace is given.
    fn undo(&self, wire: &Wire, client: Option<&Netns>) -> Result<(), Error>;

    /// What differs from the record: whether both ends are there, and all that belongs to the client's where its namespace
    /// is given. Empty when all is as it was made.
    fn inspect(&self, wire: &Wire, client: Option<&Netns>) -> Result<Vec<Finding>, Error>;

    /// What differs of all that belongs to the endpoint's end. `endpoint`: the namespace that it registered from.
    fn inspect_endpoint(&self, wire: &Wire, endpoint: Option<&Netns>) -> Result<Vec<Finding>, Error>;
}

/// The forwarders of this node, by the mechanisms they join.
pub struct Forwarders {
    kernel: kernel::Kernel,
    relay: relay::Relay,
}

impl Forwarders {
    /// Those of this version.
    pub fn new(kernel: kernel::Kernel) -> Self {
        Self { kernel, relay: relay::Relay }
    }

    /// The one that joins these two types of mechanism.
    pub fn joining(&self, client: &str, endpoint: &str) -> Result<&dyn Forwarder, Error> {
        use nsm_proto::mechanism::{KERNEL, MEMIF};
        match (client, endpoint) {
            (KERNEL, KERNEL) => Ok(&self.kernel),
            (MEMIF, MEMIF) => Ok(&self.relay),
            _ => Err(Error::new(
                Fault::Endpoint,
                format!(
                    "the client takes {client}, the endpoint answered {endpoint}: this agent joins KERNEL to KERNEL and MEMIF to MEMIF"
                ),
            )),
        }
    }

    /// The one that made this wire.
    pub fn of(&self, wire: &Wire) -> &dyn Forwarder {
        match wire {
            Wire::Kernel(_) => &self.kernel,
            Wire::Relay => &self.relay,
        }
    }
}
