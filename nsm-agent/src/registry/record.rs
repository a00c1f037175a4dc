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
}

impl From<Owner> for OwnerRecord {
    fn from(owner: Owner) -> Self {
        match owner {
            // Nobody's namespace, should the record ever be read.
            Owner::Elsewhere => Self::default(),
            Owner::Operator => Self { operator: true, ..Self::default() },
            Owner::Peer { netns, uid } => Self { operator: false, netns_dev: netns.dev, netns_ino: netns.ino, uid },
        }
    }
}

impl From<OwnerRecord> for Owner {
    fn from(record: OwnerRecord) -> Self {
        if record.operator {
            return Self::Operator;
        }
        Self::Peer { netns: InodeId { dev: record.netns_dev, ino: record.netns_ino }, uid: record.uid }
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

/// The bytes of a service.
pub(super) fn of_service(service: &Service) -> Vec<u8> {
    let names = |names: &Option<Vec<String>>| names.clone().map(|names| Namespaces { names });
    let record = ServiceRecord {
        service: Some((*service.message).clone()),
        owner: Some(service.owner.into()),
        clients: names(&service.access.clients),
        endpoints: names(&service.access.endpoints),
        namespace: service.namespace.as_deref().map(str::to_owned),
    };
    record.encode_to_vec()
}

/// The service of these bytes.
pub(super) fn to_service(bytes: &[u8]) -> Result<Service, Damaged> {
    let record = ServiceRecord::decode(bytes)?;
    let names = |namespaces: Option<Namespaces>| namespaces.map(|namespaces| namespaces.names);
    Ok(Service {
        message: record.service.ok_or(Damaged::Incomplete)?.into(),
        owner: record.owner.ok_or(Damaged::Incomplete)?.into(),
        access: Access { clients: names(record.clients), endpoints: names(record.endpoints) },
        namespace: record.namespace.map(Into::into),
    })
}

/// The bytes of an endpoint.
pub(super) fn of_endpoint(entry: &Entry) -> Vec<u8> {
    EndpointRecord { endpoint: Some((*entry.message).clone()), owner: Some(entry.owner.into()) }.encode_to_vec()
}

/// The endpoint of these bytes.
pub(super) fn to_endpoint(bytes: &[u8]) -> Result<(NetworkServiceEndpoint, Owner), Damaged> {
    let record = EndpointRecord::decode(bytes)?;
    let owner = record.owner.ok_or(Damaged::Incomplete)?;
    Ok((record.endpoint.ok_or(Damaged::Incomplete)?, owner.into()))
}
