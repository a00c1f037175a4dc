//! Why there is no plan.

/// Why a pod's networks cannot be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An annotation that is not what the specification says.
    #[error("annotation {key}: {why}")]
    Annotation {
        /// Which one.
        key: &'static str,
        /// All that is wrong with it.
        why: String,
    },
    /// There is no such object.
    #[error(
        "there is no NetworkAttachmentDefinition {name:?} in namespace {namespace:?}: create it, or name another one in the pod's annotation"
    )]
    NoDefinition {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The pod may not use networks of that namespace.
    #[error(
        "NetworkAttachmentDefinition \"{namespace}/{name}\" is not for pods of namespace {pod:?}: namespaceIsolation is on, expected one of \
         {pod:?} or of globalNamespaces ({global})"
    )]
    Isolated {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The pod's namespace.
        pod: String,
        /// `globalNamespaces`.
        global: String,
    },
    /// A network that is not attached, whatever the pod.
    #[error("network {network:?}: {why}")]
    Refused {
        /// Which one.
        network: String,
        /// Why, and what was expected.
        why: String,
    },
    /// The pod has no device for it.
    #[error("network {network:?} needs a device of {resource:?}: {why}")]
    NoDevice {
        /// Which network.
        network: String,
        /// The resource.
        resource: String,
        /// Why.
        why: String,
    },
}

impl Error {
    /// A network that is refused.
    pub(crate) fn refused(network: &str, why: impl Into<String>) -> Self {
        Self::Refused { network: network.to_owned(), why: why.into() }
    }
}
