//! The element that owns the records of connections and has their wires made: it asks the endpoint, then joins the two ends.
//!
//! Guarantees: a record is written before the endpoint is asked, and again with the planned wire before the kernel is touched.
//! Whatever fails after the endpoint was asked, the endpoint is told so, now or as soon as it can be reached. A refresh that
//! changes nothing touches nothing; one that fails in place leaves the wire as it is. Close answers when the wire is gone and does not
//! wait for the endpoint.

mod attempt;
mod ends;
mod links;
mod work;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use nsm_netlink::{Mac, Netns};
use nsm_proto::{
    connection::{Connection, Mechanism},
    mechanism::{KERNEL, LOCAL},
};
use nsm_sdk::{Call, Close, Element, Error, Kind, Next, Request, heal::NextHops, serve::Caller};

pub(super) use self::ends::ClientFault;
use self::{
    attempt::Attempt,
    links::{Links, Working},
    work::{Work, failed, recording},
};
use super::{CalledOff, Candidate, Ids, Owed, asked};
use crate::{
    failpoint,
    forwarder::{End, Forwarders, Wire},
    state::{Attachment, ChosenBy, Connected, ConnectionId, Owner, Phase, Records, blocking},
};

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
    links: Links,
}

/// A Request on its way: what was found out before an endpoint is asked.
struct Asking<'a> {
    request: &'a Request,
    owner: Owner,
    candidate: Candidate,
    client: End,
    /// The connection as it stands, at a refresh.
    known: Option<Arc<Connected>>,
    /// When it was asked for first: tells a connection from a later one of the same id.
    since: SystemTime,
    /// Nobody else works at this wire meanwhile.
    working: Working,
}

#[async_trait]
impl Element for Wires {
    async fn request(&self, request: Request, next: Next) -> Result<Connection, Error> {
        let candidate: Candidate =
            request.call.noted().ok_or_else(|| Error::new(Kind::Internal, "no endpoint was chosen"))?;
        let working = self.links.work_at(&request.connection.id).await;
        // A connection of another endpoint is no refresh: its wire is still to be taken away.
        let known = self
            .connections
            .get(&request.connection.id)
            .filter(|known| known.phase == Phase::Up && known.endpoint == candidate.name && !self.is_left(known));
        let owner =
            self.ids.owner(&request.call).or_else(|error| known.as_ref().map(|k| k.owner.clone()).ok_or(error))?;
        let client = self.client(&request, &owner).await?;
        let asked = towards_endpoint(&request, &candidate, &client.mechanism, known.as_deref());
        let since = known.as_ref().map_or_else(SystemTime::now, |known| known.since);
        let asking = Asking { request: &request, owner, candidate, client, known, since, working };
        if asking.known.is_some() {
            let answer = answer_of(asked, next).await?;
            failpoint::hit("add.endpoint-answered");
            return self.join(asking, answer).await;
        }
        let mut attempt = self.attempt(&asking, &asked.connection).await?;
        failpoint::hit("add.connection-recorded");
        match self.negotiate(asking, asked, &mut attempt, next).await {
            Ok(connection) => {
                attempt.succeeded();
                Ok(connection)
            }
            Err(error) => {
                let _working = self.links.work_at(&request.connection.id).await;
                attempt.undo().await;
                Err(error)
            }
        }
    }

    async fn close(&self, close: Close, _: Next) -> Result<(), Error> {
        self.end(&close.connection.id, callers_netns(&close.call)).await
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
        Self { connections, attachments, forwarders, owed, ids, hops, links: Links::default() }
    }

    /// Whose interface that is.
    pub(super) fn owner_of(&self, mac: Mac) -> Option<ConnectionId> {
        self.links.owner(mac)
    }

    /// Whether its interfaces go because we take them away.
    pub(super) fn is_ending(&self, id: &str) -> bool {
        self.links.is_ending(id)
    }

    /// Tries again to take wires away, `pause` after that failed; returns when it has tried all that there were.
    pub(super) async fn clear_leftovers(&self, pause: Duration) {
        self.links.leftovers().await;
        tokio::time::sleep(pause).await;
        for id in self.links.all_left() {
            if self.connections.get(&id).is_none() {
                self.links.gone(&id);
            } else if self.end_if(&id, None, |record| self.links.is_left(record)).await.is_ok() {
                tracing::info!(connection = id, "a wire that had stayed is gone");
            }
        }
    }

    /// Whether the connection has ended, and only its wire could not be taken away yet.
    pub(super) fn is_left(&self, record: &Connected) -> bool {
        self.links.is_left(record)
    }

    /// Watches the interfaces of a wire from before a restart.
    pub(super) fn adopt(&self, record: &Connected) {
        self.links.stands(record);
    }

    /// Records what is about to be asked.
    async fn attempt(&self, asking: &Asking<'_>, asked: &Connection) -> Result<Attempt, Error> {
        let id = &asking.request.connection.id;
        self.has_room(&asking.owner, 1)?;
        // What is left of this connection goes first: its record is about to be written over.
        if let Some(left) = self.connections.get(id) {
            self.owed.came_to_nothing(&left, left.endpoint_side.decoded()).await;
            if let Some(wire) = left.wire.clone() {
                let (forwarders, client) = (self.forwarders.clone(), asking.client.netns.clone());
                let undone = blocking(move || forwarders.of(&wire).undo(&wire, client.as_ref())).await;
                undone.map_err(|error| Error::new(Kind::Internal, error))?;
            }
            self.links.gone(id);
        }
        let record = Connected {
            id: id.clone(),
            client_id: client_id(&asking.request.connection),
            owner: asking.owner.clone(),
            phase: Phase::Adding,
            endpoint: asking.candidate.name.clone(),
            place: Some(asking.candidate.place),
            chosen_by: chosen_by(asking.request),
            client_side: (&asking.request.connection).into(),
            endpoint_side: asked.into(),
            wire: None,
            since: asking.since,
        };
        self.connections.put(record.clone()).await.map_err(recording)?;
        let attempt = Attempt::new(self.work(), self.owed.clone(), record, asking.client.netns.clone());
        // Others of the same peer may have been recorded at the same time.
        if let Err(full) = self.has_room(&asking.owner, 0) {
            attempt.undo().await;
            return Err(full);
        }
        Ok(attempt)
    }

    /// A new connection: asks the endpoint and joins the two.
    async fn negotiate(
        &self,
        asking: Asking<'_>,
        asked: Request,
        attempt: &mut Attempt,
        next: Next,
    ) -> Result<Connection, Error> {
        attempt.at_endpoint(asked.connection.clone());
        let answer = answer_of(asked, next).await.inspect_err(|error| {
            if knows_nothing(error) {
                attempt.not_at_endpoint();
            }
        })?;
        failpoint::hit("add.endpoint-answered");
        attempt.at_endpoint(answer.clone());
        self.join(asking, answer).await
    }

    /// Makes the wire that was agreed on, or brings the one that stands up to date.
    async fn join(&self, asking: Asking<'_>, answer: Connection) -> Result<Connection, Error> {
        let Asking { request, owner, candidate, client, known, since, working } = asking;
        if let Owner::Attachment(key) = &owner
            && let Some(attachment) = self.attachments.get(key)
        {
            asked::granted(&attachment.ips, &answer)?;
        }
        let agreement = self.agreement(request, &owner, &candidate, client, &answer).await?;
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
            owner,
            phase: Phase::Up,
            endpoint: candidate.name.clone(),
            place: Some(candidate.place),
            chosen_by: chosen_by(request),
            client_side: (&connection).into(),
            endpoint_side: (&answer).into(),
            wire: None,
            since,
        };
        let work = self.work();
        let made = match known.and_then(|known| known.wire.clone()) {
            Some(before) => {
                blocking(move || work.remake(&agreement, &before, record, working)).await.map_err(failed)?
            }
            None => blocking(move || work.make(&agreement, record, working)).await.map_err(failed)?.taken(),
        };
        self.hops.watch(&answer, &candidate.target);
        if let (Some(Wire::Kernel(wire)), Some(mechanism)) = (&made.wire, &mut connection.mechanism) {
            mechanism.parameters.insert(nsm_proto::mechanism::INTERFACE_NAME.into(), wire.client.name.to_string());
        }
        failpoint::hit("add.connection-up");
        Ok(connection)
    }

    fn work(&self) -> Work {
        Work { forwarders: self.forwarders.clone(), connections: self.connections.clone(), links: self.links.clone() }
    }

    /// Takes the wire away and leaves word for the endpoint. Harmless for an id that is not known. `at_hand`: the client's
    /// namespace, if somebody holds it.
    pub async fn end(&self, id: &str, at_hand: Option<Netns>) -> Result<(), Error> {
        self.end_if(id, at_hand, |_| true).await
    }

    /// The same, if the record is still the one that is meant when nobody else works at the wire.
    async fn end_if(
        &self,
        id: &str,
        at_hand: Option<Netns>,
        is_meant: impl FnOnce(&Connected) -> bool,
    ) -> Result<(), Error> {
        let record = |id: &str| self.connections.get(&id.to_owned());
        // Whoever asked forgets the connection now, however far this comes.
        let mut unended = Unended { links: &self.links, record: record(id) };
        let working = self.links.work_at(id).await;
        unended.record = record(id).filter(|record| is_meant(record));
        let Some(record) = unended.record.clone() else { return Ok(()) };
        self.owed.ends(&record).await;
        failpoint::hit("del.closing-recorded");
        let ending = self.links.end(id);
        let client = match &record.wire {
            Some(wire) => self.netns_with_rules(&record, wire, at_hand).await,
            None => None,
        };
        let (forwarders, connections) = (self.forwarders.clone(), self.connections.clone());
        let (hops, links) = (self.hops.clone(), self.links.clone());
        // In one job, and the guards go along: this may be given up while the kernel still works.
        let undo = move || -> Result<(), crate::forwarder::Error> {
            let _guards = (ending, working);
            if let Some(wire) = &record.wire {
                forwarders.of(wire).undo(wire, client.as_ref()).inspect_err(|error| {
                    tracing::error!(connection = record.id, %error, "the wire stays: tried again soon");
                })?;
            }
            failpoint::hit("del.wire-deleted");
            hops.forget(&record.id);
            if let Err(error) = connections.remove_blocking(&record.id) {
                tracing::error!(connection = record.id, %error, "a record of a connection that ended stays");
            }
            links.gone(&record.id);
            Ok(())
        };
        blocking(undo).await.map_err(|error| Error::new(Kind::Internal, error))?;
        unended.record = None;
        failpoint::hit("del.connection-removed");
        self.owed.deliver();
        Ok(())
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
        Err(Error::new(Kind::Exhausted, ClientFault(what)))
    }
}

/// An end that is not done: given up or failed, it is tried again later.
struct Unended<'a> {
    links: &'a Links,
    record: Option<Arc<Connected>>,
}

impl Drop for Unended<'_> {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            self.links.left(&record);
        }
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
    who_is_behind_us(&mut asked.connection, known.map(|known| known.endpoint_side.decoded()).as_ref());
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

/// What the endpoint says by the deadline, unless the Request is called off before.
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

/// What the choice noted.
fn chosen_by(request: &Request) -> ChosenBy {
    request.call.noted().unwrap_or_default()
}

/// The id of the segment before ours.
fn client_id(connection: &Connection) -> String {
    nsm_sdk::path::previous(connection).map(|segment| segment.id.clone()).unwrap_or_default()
}

/// The namespace of the process that makes this call.
pub(super) fn callers_netns(call: &Call) -> Option<Netns> {
    let Some(Caller::Peer(peer)) = call.noted() else { return None };
    Netns::from_file(peer.netns.as_ref()?.fd.try_clone().ok()?).ok()
}

/// What follows us on the path is ours to say, not the client's: to the endpoint another id is another connection, and the first
/// would keep its addresses; an id of somebody else's would be that one's. A client that comes anew under its id need not know it.
fn who_is_behind_us(connection: &mut Connection, known: Option<&Connection>) {
    let Some(path) = &mut connection.path else { return };
    path.path_segments.truncate(path.index as usize + 1);
    if let Some(before) = known.and_then(|known| known.path.as_ref()) {
        path.path_segments.extend(before.path_segments.iter().skip(before.index as usize + 1).cloned());
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

#[cfg(test)]
mod tests {
    use nsm_proto::connection::{Path, PathSegment};

    use super::*;

    #[test]
    fn a_client_does_not_say_who_is_behind_us() {
        let with = |index: u32, ids: &[&str]| {
            let segment = |id: &&str| PathSegment { id: (*id).into(), ..PathSegment::default() };
            let path = Path { index, path_segments: ids.iter().map(segment).collect() };
            Connection { path: Some(path), ..Connection::default() }
        };
        let behind = |asked: &[&str], known: Option<&Connection>| {
            let mut asked = with(1, asked);
            who_is_behind_us(&mut asked, known);
            asked.path.unwrap_or_default().path_segments.into_iter().map(|segment| segment.id).collect::<Vec<_>>()
        };
        let known = with(1, &["c", "a", "e"]);
        for asked in [&["c", "a"][..], &["c", "a", "e"], &["c", "a", "forged", "x"]] {
            assert_eq!(behind(asked, Some(&known)), ["c", "a", "e"]);
            assert_eq!(behind(asked, None), ["c", "a"]);
        }
    }
}
