//! What stands in the database: the object as on the wire, and its owner.

use nsm_fdpass::InodeId;
use nsm_objects::Access;
use nsm_proto::registry::{NetworkService, NetworkServiceEndpoint};
use prost::Message;

use super::{Entry, Owner, Service};

#[derive(Clone, PartialEq, Message)]
struct OwnerRecord {
    #[prost(bool, tag = "1")]
    operator: bool,
    #[prost(uint64, tag = "2")]
    netns_dev: u64,
    #[prost(uint64, tag = "3")]
    netns_ino: u64,
    #[prost(uint32, tag = "4")]
    uid: u32,
    /// The boot that the namespace was of; empty in records of before there was this field.
    #[prost(string, tag = "5")]
    boot: String,
}

/// No boot is called so.
const NO_BOOT: &str = "-";

impl OwnerRecord {
    fn of(owner: Owner, boot: &str) -> Self {
        match owner {
            // Nobody's namespace, should the record ever be read: pods are told from the host in Kubernetes only, which has a registry
            // of its own.
            Owner::Elsewhere | Owner::Departed | Owner::PodOfHost(_) => {
                Self { boot: NO_BOOT.into(), ..Self::default() }
            }
            Owner::Operator => Self { operator: true, ..Self::default() },
            Owner::Peer { netns: InodeId { dev, ino }, uid } => {
                Self { operator: false, netns_dev: dev, netns_ino: ino, uid, boot: boot.into() }
            }
        }
    }

    /// Numbers of namespaces mean something until the machine boots again: then they are another's.
    fn owner(self, boot: &str) -> Owner {
        match self {
            Self { operator: true, .. } => Owner::Operator,
            Self { boot: of, .. } if !of.is_empty() && of != boot => Owner::Departed,
            Self { netns_dev: dev, netns_ino: ino, uid, .. } => Owner::Peer { netns: InodeId { dev, ino }, uid },
        }
    }
}

#[derive(Clone, PartialEq, Message)]
struct ServiceRecord {
    #[prost(message, optional, tag = "1")]
    service: Option<NetworkService>,
    #[prost(message, optional, tag = "2")]
    owner: Option<OwnerRecord>,
    #[prost(message, optional, tag = "3")]
    clients: Option<Namespaces>,
    #[prost(message, optional, tag = "4")]
    endpoints: Option<Namespaces>,
    #[prost(string, optional, tag = "5")]
    namespace: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Namespaces {
    #[prost(string, repeated, tag = "1")]
    names: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct EndpointRecord {
    #[prost(message, optional, tag = "1")]
    endpoint: Option<NetworkServiceEndpoint>,
    #[prost(message, optional, tag = "2")]
    owner: Option<OwnerRecord>,
}

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damaged {
    /// Not what was written.
    #[error("{0}")]
    Decode(#[from] prost::DecodeError),
    /// A part is missing.
    #[error("the record has no object or no owner")]
    Incomplete,
}

/// The bytes of a service, in that boot.
pub(super) fn of_service(service: &Service, boot: &str) -> Vec<u8> {
    let names = |names: &Option<Vec<String>>| names.clone().map(|names| Namespaces { names });
    let record = ServiceRecord {
        service: Some((*service.message).clone()),
        owner: Some(OwnerRecord::of(service.owner, boot)),
        clients: names(&service.access.clients),
        endpoints: names(&service.access.endpoints),
        namespace: service.namespace.as_deref().map(str::to_owned),
    };
    record.encode_to_vec()
}

/// The service of these bytes, in that boot.
pub(super) fn to_service(bytes: &[u8], boot: &str) -> Result<Service, Damaged> {
    let record = ServiceRecord::decode(bytes)?;
    let names = |namespaces: Option<Namespaces>| namespaces.map(|namespaces| namespaces.names);
    Ok(Service {
        message: record.service.ok_or(Damaged::Incomplete)?.into(),
        owner: record.owner.ok_or(Damaged::Incomplete)?.owner(boot),
        access: Access { clients: names(record.clients), endpoints: names(record.endpoints) },
        namespace: record.namespace.map(Into::into),
    })
}

/// The bytes of an endpoint, in that boot.
pub(super) fn of_endpoint(entry: &Entry, boot: &str) -> Vec<u8> {
    let owner = Some(OwnerRecord::of(entry.owner, boot));
    EndpointRecord { endpoint: Some((*entry.message).clone()), owner }.encode_to_vec()
}

/// The endpoint of these bytes, in that boot.
pub(super) fn to_endpoint(bytes: &[u8], boot: &str) -> Result<(NetworkServiceEndpoint, Owner), Damaged> {
    let record = EndpointRecord::decode(bytes)?;
    let owner = record.owner.ok_or(Damaged::Incomplete)?;
    Ok((record.endpoint.ok_or(Damaged::Incomplete)?, owner.owner(boot)))
}
