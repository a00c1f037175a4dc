//! The two ends of a wire to be: whose network namespace each is in, and whether its peer may offer it.

use std::sync::Arc;

use nsm_fdpass::InodeId;
use nsm_netlink::{Netns, NetnsId};
use nsm_proto::{
    connection::{Connection, Mechanism},
    mechanism::{INODE_URL, KERNEL, LOCAL, MEMIF},
};
use nsm_sdk::{Error, Kind, Request};

use super::{Candidate, Wires};
use crate::{
    forwarder::{Agreement, End, Wire},
    netns::{PodsNetns, passed},
    state::{Attachment, Connected, Owner, RoutePolicy, blocking},
};

/// Mechanisms that a client of this agent can have.
const SUPPORTED: [&str; 2] = [KERNEL, MEMIF];

/// A failure that no other endpoint would avoid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ClientFault(pub(super) String);

impl Wires {
    /// What client and endpoint agreed on, with both ends at hand.
    pub(super) async fn agreement(
        &self,
        request: &Request,
        owner: &Owner,
        candidate: &Candidate,
        client: End,
        answer: &Connection,
    ) -> Result<Agreement, Error> {
        let answered = answer
            .mechanism
            .clone()
            .ok_or_else(|| Error::new(Kind::Refused, format!("endpoint {} answered no mechanism", candidate.name)))?;
        let netns = match answered.r#type.as_str() {
            KERNEL => self.endpoint_netns(request, candidate, &answered).await?,
            _ => None,
        };
        let attachment = self.attachment(owner);
        let aware = attachment.as_ref().map(|attachment| attachment.aware_of(&self.attachments));
        Ok(Agreement {
            id: request.connection.id.clone(),
            connection: answer.clone(),
            client,
            endpoint: End { mechanism: answered, netns, mac: None },
            // Who negotiates for itself sees what it is given; a pod behind the CNI is asked by its configuration.
            routes: attachment
                .map_or(RoutePolicy { default_route: true, overlap: true }, |attachment| attachment.routes),
            aware: aware.unwrap_or_default(),
        })
    }

    fn attachment(&self, owner: &Owner) -> Option<Arc<Attachment>> {
        match owner {
            Owner::Attachment(key) => self.attachments.get(key),
            Owner::Pod(_) | Owner::Host { .. } => None,
        }
    }

    /// The client's end: looked at before an endpoint is troubled.
    pub(super) async fn client(&self, request: &Request, owner: &Owner) -> Result<End, Error> {
        let mechanism = wanted(request)?;
        let attachment = self.attachment(owner);
        let netns = match (mechanism.r#type.as_str(), request.call.noted::<Netns>()) {
            (KERNEL, None) => self.client_netns(request, owner, &mechanism, attachment.as_deref()).await?,
            (_, noted) => noted,
        };
        Ok(End { mechanism, netns, mac: attachment.map(|attachment| attachment.mac) })
    }

    /// The namespace that the client passed now, or the one that its attachment recorded, if it is still the same.
    async fn client_netns(
        &self,
        request: &Request,
        owner: &Owner,
        wanted: &Mechanism,
        attachment: Option<&Attachment>,
    ) -> Result<Option<Netns>, Error> {
        if let Some(attachment) = attachment {
            let (path, recorded) = (attachment.netns_path.clone(), attachment.netns);
            return match blocking(move || PodsNetns::find(&path, recorded)).await {
                PodsNetns::Here(netns) => Ok(Some(netns)),
                PodsNetns::Gone => {
                    let path = attachment.netns_path.display();
                    Err(client_fault(Kind::NotFound, format!("{path} is not the pod's network namespace any more")))
                }
                PodsNetns::Unseen(error) => Err(client_fault(Kind::NotFound, error.to_string())),
            };
        }
        let Some(file) = request.call.files.of(wanted)? else { return Ok(None) };
        let netns =
            passed(file, self.ids.own_netns()).await.map_err(|error| client_fault(Kind::Invalid, error.to_string()))?;
        if *owner == Owner::Pod(netns.id()) || self.ids.acts_for_others(owner) {
            return Ok(Some(netns));
        }
        Err(client_fault(
            Kind::Denied,
            format!(
                "the passed network namespace {} is not the caller's ({owner}): a pod connects itself only, and with hostNetwork it has no network of its own",
                netns.id()
            ),
        ))
    }

    /// The namespace that the endpoint passed with its answer, else the one it registered from.
    async fn endpoint_netns(
        &self,
        request: &Request,
        candidate: &Candidate,
        answered: &Mechanism,
    ) -> Result<Option<Netns>, Error> {
        let named: Option<InodeId> = answered.parameters.get(INODE_URL).and_then(|url| url.parse().ok());
        if let Some(registered) = candidate.netns.as_ref().filter(|netns| named.is_some_and(|id| is(netns, id))) {
            return Ok(Some(registered.clone()));
        }
        match named.and_then(|id| request.call.files.get(id)) {
            Some(file) => {
                let netns = passed(file, self.ids.own_netns())
                    .await
                    .map_err(|error| Error::new(Kind::Refused, format!("endpoint {}: {error}", candidate.name)))?;
                let own = candidate.netns.as_ref().is_some_and(|registered| registered.id() == netns.id());
                if own || candidate.trusted {
                    return Ok(Some(netns));
                }
                Err(Error::new(
                    Kind::Denied,
                    format!(
                        "endpoint {} passed network namespace {}, which is not its own",
                        candidate.name,
                        netns.id()
                    ),
                ))
            }
            None => Ok(candidate.netns.clone()),
        }
    }

    /// The client's namespace where a wire's traces in it must be found: policy rules do not go with their interface.
    pub(super) async fn netns_with_rules(
        &self,
        record: &Connected,
        wire: &Wire,
        at_hand: Option<Netns>,
    ) -> Option<Netns> {
        let wanted = match wire {
            Wire::Kernel(wire) if !wire.client.config.rules.is_empty() => wire.client.netns,
            Wire::Kernel(_) | Wire::Relay => return None,
        };
        if at_hand.as_ref().is_some_and(|netns| netns.id() == wanted) {
            return at_hand;
        }
        let path = self.attachment(&record.owner).map(|attachment| attachment.netns_path.clone());
        let find = move || match path.map(|path| PodsNetns::find(&path, wanted)) {
            Some(PodsNetns::Here(netns)) => Some(netns),
            Some(PodsNetns::Gone | PodsNetns::Unseen(_)) | None => Netns::of_a_process(wanted),
        };
        let found = blocking(find).await;
        if found.is_none() {
            tracing::info!(
                connection = record.id,
                "the client's network namespace is not to be found: if it lives, policy rules without routes stay in it"
            );
        }
        found
    }
}

/// Whether a namespace that is held, so that its number is nobody else's, is that file.
fn is(netns: &Netns, file: InodeId) -> bool {
    netns.id() == NetnsId { dev: file.dev, ino: file.ino }
}

fn client_fault(kind: Kind, what: String) -> Error {
    Error::new(kind, ClientFault(what))
}

/// The client's end: the mechanism that the connection has, refreshed from the preferences, or the first that we support.
fn wanted(request: &Request) -> Result<Mechanism, Error> {
    let local = |mechanism: &&Mechanism| {
        (mechanism.cls.is_empty() || mechanism.cls == LOCAL) && SUPPORTED.contains(&mechanism.r#type.as_str())
    };
    let current = request.connection.mechanism.as_ref().filter(local);
    let preferred = match current {
        Some(current) => {
            request.preferences.iter().find(|preference| preference.r#type == current.r#type).or(Some(current))
        }
        None => request.preferences.iter().find(local),
    };
    preferred.cloned().ok_or_else(|| {
        let offered: Vec<String> =
            request.preferences.iter().map(|preference| format!("{}/{}", preference.cls, preference.r#type)).collect();
        Error::new(
            Kind::Invalid,
            format!("no mechanism that this agent supports ({}) among {offered:?}", SUPPORTED.join(", ")),
        )
    })
}
