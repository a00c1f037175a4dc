//! What goes wrong, told apart by type; where the context is known, errno becomes advice.

use std::fmt;
use std::io;
use std::time::Duration;

use ipnetwork::IpNetwork;
use nix::errno::Errno;

use crate::{IfIndex, IfName, NetnsId, Route, Rule};

/// Why an operation on links, addresses, routes, rules, neighbours or namespaces failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or descriptor is not what it was said to be.
    #[error("{what} is {found}; expected a network namespace")]
    NotNetns {
        /// The path or descriptor.
        what: String,
        /// What it is instead.
        found: String,
    },
    /// A system call outside netlink messages failed.
    #[error("cannot {operation}: {reason}{}", advice_text(io_advice(reason)))]
    Io {
        /// What was tried.
        operation: String,
        /// Why it failed.
        reason: io::Error,
    },
    /// The kernel refused a message.
    #[error("{0}")]
    Refused(Refusal),
    /// A link of that name is already in that namespace.
    #[error("interface name {name} is taken in network namespace {netns}")]
    NameTaken {
        /// The name.
        name: IfName,
        /// The namespace.
        netns: NetnsId,
    },
    /// The namespace has a route to the same destination with the same metric; it was left alone.
    #[error("route {0} exists in the namespace already")]
    RouteTaken(Route),
    /// The link has the address already.
    #[error("address {0} exists on the interface already")]
    AddressTaken(IpNetwork),
    /// The namespace has the same policy rule already.
    #[error("rule {0} exists in the namespace already")]
    RuleTaken(Rule),
    /// A link is there, but it is not the one that was to be deleted.
    #[error("interface {index} ({name}) is not ours: {found} instead of {expected}")]
    NotOurs {
        /// Its index.
        index: IfIndex,
        /// Its name.
        name: String,
        /// What was expected of it.
        expected: String,
        /// What it has.
        found: String,
    },
    /// There is no such link (any more).
    #[error("interface {0} does not exist")]
    NoLink(IfIndex),
    /// A configuration contradicts itself; nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// No answer came in time. Whether the kernel did it is unknown: look.
    #[error("no answer within {after:?} when trying to {operation}")]
    Timeout {
        /// What was tried.
        operation: String,
        /// How long the answer was waited for.
        after: Duration,
    },
    /// Answers were lost for want of buffer space. Whether the kernel did it is unknown: look.
    #[error("the kernel's answer was lost (receive buffer full) when trying to {operation}")]
    Overrun {
        /// What was tried.
        operation: String,
    },
    /// A dump changed under our eyes on every attempt.
    #[error("no consistent answer in {attempts} attempts to {operation}")]
    Unstable {
        /// What was tried.
        operation: String,
        /// How often.
        attempts: u32,
    },
    /// A message from the kernel is cut or makes no sense.
    #[error("unreadable answer when trying to {operation}: {detail}")]
    Malformed {
        /// What was tried.
        operation: String,
        /// What is wrong with the answer.
        detail: String,
    },
    /// Work inside a namespace panicked.
    #[error("work in a network namespace panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

impl Error {
    pub(crate) fn io(operation: impl Into<String>, reason: io::Error) -> Self {
        Self::Io { operation: operation.into(), reason }
    }

    /// What was asked for may or may not have happened: the answer is missing.
    pub fn is_unknown_outcome(&self) -> bool {
        matches!(self, Self::Timeout { .. } | Self::Overrun { .. } | Self::Malformed { .. })
    }

    /// The link or the namespace is not there (any more).
    pub fn is_gone(&self) -> bool {
        match self {
            Self::NoLink(_) => true,
            Self::Refused(refusal) => refusal.is_gone(),
            Self::Io { reason, .. } => reason.kind() == io::ErrorKind::NotFound,
            _ => false,
        }
    }

    /// Something that is not ours is in the way: another name, address, route or rule helps, waiting does not.
    pub fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::NameTaken { .. }
                | Self::RouteTaken(_)
                | Self::AddressTaken(_)
                | Self::RuleTaken(_)
                | Self::NotOurs { .. }
        )
    }
}

/// The kernel's no to one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub operation: String,
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words, when it has any (extended acknowledgement).
    pub detail: Option<String>,
    pub(crate) subject: Subject,
}

/// What a message is about: the context that turns errno into advice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Link,
    Address { v6: bool },
    Route,
    Rule,
    Neighbour,
    Netns,
}

impl Refusal {
    /// There is no such link.
    pub fn is_gone(&self) -> bool {
        self.errno == Errno::ENODEV
    }

    /// There was nothing to remove.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self.errno, Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
    }

    /// What to do about it, where that is known.
    pub fn advice(&self) -> Option<&'static str> {
        match (self.errno, self.subject) {
            (Errno::EPERM, _) => Some("it needs CAP_NET_ADMIN over that network namespace"),
            (Errno::EACCES, Subject::Address { v6: true }) => Some("is IPv6 disabled on the interface (disable_ipv6)?"),
            (Errno::ENETUNREACH | Errno::EHOSTUNREACH, Subject::Route) => {
                Some("is the gateway of the same family as an address of the interface?")
            }
            (Errno::ENETDOWN, Subject::Route | Subject::Neighbour) => Some("is the interface up?"),
            (Errno::EOPNOTSUPP, Subject::Link) => Some("does this kernel have veth (CONFIG_VETH)?"),
            (Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, Subject::Rule) => {
                Some("does this kernel have policy routing (CONFIG_IP_MULTIPLE_TABLES)?")
            }
            (Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT, Subject::Address { v6: true }) => {
                Some("does this kernel have IPv6?")
            }
            (Errno::ENFILE | Errno::EMFILE | Errno::ENOMEM | Errno::ENOBUFS, _) => {
                Some("the node is short of memory or files")
            }
            (Errno::ENOSPC, Subject::Netns) => {
                Some("the limit of network namespaces is reached (user.max_net_namespaces)")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}: {}", self.operation, self.errno.desc())?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        f.write_str(&advice_text(self.advice()))
    }
}

fn advice_text(advice: Option<&str>) -> String {
    advice.map(|text| format!("; {text}")).unwrap_or_default()
}

fn io_advice(reason: &io::Error) -> Option<&'static str> {
    match reason.kind() {
        io::ErrorKind::PermissionDenied => Some("it needs CAP_NET_ADMIN, CAP_NET_BROADCAST and CAP_SYS_ADMIN"),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the agent needs a writable /proc/sys/net: in a container, the host's by --proc-sys")
        }
        _ => None,
    }
}
