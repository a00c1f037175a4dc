//! The element that owns the records of connections and has their wires made: it asks the endpoint, then joins the two ends.
//!
//! Guarantees: a record is written before the endpoint is asked, and again with the planned wire before the kernel is touched.
//! Whatever fails after the endpoint was asked, the endpoint is told so, now or as soon as it can be reached. A refresh that
//! changes nothing touches nothing; one that fails leaves the wire as it is. Close answers when the wire is gone and does not
//! wait for the endpoint.

mod work;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use async_trait::async_trait;
use nsm_netlink::{IfIndex, Netns, Nsid};
use nsm_proto::{
    connection::{Connection, Mechanism},
    mechanism::{INODE_URL, KERNEL, LOCAL, MEMIF},
};
use nsm_sdk::{Close, Element, Error, Kind, Next, Request, heal::NextHops};

use self::work::{Work, failed, recording};
use super::{CalledOff, Candidate, Ids, Owed};
use crate::{
    failpoint,
    forwarder::{Agreement, End, Forwarders, Wire},
    state::{Attachment, Connected, Owner, Phase, Records, RoutePolicy, blocking},
};

/// Mechanisms that a client of this agent can have.
const SUPPORTED: [&str; 2] = [KERNEL, MEMIF];
/// Most connections that one peer may hold.
const CONNECTIONS: usize = 1024;

/// The element.
pub struct Wires {
    /// The connections of this node.
    pub connections: Records<Connected>,
    /// What the CNI plugin asked for.
    pub attachments: Records<Attachment>,
    /// Who makes wires.
    pub forwarders: Arc<Forwarders>,
    /// Endpoints still to be told.
    pub owed: Owed,
    /// Whose connections are whose.
    pub ids: Arc<Ids>,
    /// What endpoints say of connections.
    pub hops: NextHops,
    /// Interfaces of wires that stand, and connections that are ending.
    links: Arc<Mutex<Links>>,
}

#[derive(Default)]
struct Links {
    standing: HashMap<(Nsid, IfIndex), String>,
    ending: HashSet<String>,
}

/// An interface of ours.
#[derive(Debug, Clone)]
pub(super) struct LinkOf {
    /// Of this connection.
    pub(super) connection: String,
}

/// A failure that no other endpoint would avoid.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ClientFault(String);

#[async_trait]
impl Element for Wires {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let candidate: Candidate =
            request.call.noted().ok_or_else(|| Error::new(Kind::Internal, "no endpoint was chosen"))?;
        let known = self.connections.get(&request.connection.id).filter(|known| known.phase == Phase::Up);
        let owner =
            self.ids.owner(&request.call).or_else(|error| known.as_ref().map(|k| k.owner.clone()).ok_or(error))?;
        let client = self.client(&request, &owner).await?;
        let asked = Self::towards_endpoint(&request, &candidate, &client.mechanism, known.as_deref());
        if known.is_none() {
            self.has_room(&owner, 1)?;
            let record = Connected {
                id: request.connection.id.clone(),
                client_id: client_id(&request.connection),
                owner: owner.clone(),
                phase: Phase::Adding,
                endpoint: candidate.name.clone(),
                client_side: (&request.connection).into(),
                endpoint_side: (&asked.connection).into(),
                wire: None,
                since: SystemTime::now(),
            };
            self.connections.put(record).await.map_err(recording)?;
            // Others of the same peer may have been recorded at the same time.
            if let Err(full) = self.has_room(&owner, 0) {
                self.forget(&request.connection.id).await;
                return Err(full);
            }
            failpoint::hit("add.connection-recorded");
        }
        let mut unfinished = Unfinished {
            wires: self,
            endpoint: candidate.name.clone(),
            asked: known.is_none().then(|| asked.connection.clone()),
        };
        let answer = match answer_of(asked, next).await {
            Ok(answer) => answer,
            Err(error) => {
                if knows_nothing(&error) {
                    unfinished.asked = None;
                }
                if known.is_none() {
                    self.forget(&request.connection.id).await;
                }
                return Err(error);
            }
        };
        failpoint::hit("add.endpoint-answered");
        if known.is_none() {
            unfinished.asked = Some(answer.clone());
        }
        let done = self.join(&request, &owner, &candidate, client, answer, known.as_deref()).await;
        if done.is_ok() {
            unfinished.asked = None;
        } else if known.is_none() {
            self.forget(&request.connection.id).await;
        }
        done
    }

    async fn close(&self, close: Close, _: Next) -> Result<(), Error> {
        self.end(&close.connection.id).await
    }
}

impl Wires {
    /// The element over these records.
    pub fn new(
        connections: Records<Connected>,
        attachments: Records<Attachment>,
        forwarders: Arc<Forwarders>,
        owed: Owed,
        ids: Arc<Ids>,
        hops: NextHops,
    ) -> Self {
        Self { connections, attachments, forwarders, owed, ids, hops, links: Arc::default() }
    }

    /// Whose interface that is.
    pub(super) fn link(&self, nsid: Nsid, index: IfIndex) -> Option<LinkOf> {
        self.links().standing.get(&(nsid, index)).map(|connection| LinkOf { connection: connection.clone() })
    }

    /// Whether its interfaces go because we take them away.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.links().ending.contains(id)
    }

    /// Watches the interfaces of a wire that stands.
    pub(super) fn remember(&self, record: &Connected) {
        let Some(Wire::Kernel(wire)) = &record.wire else { return };
        let mut links = self.links();
        links.standing.retain(|_, id| *id != record.id);
        for side in [&wire.client, &wire.endpoint] {
            if let Some(index) = side.index {
                links.standing.insert((side.nsid, index), record.id.clone());
            }
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this peer may have so many more connections. Attachments are the runtime's, which acts for pods.
    fn has_room(&self, owner: &Owner, more: usize) -> Result<(), Error> {
        let bounded = match owner {
            Owner::Attachment(_) => false,
            Owner::Pod(_) | Owner::Host { .. } => !self.ids.acts_for_others(owner),
        };
        if !bounded || self.connections.count(|record| record.owner == *owner) + more <= CONNECTIONS {
            return Ok(());
        }
        let what = format!("{owner} holds {CONNECTIONS} connections, the most for one peer: close some first");
        Err(client_fault(Kind::Exhausted, what))
    }

    /// Takes the wire away and leaves word for the endpoint. Harmless for an id that is not known.
    pub async fn end(&self, id: &str) -> Result<(), Error> {
        let Some(record) = self.connections.get(&id.to_owned()) else { return Ok(()) };
        self.owed.owe(&record.endpoint, &record.endpoint_side.decoded(), Some(record.id.clone())).await;
        failpoint::hit("del.closing-recorded");
        if let Some(wire) = record.wire.clone() {
            self.links().ending.insert(id.to_owned());
            let client = self.recorded_netns(&record).await;
            let forwarders = self.forwarders.clone();
            let undone = blocking(move || forwarders.of(&wire).undo(&wire, client.as_ref())).await;
            undone.map_err(|error| {
                self.links().ending.remove(id);
                tracing::error!(connection = id, %error, "the wire stays; the next close or start of the agent tries again");
                Error::new(Kind::Internal, error)
            })?;
        }
        failpoint::hit("del.wire-deleted");
        self.hops.forget(id);
        self.forget(id).await;
        let mut links = self.links();
        links.ending.remove(id);
        links.standing.retain(|_, of| of != id);
        drop(links);
        failpoint::hit("del.connection-removed");
        self.owed.deliver();
        Ok(())
    }

    async fn forget(&self, id: &str) {
        if let Err(error) = self.connections.remove(&id.to_owned()).await {
            tracing::error!(connection = id, %error, "a record of a connection that ended stays");
        }
    }

    /// The request as the endpoint gets it: our own preference instead of the client's, its own mechanism as it last said.
    fn towards_endpoint(
        request: &Request,
        candidate: &Candidate,
        wanted: &Mechanism,
        known: Option<&Connected>,
    ) -> Request {
        let mut asked = request.clone();
        asked.connection.network_service_endpoint_name.clone_from(&candidate.name);
        if let Some(known) = known.filter(|known| known.endpoint == candidate.name) {
            resume(&mut asked.connection, &known.endpoint_side.decoded());
        }
        match wanted.r#type.as_str() {
            // The endpoint's end is made from here, so the client's namespace is no business of the endpoint's.
            KERNEL => {
                asked.connection.mechanism = known.and_then(|known| known.endpoint_side.decoded().mechanism);
                if asked.connection.mechanism.is_some() {
                    candidate.lend_netns(&asked.call);
                }
                asked.preferences =
                    vec![Mechanism { cls: LOCAL.into(), r#type: KERNEL.into(), parameters: BTreeMap::new() }];
            }
            _ => asked.preferences.retain(|preference| preference.r#type == wanted.r#type),
        }
        asked
    }

    async fn join(
        &self,
        request: &Request,
        owner: &Owner,
        candidate: &Candidate,
        client: End,
        answer: Connection,
        known: Option<&Connected>,
    ) -> Result<Connection, Error> {
        let agreement = self.agreement(request, owner, candidate, client, &answer).await?;
        let mechanism = match agreement.client.mechanism.r#type.as_str() {
            KERNEL => agreement.client.mechanism.clone(),
            // The two share what the endpoint offers: its socket.
            _ => agreement.endpoint.mechanism.clone(),
        };
        let mut connection = Connection { mechanism: Some(mechanism), ..answer.clone() };
        connection.network_service_endpoint_name.clone_from(&candidate.name);
        let record = Connected {
            id: request.connection.id.clone(),
            client_id: client_id(&request.connection),
            owner: owner.clone(),
            phase: Phase::Up,
            endpoint: candidate.name.clone(),
            client_side: (&connection).into(),
            endpoint_side: (&answer).into(),
            wire: None,
            since: known.map_or_else(SystemTime::now, |known| known.since),
        };
        let work = Work {
            forwarders: self.forwarders.clone(),
            connections: self.connections.clone(),
            links: self.links.clone(),
        };
        let before = known.and_then(|known| known.wire.clone());
        let made = blocking(move || work.wire(&agreement, before.as_ref(), record)).await.map_err(failed)?;
        self.remember(&made);
        self.hops.watch(&answer, &candidate.target);
        if let (Some(Wire::Kernel(wire)), Some(mechanism)) = (&made.wire, &mut connection.mechanism) {
            mechanism.parameters.insert(nsm_proto::mechanism::INTERFACE_NAME.into(), wire.client.name.to_string());
        }
        failpoint::hit("add.connection-up");
        Ok(connection)
    }

    async fn agreement(
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
        Ok(Agreement {
            id: request.connection.id.clone(),
            connection: answer.clone(),
            client,
            endpoint: End { mechanism: answered, netns, mac: None },
            // Who negotiates for itself sees what it is given; a pod behind the CNI is asked by its configuration.
            routes: self
                .attachment(owner)
                .map_or(RoutePolicy { default_route: true, overlap: true }, |attachment| attachment.routes),
        })
    }

    fn attachment(&self, owner: &Owner) -> Option<Arc<Attachment>> {
        match owner {
            Owner::Attachment(key) => self.attachments.get(key),
            Owner::Pod(_) | Owner::Host { .. } => None,
        }
    }

    /// The client's end: looked at before an endpoint is troubled.
    async fn client(&self, request: &Request, owner: &Owner) -> Result<End, Error> {
        let mechanism = wanted(request)?;
        let attachment = self.attachment(owner);
        let netns = match (mechanism.r#type.as_str(), request.call.noted::<Netns>()) {
            (KERNEL, None) => self.client_netns(request, owner, &mechanism, attachment.as_deref()).await?,
            (_, noted) => noted,
        };
        Ok(End { mechanism, netns, mac: attachment.and_then(|attachment| attachment.mac) })
    }

    /// The client's namespace where a wire's traces in it must be found; not needed for plain interfaces.
    async fn recorded_netns(&self, record: &Connected) -> Option<Netns> {
        let has_rules = matches!(&record.wire, Some(Wire::Kernel(wire)) if !wire.client.config.rules.is_empty());
        let Owner::Attachment(key) = &record.owner else { return None };
        let attachment = self.attachments.get(key).filter(|_| has_rules)?;
        let path = attachment.netns_path.clone();
        blocking(move || Netns::open(path)).await.ok().filter(|netns| netns.id() == attachment.netns)
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
            let opened = blocking(move || Netns::open(path)).await;
            let netns = opened.map_err(|error| client_fault(Kind::NotFound, error.to_string()))?;
            return if netns.id() == recorded {
                Ok(Some(netns))
            } else {
                let path = attachment.netns_path.display();
                Err(client_fault(Kind::NotFound, format!("{path} is another namespace now")))
            };
        }
        let Some(file) = request.call.files.of(wanted)? else { return Ok(None) };
        let netns = reopened(file).await.map_err(|error| client_fault(Kind::Invalid, error))?;
        if *owner == Owner::Pod(netns.id()) || self.ids.acts_for_others(owner) {
            return Ok(Some(netns));
        }
        Err(client_fault(
            Kind::Denied,
            format!(
                "the passed network namespace {} is not the caller's ({owner}): a pod connects itself only",
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
        let passed = answered.parameters.get(INODE_URL).and_then(|url| url.parse().ok());
        match passed.and_then(|id| request.call.files.get(id)) {
            Some(file) => {
                let netns = reopened(file)
                    .await
                    .map_err(|error| Error::new(Kind::Refused, format!("endpoint {}: {error}", candidate.name)))?;
                let own = candidate.netns.as_ref().is_none_or(|registered| registered.id() == netns.id());
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
}

async fn reopened(file: Arc<std::os::fd::OwnedFd>) -> Result<Netns, String> {
    let duplicate = file.try_clone().map_err(|error| error.to_string())?;
    blocking(move || Netns::from_file(duplicate)).await.map_err(|error| error.to_string())
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

/// What the endpoint says by the deadline, unless the Request is called off before. Only this wait is cut short: what this
/// element does before and after it comes to its end, or a record or a wire would be left that nobody knows.
async fn answer_of(asked: Request, next: Next) -> Result<Connection, Error> {
    let remaining = asked.call.remaining();
    let called_off = asked.call.noted::<CalledOff>().map(|CalledOff(token)| token).unwrap_or_default();
    tokio::select! {
        answer = tokio::time::timeout(remaining, next.request(asked)) => answer.unwrap_or_else(|_| {
            Err(Error::new(Kind::Deadline, format!("no answer within {:.1} s", remaining.as_secs_f32())))
        }),
        () = called_off.cancelled() => Err(Error::new(Kind::Cancelled, "called off")),
    }
}

/// The id of the segment before ours.
fn client_id(connection: &Connection) -> String {
    nsm_sdk::path::previous(connection).map(|segment| segment.id.clone()).unwrap_or_default()
}

/// A client that comes anew under its id says nothing of what lies behind us. It is the same connection still: to the endpoint
/// it would be another one, and the first would keep its addresses.
fn resume(connection: &mut Connection, known: &Connection) {
    let (Some(path), Some(before)) = (&mut connection.path, &known.path) else { return };
    let (ours, theirs) = (path.index as usize + 1, before.index as usize + 1);
    if path.path_segments.len() == ours {
        path.path_segments.extend(before.path_segments.iter().skip(theirs).cloned());
    }
}

/// Whether an endpoint that failed so keeps nothing: it was never reached, or answered and said no.
fn knows_nothing(error: &Error) -> bool {
    if error.find::<nsm_fdpass::ConnectError>().is_some() {
        return true;
    }
    match error.kind() {
        Kind::Invalid | Kind::NotFound | Kind::Denied | Kind::Conflict | Kind::Exhausted => true,
        Kind::Refused | Kind::Unavailable | Kind::Deadline | Kind::Cancelled | Kind::Internal => false,
    }
}

/// A request that the endpoint may have granted and that is not whole: it is told when this is dropped.
struct Unfinished<'a> {
    wires: &'a Wires,
    endpoint: String,
    asked: Option<Connection>,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.asked.take() {
            self.wires.owed.owe_detached(self.endpoint.clone(), &connection);
        }
    }
}
