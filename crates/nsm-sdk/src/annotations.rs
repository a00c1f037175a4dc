//! The annotations by which a pod asks for network services.
//!
//! | annotation | value |
//! |---|---|
//! | `networkservicemesh.io` | `kernel://service/interface?label=value`, separated by commas; interface and labels may be absent |
//! | `ns.networkservicemesh.io` | `service?label=value`, separated by commas, as in 2019 |
//!
//! Guarantees: one reader for the agent, which follows them, and for programs that write them, so that what the agent would refuse
//! can be refused before, in the same words. The wishes of a pod and of its namespace are joined; one that is the same in both
//! counts once. An interface's name that is asked for twice is refused. Everything is bounded.

use std::{collections::BTreeMap, fmt};

use nsm_cni_types::{RESERVED_LABELS, pods};

pub use nsm_cni_types::pods::Annotations;

use crate::{
    kernel::InterfaceName,
    settings::{InvalidServiceUrl, ServiceUrl, Wire},
};

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
    pub interface: Option<InterfaceName>,
    /// The client's labels, without those that the agent gives.
    pub labels: BTreeMap<String, String>,
}

/// An annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// On whom it is.
    pub of: Annotated,
    /// How its entries are written.
    pub form: Form,
}

/// What an annotation is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Annotated {
    /// A pod.
    Pod,
    /// A namespace, for its pods.
    Namespace,
}

/// How the entries of an annotation are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// That of NSM v1: [`pods::ANNOTATION`].
    V1,
    /// That of 2019: [`pods::ANNOTATION_2019`].
    V2019,
}

impl Form {
    /// The annotation's key.
    pub fn key(self) -> &'static str {
        match self {
            Self::V1 => pods::ANNOTATION,
            Self::V2019 => pods::ANNOTATION_2019,
        }
    }

    fn text(self, annotations: &Annotations) -> Option<&str> {
        match self {
            Self::V1 => annotations.services.as_deref(),
            Self::V2019 => annotations.services_2019.as_deref(),
        }
    }
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
        name: InterfaceName,
        /// The one service.
        first: String,
        /// The other.
        second: String,
    },
    /// The name is somebody else's.
    #[error("interface {name} of {service:?} is the pod's already, by another plugin or attachment: name another one")]
    Taken {
        /// The name.
        name: InterfaceName,
        /// The service that wants it.
        service: String,
    },
    /// More than [`MOST`].
    #[error("{0} network services are asked for: expected at most {MOST}")]
    Many(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            Annotated::Pod => "pod",
            Annotated::Namespace => "namespace",
        };
        write!(f, "annotation {} of the {of}", self.form.key())
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
        for (of, annotations) in [(Annotated::Pod, &self.pod), (Annotated::Namespace, &self.namespace)] {
            for form in [Form::V1, Form::V2019] {
                let Some(text) = form.text(annotations) else { continue };
                let before = all.len();
                for wish in read(Place { of, form }, text)? {
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

/// Refuses wishes whose own name is somebody else's.
///
/// # Errors
/// [`Error::Taken`].
pub fn not_taken(wishes: &[Wish], taken: impl Fn(&str) -> bool) -> Result<(), Error> {
    for Wish { service, interface, .. } in wishes {
        if let Some(name) = interface.as_ref().filter(|name| taken(name.as_str())) {
            return Err(Error::Taken { name: name.clone(), service: service.clone() });
        }
    }
    Ok(())
}

/// The entries of an annotation, as they are written.
pub fn entries(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn read(place: Place, text: &str) -> Result<Vec<Wish>, Error> {
    if text.len() > LONGEST {
        return Err(Error::Long { place, bytes: text.len() });
    }
    entries(text).map(|entry| Wish::of_entry(place, entry)).collect()
}

impl Wish {
    /// Reads one entry of an annotation.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn of_entry(place: Place, entry: &str) -> Result<Self, Error> {
        let quoted = || entry.chars().take(QUOTED).collect::<String>();
        let url = match place.form {
            Form::V1 => entry.parse(),
            Form::V2019 if entry.contains("://") => return Err(Error::Form { place, entry: quoted() }),
            Form::V2019 => format!("kernel://{entry}").parse::<ServiceUrl>(),
        };
        let ServiceUrl { wire, service, interface, labels } = url.map_err(|cause| Error::Entry { place, cause })?;
        match wire {
            Wire::Kernel => {}
            Wire::Memif => return Err(Error::Mechanism { place, entry: quoted() }),
        }
        if let Some(label) = RESERVED_LABELS.into_iter().find(|label| labels.contains_key(*label)) {
            return Err(Error::Reserved { place, entry: quoted(), label });
        }
        Ok(Self { service, interface, labels })
    }
}

#[cfg(test)]
mod tests;
