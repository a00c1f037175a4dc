//! The annotations by which a pod asks for network services.
//!
//! | annotation | value |
//! |---|---|
//! | `networkservicemesh.io` | `kernel://service/interface?label=value`, separated by commas; interface and labels may be absent |
//! | `ns.networkservicemesh.io` | `service?label=value`, separated by commas, as in 2019 |
//!
//! Guarantees: one reader for pods that start and pods that run. The wishes of a pod and of its namespace are joined; one that is
//! the same in both counts once. An interface's name that is taken twice is refused. The same wishes get the same names; a wish
//! without a name keeps the interface that it has. Everything is bounded.

mod names;

use std::{collections::BTreeMap, fmt};

use async_trait::async_trait;
use nsm_cni_types::{RESERVED_LABELS, pods};
use nsm_netlink::IfName;
use nsm_sdk::settings::{InvalidServiceUrl, ServiceUrl, Wire};
use tokio::time::Instant;

pub use names::{Named, named};
pub use nsm_cni_types::pods::Annotations;

use crate::state::{AttachmentKey, Pod};

/// Most network services of one pod.
pub const MOST: usize = 32;
/// Longest annotation, in bytes.
pub const LONGEST: usize = 64 << 10;
/// Longest entry that an error quotes, in characters.
const QUOTED: usize = 120;

/// What a pod asks for, as it is written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// The pod's own.
    pub pod: Annotations,
    /// Its namespace's.
    pub namespace: Annotations,
}

/// One network service that a pod wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The network service.
    pub service: String,
    /// The interface's name, where the pod says one.
    pub interface: Option<IfName>,
    /// The client's labels, without those that the agent gives.
    pub labels: BTreeMap<String, String>,
}

/// An annotation, by whom it is on and its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// `pod` or `namespace`.
    pub of: &'static str,
    /// Its key.
    pub key: &'static str,
}

/// Why annotations cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Longer than [`LONGEST`].
    #[error("{place} has {bytes} bytes: expected at most {LONGEST}")]
    Long {
        /// Which one.
        place: Place,
        /// Its length.
        bytes: usize,
    },
    /// An entry that is none.
    #[error("{place}: {cause}")]
    Entry {
        /// Which annotation.
        place: Place,
        /// What is wrong.
        cause: InvalidServiceUrl,
    },
    /// An entry in the other annotation's form.
    #[error(
        "{place}: {entry:?} is written as in {}: expected service?label=value, or that annotation",
        pods::ANNOTATION
    )]
    Form {
        /// Which annotation.
        place: Place,
        /// The entry.
        entry: String,
    },
    /// A mechanism that a pod's annotation cannot ask for.
    #[error(
        "{place}: {entry:?} asks for a shared memory interface: expected kernel://, which is all that an annotation can have"
    )]
    Mechanism {
        /// Which annotation.
        place: Place,
        /// The entry.
        entry: String,
    },
    /// A label that is the agent's to give.
    #[error("{place}: {entry:?} sets label {label}, which the agent gives: expected another label")]
    Reserved {
        /// Which annotation.
        place: Place,
        /// The entry.
        entry: String,
        /// The label.
        label: &'static str,
    },
    /// Two wishes want one name.
    #[error("interface {name} is asked for twice, for {first:?} and for {second:?}: name another one")]
    Twice {
        /// The name.
        name: IfName,
        /// The one service.
        first: String,
        /// The other.
        second: String,
    },
    /// The name is somebody else's.
    #[error("interface {name} of {service:?} is the pod's already, by another plugin or attachment: name another one")]
    Taken {
        /// The name.
        name: IfName,
        /// The service that wants it.
        service: String,
    },
    /// More than [`MOST`].
    #[error("{0} network services are asked for: expected at most {MOST}")]
    Many(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "annotation {} of the {}", self.key, self.of)
    }
}

impl Asked {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.pod.is_empty() && self.namespace.is_empty()
    }

    /// Reads all annotations: the pod's come first, and of each the one of NSM v1.
    ///
    /// # Errors
    /// The first mistake: half of what a pod asks for is not what it asks for.
    pub fn wishes(&self) -> Result<Vec<Wish>, Error> {
        let mut all: Vec<Wish> = Vec::new();
        for (of, annotations) in [("pod", &self.pod), ("namespace", &self.namespace)] {
            let v1 = (pods::ANNOTATION, &annotations.services);
            for (key, text) in [v1, (pods::ANNOTATION_2019, &annotations.services_2019)] {
                let Some(text) = text else { continue };
                let before = all.len();
                for wish in read(Place { of, key }, text)? {
                    if !all[..before].contains(&wish) {
                        all.push(wish);
                    }
                }
            }
        }
        if all.len() > MOST {
            return Err(Error::Many(all.len()));
        }
        for (place, wish) in all.iter().enumerate() {
            let Some(name) = &wish.interface else { continue };
            if let Some(first) = all[..place].iter().find(|other| other.interface.as_ref() == Some(name)) {
                let (first, second) = (first.service.clone(), wish.service.clone());
                return Err(Error::Twice { name: name.clone(), first, second });
            }
        }
        Ok(all)
    }
}

fn read(place: Place, text: &str) -> Result<Vec<Wish>, Error> {
    if text.len() > LONGEST {
        return Err(Error::Long { place, bytes: text.len() });
    }
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    entries.map(|entry| one(place, entry)).collect()
}

fn one(place: Place, entry: &str) -> Result<Wish, Error> {
    let quoted = || entry.chars().take(QUOTED).collect::<String>();
    let url = if place.key == pods::ANNOTATION_2019 {
        if entry.contains("://") {
            return Err(Error::Form { place, entry: quoted() });
        }
        format!("kernel://{entry}").parse::<ServiceUrl>()
    } else {
        entry.parse()
    };
    let ServiceUrl { wire, service, interface, labels } = url.map_err(|cause| Error::Entry { place, cause })?;
    match wire {
        Wire::Kernel => {}
        Wire::Memif => return Err(Error::Mechanism { place, entry: quoted() }),
    }
    if let Some(label) = RESERVED_LABELS.into_iter().find(|label| labels.contains_key(*label)) {
        return Err(Error::Reserved { place, entry: quoted(), label });
    }
    // Both types have the same rule.
    let interface = interface.and_then(|name| IfName::new(name.as_str()).ok());
    Ok(Wish { service, interface, labels })
}

/// Knows the annotations of pods by other means than the CNI call: a watch of the API server.
#[async_trait]
pub trait Elsewhere: Send + Sync + 'static {
    /// What a pod that starts asks for, its namespace's annotations included. `None`: it is not known by `deadline`, which is
    /// waited for; what the pod asks for is then made when it is known.
    async fn asked(&self, pod: &Pod, deadline: Instant) -> Option<Asked>;

    /// What a namespace asks for its pods. `None`: it is not known by `deadline`, which is waited for.
    async fn of_namespace(&self, namespace: &str, deadline: Instant) -> Option<Annotations>;

    /// Hears that a pod's ADD has ended well, whatever it made.
    fn added(&self, _pod: &Pod, _call: &AttachmentKey) {}

    /// Hears that what a pod asks for was refused at its ADD, and why.
    fn refused(&self, _pod: &Pod, _why: &str) {}
}

/// There is no such means: the runtime's word and the host's files are all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

#[async_trait]
impl Elsewhere for Nowhere {
    async fn asked(&self, _: &Pod, _: Instant) -> Option<Asked> {
        None
    }

    async fn of_namespace(&self, _: &str, _: Instant) -> Option<Annotations> {
        None
    }
}

#[cfg(test)]
mod tests;
