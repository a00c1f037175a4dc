//! What an attachment shall be, before it is one.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use nsm_cni_types::RESERVED_LABELS;
use nsm_netlink::{IfName, Mac, Mtu, Netns};
use nsm_proto::{
    connection::{self, Connection},
    connectioncontext::{ConnectionContext, EthernetContext, IpContext},
    mechanism::{INTERFACE_NAME, KERNEL, LOCAL, MTU},
};
use nsm_sdk::{Call, Error, Kind, Request};

use super::Parts;
use crate::state::{Attachment, AttachmentKey, Pod, RoutePolicy, Source};

/// Longest name of a network service, in bytes.
const LONGEST_SERVICE: usize = 253;

/// A kernel interface of a pod, joined to a network service.
#[derive(Debug, Clone)]
pub struct Spec {
    /// What names the attachment: for an annotation, the container and the interface that is made.
    pub key: AttachmentKey,
    /// The interface's name in the pod.
    pub interface: IfName,
    /// Who asks.
    pub source: Source,
    /// `name` of the network configuration.
    pub network: String,
    /// CNI_NETNS.
    pub netns_path: PathBuf,
    /// What the pod asks for.
    pub network_service: String,
    /// The client's labels, without those that the agent gives.
    pub labels: BTreeMap<String, String>,
    /// Whose it is.
    pub pod: Option<Pod>,
    /// The hardware address that the interface must get; none: any.
    pub mac: Option<Mac>,
    /// The addresses (CIDR) that the interface must get; none: any.
    pub ips: Vec<String>,
    /// Largest packet; none: the endpoint's.
    pub mtu: Option<Mtu>,
    /// What the endpoint may do to the pod's routes.
    pub routes: RoutePolicy,
}

impl Spec {
    /// The record, with the labels that the agent gives.
    pub(super) fn attachment(&self, netns: &Netns, parts: &Parts) -> Result<Attachment, Error> {
        let invalid = |what: String| Error::new(Kind::Invalid, what);
        if netns.id() == parts.netlink.netns().id() {
            return Err(invalid(format!("{} is the agent's own network namespace", self.netns_path.display())));
        }
        let service = &self.network_service;
        if service.is_empty() || service.len() > LONGEST_SERVICE {
            return Err(invalid(format!("networkService {service:?}: expected 1 to {LONGEST_SERVICE} bytes")));
        }
        if let Some(reserved) = RESERVED_LABELS.iter().find(|name| self.labels.contains_key(**name)) {
            return Err(invalid(format!("label {reserved} is given by the agent and cannot be set")));
        }
        let mut labels = self.labels.clone();
        labels.extend(parts.node_labels.clone());
        if let Some(pod) = &self.pod {
            let of_pod = [("podName", &pod.name), ("namespace", &pod.namespace)];
            labels.extend(of_pod.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), (*v).clone())));
        }
        let address = |text: &String| {
            let address = text.split('/').next().and_then(|address| address.parse().ok());
            address.ok_or_else(|| invalid(format!("ips {text:?}: expected an address")))
        };
        let ips: Vec<IpAddr> = self.ips.iter().map(address).collect::<Result<_, _>>()?;
        Ok(Attachment {
            key: self.key.clone(),
            interface: self.interface.clone(),
            source: self.source.clone(),
            network: self.network.clone(),
            netns_path: self.netns_path.clone(),
            netns: netns.id(),
            network_service: service.clone(),
            labels,
            pod: self.pod.clone(),
            mac: self.mac.unwrap_or_else(Mac::random),
            ips,
            mtu: self.mtu,
            routes: self.routes,
            client_id: self.client_id(),
        })
    }

    /// The connection's id at segment 0. A pod that an annotation speaks of is the same client in its next sandbox.
    fn client_id(&self) -> String {
        match (&self.source, &self.pod) {
            (Source::Annotation { .. }, Some(pod)) if !pod.uid.is_empty() => {
                let name = format!("pod\0{}\0{}", pod.uid, self.interface);
                uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
            }
            (Source::Annotation { .. } | Source::Configuration, _) => self.key.client_id(),
        }
    }

    /// The Request for it. `prefixes`: what the pod has already.
    pub(super) fn request(&self, attachment: &Attachment, prefixes: Vec<String>, call: Call) -> Request {
        let mut parameters = BTreeMap::from([(INTERFACE_NAME.to_owned(), attachment.interface.to_string())]);
        if let Some(mtu) = attachment.mtu {
            parameters.insert(MTU.to_owned(), mtu.to_string());
        }
        let ip_context = IpContext {
            src_ip_addrs: self.ips.clone(),
            src_ip_required: !self.ips.is_empty(),
            excluded_prefixes: prefixes,
            ..IpContext::default()
        };
        let ethernet = self.mac.map(|mac| EthernetContext { src_mac: mac.to_string(), ..EthernetContext::default() });
        let connection = Connection {
            id: attachment.client_id.clone(),
            network_service: attachment.network_service.clone(),
            labels: attachment.labels.clone(),
            context: Some(ConnectionContext {
                ip_context: Some(ip_context),
                ethernet_context: ethernet,
                mtu: attachment.mtu.map_or(0, Mtu::get),
                ..ConnectionContext::default()
            }),
            ..Connection::default()
        };
        let preference = connection::Mechanism { cls: LOCAL.into(), r#type: KERNEL.into(), parameters };
        Request { connection, preferences: vec![preference], call }
    }
}
