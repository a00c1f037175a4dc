//! A registered endpoint: as on the wire, whose it is, and whether and how it is dialled.

use std::{collections::BTreeMap, os::fd::OwnedFd, sync::Arc};

use nsm_netlink::Netns;
use nsm_proto::registry::NetworkServiceEndpoint;
use tokio::time::Instant;

use super::{Owner, Party};

/// A registered endpoint.
#[derive(Debug)]
pub struct Entry {
    /// As on the wire.
    pub message: Arc<NetworkServiceEndpoint>,
    /// Who may change it.
    pub owner: Owner,
    /// How it is dialled.
    pub reach: Reach,
    /// Whose pod it is, which decides what it may serve.
    pub party: Party,
    /// The network namespace of the process that registered it.
    pub netns: Option<Netns>,
    /// The process that passed its own socket, whose end is the endpoint's.
    pub(super) process: Option<i64>,
    pub(super) place: u64,
    pub(super) deadline: Option<Instant>,
}

/// How an endpoint is dialled.
#[derive(Debug, Clone)]
pub enum Reach {
    /// Through its listening socket, which came with its registration.
    Socket(Arc<OwnedFd>),
    /// By its URL.
    Url,
    /// Not until it registers again: the agent restarted, and its socket's file was lost with the old process.
    Lost,
    /// Not by this agent: it is of the named node, or where none is named, of no node's agent.
    Elsewhere(Arc<str>),
}

impl Reach {
    /// Whether it keeps a file open.
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::Socket(_) => true,
            Self::Url | Self::Lost | Self::Elsewhere(_) => false,
        }
    }

    /// Whether both are dialled in the same way.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Socket(one), Self::Socket(other)) => Arc::ptr_eq(one, other),
            (Self::Elsewhere(one), Self::Elsewhere(other)) => one == other,
            (Self::Url, Self::Url) | (Self::Lost, Self::Lost) => true,
            (Self::Socket(_) | Self::Url | Self::Lost | Self::Elsewhere(_), _) => false,
        }
    }
}

/// Whether an endpoint can be dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It can.
    Reachable,
    /// Not until it registers again, which it is about to do.
    Returning,
    /// Not by this agent, whatever it does but register with another URL.
    Foreign,
}

/// How URLs begin that this agent dials.
pub(crate) const DIALLED: &str = "unix://";

impl Entry {
    /// Its labels for that service.
    pub fn labels(&self, service: &str) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.message.network_service_labels.get(service).map_or(&NONE, |labels| &labels.labels)
    }

    /// Whether it can be dialled.
    pub fn standing(&self) -> Standing {
        match self.reach {
            Reach::Lost => Standing::Returning,
            Reach::Elsewhere(_) => Standing::Foreign,
            Reach::Url if !self.message.url.starts_with(DIALLED) => Standing::Foreign,
            Reach::Socket(_) | Reach::Url => Standing::Reachable,
        }
    }

    /// Why it cannot be dialled; `None` when it can.
    pub fn unreachable(&self) -> Option<String> {
        match self.standing() {
            Standing::Reachable => None,
            Standing::Returning => {
                Some("its socket was lost when the agent restarted; it comes back when it registers again".to_owned())
            }
            Standing::Foreign => Some(match &self.reach {
                Reach::Elsewhere(node) if node.is_empty() => {
                    "no node's agent has registered it, and this version dials endpoints of its own node only"
                        .to_owned()
                }
                Reach::Elsewhere(node) => format!("it is on node {node}; this version connects within a node only"),
                Reach::Socket(_) | Reach::Url | Reach::Lost => {
                    format!("its URL {:?} is none that this agent dials: expected {DIALLED}PATH", self.message.url)
                }
            }),
        }
    }

    /// Its place among all endpoints, which it keeps while it is registered.
    pub fn place(&self) -> u64 {
        self.place
    }

    pub(super) fn lives(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| deadline > now)
    }
}
