//! Who may use and serve a network service: decided by the namespace of the pod, which the kernel and the runtime tell, never the
//! pod itself.
//!
//! Guarantees: the host, that is an operator, may everything. A process whose pod is not known is in no namespace: it may what all
//! may. An endpoint that may not serve a service is, for that service, not there: it is never chosen and decides no match.

use std::{fmt, sync::Arc};

use clap::ValueEnum;
use nsm_objects::{ANY, Access};

use super::{Owner, Pods, Service};
use crate::state::Pod;

/// Who may use and serve a service that does not say it itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ServiceAccess {
    /// Everybody.
    #[default]
    AnyNamespace,
    /// Pods of the service's own namespace.
    OwnNamespace,
}

/// Who uses or serves, as far as access is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Party {
    /// The host: an operator.
    Operator,
    /// A pod of this namespace.
    Namespace(Arc<str>),
    /// A process, but of which pod is not known.
    Unknown,
}

impl Party {
    /// A pod, if it is known.
    pub fn of_pod(pod: Option<&Pod>) -> Self {
        match pod {
            Some(pod) if !pod.namespace.is_empty() => Self::Namespace(pod.namespace.as_str().into()),
            Some(_) | None => Self::Unknown,
        }
    }

    /// Who registers something on this node.
    pub(super) async fn of_owner(owner: Owner, pods: &dyn Pods) -> Self {
        match owner {
            Owner::Operator => Self::Operator,
            Owner::Elsewhere | Owner::Departed => Self::Unknown,
            Owner::Peer { .. } | Owner::PodOfHost(_) => Self::of_pod(pods.pod_of_owner(owner).await.as_ref()),
        }
    }

    /// Its namespace.
    pub(super) fn namespace(&self) -> Option<&Arc<str>> {
        match self {
            Self::Namespace(namespace) => Some(namespace),
            Self::Operator | Self::Unknown => None,
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => write!(f, "the host"),
            Self::Namespace(namespace) => write!(f, "namespace {namespace}"),
            Self::Unknown => write!(f, "a process whose pod is not known"),
        }
    }
}

/// What somebody wants with a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To be connected to it.
    Client,
    /// To offer it.
    Endpoint,
}

impl Role {
    fn verb(self) -> &'static str {
        match self {
            Self::Client => "use",
            Self::Endpoint => "serve",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Client => "allowed_client_namespaces",
            Self::Endpoint => "allowed_endpoint_namespaces",
        }
    }
}

/// Somebody may not use or serve a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    party: Party,
    role: Role,
    service: String,
    rule: Rule,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    /// The service names namespaces.
    Only(Vec<String>),
    /// The agents' default: its own.
    Own(Option<Arc<str>>),
}

/// Most namespaces that a refusal lists.
const SHOWN: usize = 8;

impl std::error::Error for Refusal {}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { party, role, service, rule } = self;
        write!(f, "{party} may not {} network service {service:?}: ", role.verb())?;
        match rule {
            Rule::Only(names) if names.is_empty() => write!(f, "its {} names none", role.field())?,
            Rule::Only(names) => {
                let more = if names.len() > SHOWN { ", …" } else { "" };
                write!(f, "its {} names {}{more}", role.field(), names[..names.len().min(SHOWN)].join(", "))?;
            }
            Rule::Own(Some(own)) => write!(f, "it is for its own namespace {own} (--service-access own-namespace)")?,
            Rule::Own(None) => {
                write!(f, "it has no namespace and no {} (--service-access own-namespace)", role.field())?;
            }
        }
        match (party, rule) {
            (Party::Namespace(namespace), Rule::Only(_)) => write!(f, "; add {namespace} there to allow it"),
            (Party::Namespace(namespace), Rule::Own(_)) => write!(f, "; name {namespace} in its {}", role.field()),
            (Party::Unknown | Party::Operator, _) => {
                write!(f, "; pods are known by the CNI plugin's calls: nsmctl check")
            }
        }
    }
}

impl Service {
    /// Whether that party may use or serve it.
    pub fn allows(&self, role: Role, party: &Party, otherwise: ServiceAccess) -> Result<(), Refusal> {
        let list = match role {
            Role::Client => &self.access.clients,
            Role::Endpoint => &self.access.endpoints,
        };
        let allowed = match (party, list, otherwise) {
            (Party::Operator, _, _) | (_, None, ServiceAccess::AnyNamespace) => true,
            (_, Some(names), _) => {
                let namespace = party.namespace();
                names.iter().any(|name| name == ANY || namespace.is_some_and(|namespace| **name == **namespace))
            }
            (_, None, ServiceAccess::OwnNamespace) => {
                party.namespace().is_some_and(|namespace| self.namespace.as_ref() == Some(namespace))
            }
        };
        if allowed {
            return Ok(());
        }
        let kept_out = list.clone().map_or_else(|| Rule::Own(self.namespace.clone()), Rule::Only);
        Err(Refusal { party: party.clone(), role, service: self.message.name.clone(), rule: kept_out })
    }

    /// Whether the same may use and serve it as the other.
    pub(super) fn is_as_open_as(&self, other: &Self) -> bool {
        (&self.access, &self.namespace) == (&other.access, &other.namespace)
    }

    /// Who may use and serve it.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// With whose it is: where somebody has said who may use or serve it, that was an operator, whoever registered it first. Peers do not
    /// change it, nor does it go with them, as their next registration of the name would open it to everybody.
    pub(super) fn with_its_owner(self) -> Self {
        let owner = if self.access.is_default() { self.owner } else { Owner::Operator };
        Self { owner, ..self }
    }
}

#[cfg(test)]
mod tests {
    use nsm_proto::registry::NetworkService;

    use super::*;

    fn service(clients: Option<&[&str]>) -> Service {
        let clients = clients.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        Service {
            message: NetworkService { name: "s".into(), ..NetworkService::default() }.into(),
            owner: Owner::Operator,
            access: Access { clients, endpoints: None },
            namespace: Some("home".into()),
        }
    }

    fn party(namespace: &str) -> Party {
        Party::Namespace(namespace.into())
    }

    #[test]
    fn lists_are_what_they_say_and_the_default_fills_in() {
        use ServiceAccess::{AnyNamespace, OwnNamespace};
        for (clients, otherwise, allowed, refused) in [
            (None, AnyNamespace, vec![party("home"), party("x"), Party::Unknown], vec![]),
            (None, OwnNamespace, vec![party("home")], vec![party("x"), Party::Unknown]),
            (Some(&["x"][..]), AnyNamespace, vec![party("x")], vec![party("home"), Party::Unknown]),
            (Some(&["x"][..]), OwnNamespace, vec![party("x")], vec![party("home"), Party::Unknown]),
            (Some(&["*"][..]), OwnNamespace, vec![party("x"), Party::Unknown], vec![]),
            (Some(&[][..]), AnyNamespace, vec![], vec![party("home"), Party::Unknown]),
        ] {
            let service = service(clients);
            for party in allowed.iter().chain([&Party::Operator]) {
                assert_eq!(service.allows(Role::Client, party, otherwise), Ok(()), "{clients:?} {otherwise:?} {party}");
            }
            for party in refused {
                assert!(service.allows(Role::Client, &party, otherwise).is_err(), "{clients:?} {otherwise:?} {party}");
            }
        }
        let serves = service(Some(&["x"])).allows(Role::Endpoint, &party("y"), AnyNamespace);
        assert_eq!(serves, Ok(()), "who may use it says nothing of who may serve it");
    }

    #[test]
    fn a_refusal_names_service_namespace_and_what_to_do() {
        let any = ServiceAccess::AnyNamespace;
        let only = service(Some(&["a", "b"])).allows(Role::Client, &party("x"), any).unwrap_err();
        assert_eq!(
            only.to_string(),
            "namespace x may not use network service \"s\": its allowed_client_namespaces names a, b; add x there to allow it"
        );
        let own = service(None).allows(Role::Endpoint, &party("x"), ServiceAccess::OwnNamespace).unwrap_err();
        assert_eq!(
            own.to_string(),
            "namespace x may not serve network service \"s\": it is for its own namespace home (--service-access own-namespace); \
             name x in its allowed_endpoint_namespaces"
        );
    }
}
