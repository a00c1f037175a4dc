//! The one way to an attachment and out of it, whoever asks: the CNI plugin for a network of its own, the annotations of a
//! pod that starts, or those of a pod that runs.
//!
//! Guarantees: operations on one attachment run one after another; one that fails or is called off leaves nothing. A DEL that
//! is owed for the same attachment is worked off first. Ending is harmless whatever is missing. A pod that is made again under
//! its UID is the same client to its endpoints: the connection of its earlier sandbox ends before the new one is asked for, and
//! a late DEL of that sandbox finds nothing. Whoever finds that a pod is over ends it here: DEL, GC, heal, what is left of sandboxes.

mod answer;
mod ends;
mod identity;
mod over;
mod owed;
mod pod;
mod spec;

use std::{sync::Arc, time::Duration};

use nsm_netlink::{IfName, Netlink, Netns, NetnsId, NetnsSocket};
use nsm_proto::connection::Connection;
use nsm_sdk::{Call, Close, Error, Kind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use answer::answer;
use ends::Ends;
pub use over::Over;
pub use pod::PodSpec;
pub use spec::Spec;

use crate::{
    failpoint,
    forwarder::{Wire, kernel},
    manager::{CalledOff, ForAttachment, Manager},
    notes::{self, Note},
    sandboxes::Sandboxes,
    state::{Attachment, AttachmentKey, Inherited, PodAdd, Records, Source, blocking},
};

/// What the engine needs of the agent.
pub struct Parts {
    /// Who connects.
    pub manager: Manager,
    /// The agent's own namespace.
    pub netlink: Netlink,
    /// Labels of every client of this node: nodeName, clusterName.
    pub node_labels: std::collections::BTreeMap<String, String>,
    /// DELs that were owed while the agent was away.
    pub notes: notes::Folder,
    /// The pods whose namespaces the plugin has seen.
    pub sandboxes: Sandboxes,
    /// ADDs of pods that are under way.
    pub pod_adds: Records<PodAdd>,
    /// What pods have of their namespaces.
    pub inherited: Records<Inherited>,
}

/// The engine. Clones share it.
#[derive(Clone)]
pub struct Engine {
    parts: Arc<Parts>,
    ends: Arc<Ends>,
}

/// An attachment that was made.
#[derive(Debug, Clone)]
pub struct Made {
    /// Its record.
    pub attachment: Attachment,
    /// The connection as its client knows it.
    pub connection: Connection,
    /// The interface.
    pub wire: kernel::Wire,
}

/// How an ADD begins.
enum Begun {
    /// It is recorded. The pod's prefixes, which no endpoint should hand out again.
    Recorded(Vec<String>),
    /// First a DEL of the same attachment has to be worked off.
    Owed(Note),
}

impl Engine {
    /// Works with these parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), ends: Arc::default() }
    }

    /// Who connects.
    pub fn manager(&self) -> &Manager {
        &self.parts.manager
    }

    /// The agent's own namespace.
    pub fn own_netns(&self) -> NetnsId {
        self.parts.netlink.netns().id()
    }

    /// The pods whose namespaces the plugin has seen.
    pub fn sandboxes(&self) -> &Sandboxes {
        &self.parts.sandboxes
    }

    /// Makes an attachment by `deadline`, unless it is called off: then nothing is left of it when its turn ends.
    ///
    /// For an annotation the caller has the turn of its pod, `turns.at(container, CNI_IFNAME of the pod)`, which comes before
    /// the attachment's own.
    ///
    /// # Errors
    /// [`Kind::Conflict`] where the attachment exists; otherwise what the endpoint, the kernel or the disk say.
    pub async fn add(
        &self,
        spec: Spec,
        netns: Netns,
        deadline: Instant,
        called_off: &CancellationToken,
    ) -> Result<Made, Error> {
        let key = spec.key.clone();
        let slot = self.parts.manager.turns.at(&key);
        let _turn = in_turn(slot.turn(), &key, deadline, called_off).await?;
        if self.parts.manager.attachments.get(&key).is_some() {
            self.work_off_note(&key).await?;
        }
        if let Some(known) = self.parts.manager.attachments.get(&key) {
            return Err(exists(&known));
        }
        let attachment = spec.attachment(&netns, &self.parts)?;
        let identity = self.identity(&attachment);
        let _alone = match &identity {
            Some(slot) => Some(in_turn(slot.turn(), &key, deadline, called_off).await?),
            None => None,
        };
        if identity.is_some() {
            self.end_earlier_sandbox(&attachment).await?;
        }
        if let Some(pod) = attachment.pod_key() {
            let marked = self.mark(&attachment).await;
            // An ADD's own sandbox may have no record: then its DEL asks.
            if self.parts.pod_adds.get(&pod).is_none() {
                marked?;
            }
        }
        let done = self.connect(attachment, &spec, netns, deadline, called_off).await;
        let done = if called_off.is_cancelled() { done.and_then(|_| Err(cancelled())) } else { done };
        if done.is_err()
            && let Err(error) = self.end_one(&key).await
        {
            tracing::error!(container = key.container_id, ifname = key.ifname, %error, "a failed ADD is not undone yet: its record stays until DEL");
        }
        done
    }

    /// Ends what an ADD with this key made: the attachment, or the attachments of the pod whose CNI_IFNAME it names. False when
    /// there was none. Calls off the ADDs of it that came before.
    pub async fn del(&self, key: &AttachmentKey) -> Result<bool, Error> {
        let slot = self.parts.manager.turns.at(key);
        slot.call_off();
        let _turn = slot.turn().await;
        self.end(key).await
    }

    /// When a DEL with this key was done last, if that was a moment ago: the plugin removes its record afterwards.
    pub fn ended(&self, key: &AttachmentKey) -> Option<std::time::Instant> {
        self.ends.get(key)
    }

    /// Ends one attachment of an annotation, for whoever has the turn of its pod; false when there was none.
    pub async fn detach(&self, key: &AttachmentKey) -> Result<bool, Error> {
        let slot = self.parts.manager.turns.at(key);
        slot.call_off();
        let _turn = slot.turn().await;
        self.end_one(key).await
    }

    /// Ends an attachment, for whoever has its turn; false when there was none. Where its wire cannot be taken away its record
    /// stays, so that the next DEL finds it.
    async fn end_one(&self, key: &AttachmentKey) -> Result<bool, Error> {
        let manager = &self.parts.manager;
        // A refresh or heal may wait for an endpoint that hangs.
        manager.turns.at(key).end();
        let Some(attachment) = manager.attachments.get(key) else { return Ok(false) };
        let call = Call::default();
        call.note(ForAttachment(key.clone()));
        let connection = Connection {
            id: attachment.client_id.clone(),
            network_service: attachment.network_service.clone(),
            ..Connection::default()
        };
        manager.attaching.close(Close { connection, call }).await?;
        manager.attachments.remove(key).await.map_err(|error| Error::new(Kind::Internal, error))?;
        Ok(true)
    }

    /// What an ADD with this key made, for whoever has the turn.
    async fn end(&self, key: &AttachmentKey) -> Result<bool, Error> {
        let own = self.parts.manager.attachments.get(key).is_none_or(|known| known.source == Source::Configuration);
        let mut found = own && self.end_one(key).await?;
        found |= self.end_of_pod(key).await?;
        self.ends.put(key);
        if found {
            failpoint::hit("del.attachment-removed");
        }
        Ok(found)
    }

    async fn connect(
        &self,
        attachment: Attachment,
        spec: &Spec,
        netns: Netns,
        deadline: Instant,
        called_off: &CancellationToken,
    ) -> Result<Made, Error> {
        let prefixes = match self.begin(attachment.clone(), netns.clone()).await? {
            Begun::Recorded(prefixes) => prefixes,
            Begun::Owed(note) => {
                Box::pin(self.settle(&attachment.key, note)).await?;
                let (attachments, attachment, netns) =
                    (self.parts.manager.attachments.clone(), attachment.clone(), netns.clone());
                blocking(move || record(&attachments, attachment, &netns)).await?
            }
        };
        let mut call = Call::new(Duration::ZERO);
        call.deadline = deadline;
        call.note(ForAttachment(attachment.key.clone()));
        call.note(CalledOff(called_off.clone()));
        call.note(netns);
        let request = spec.request(&attachment, prefixes, call);
        let connection = tokio::select! {
            made = self.parts.manager.attaching.request(request) => made?,
            () = called_off.cancelled() => return Err(cancelled()),
            () = tokio::time::sleep_until(deadline) => {
                return Err(Error::new(
                    Kind::Deadline,
                    "no endpoint served in time: the agent's log names those that were asked",
                ));
            }
        };
        let wire = self.wire_of(&connection);
        let wire = wire.ok_or_else(|| Error::new(Kind::Internal, "the connection has no interface"))?;
        Ok(Made { attachment, connection, wire })
    }

    /// The wire of a connection as its client knows it.
    fn wire_of(&self, connection: &Connection) -> Option<kernel::Wire> {
        let ours = nsm_sdk::path::next(connection)?;
        match self.parts.manager.wires.connections.get(&ours.id)?.wire.as_ref()? {
            Wire::Kernel(wire) => Some((**wire).clone()),
            Wire::Relay => None,
        }
    }

    /// Records what is asked, unless a DEL is owed or the interface's name is taken.
    async fn begin(&self, attachment: Attachment, netns: Netns) -> Result<Begun, Error> {
        let (attachments, notes) = (self.parts.manager.attachments.clone(), self.parts.notes.clone());
        blocking(move || match notes.find(&attachment.key) {
            Some(note) => Ok(Begun::Owed(note)),
            None => record(&attachments, attachment, &netns).map(Begun::Recorded),
        })
        .await
    }

    /// Leaves word for the plugin that a pod has something to end, whatever it knew when the pod was made.
    async fn mark(&self, attachment: &Attachment) -> Result<(), Error> {
        match self.parts.sandboxes.mark(attachment.netns).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(
                Kind::NotFound,
                "the pod is ending, or was made before this agent was installed: it gets network services when it is made again",
            )),
            Err(error) => {
                Err(Error::new(Kind::Internal, format!("the record of the pod's sandbox cannot be marked: {error}")))
            }
        }
    }
}

/// The turn, unless time runs out or the operation is called off before it comes.
async fn in_turn<T>(
    turn: impl Future<Output = T>,
    key: &AttachmentKey,
    deadline: Instant,
    called_off: &CancellationToken,
) -> Result<T, Error> {
    tokio::select! {
        turn = turn => Ok(turn),
        () = called_off.cancelled() => Err(cancelled()),
        () = tokio::time::sleep_until(deadline) => {
            Err(Error::new(Kind::Unavailable, format!("another operation on attachment {key} did not end in time")))
        }
    }
}

/// Records what is asked. The answer is what the pod has already.
fn record(attachments: &Records<Attachment>, attachment: Attachment, netns: &Netns) -> Result<Vec<String>, Error> {
    let prefixes = look_into(netns, &attachment.interface, &attachment.aware_of(attachments))?;
    attachments
        .put_blocking(attachment)
        .map_err(|error| Error::new(if error.is_full() { Kind::Exhausted } else { Kind::Internal }, error))?;
    failpoint::hit("add.attachment-recorded");
    Ok(prefixes)
}

/// The prefixes that the pod has already, less those of the interfaces `aware` only. A taken name ends it here.
fn look_into(netns: &Netns, name: &IfName, aware: &[IfName]) -> Result<Vec<String>, Error> {
    let internal = |error: nsm_netlink::Error| Error::new(Kind::Internal, error);
    let mut pod = NetnsSocket::open(netns).map_err(internal)?;
    if pod.link_by_name(name).map_err(internal)?.is_some() {
        return Err(Error::new(
            Kind::Conflict,
            format!(
                "the pod has an interface {name} already: name another one (CNI_IFNAME, \"interface\" in the configuration, or the interface in the annotation), or DEL what made it"
            ),
        ));
    }
    let prefixes = kernel::present_prefixes(&mut pod, aware).map_err(|error| Error::new(Kind::Internal, error))?;
    Ok(prefixes.iter().map(ToString::to_string).collect())
}

fn exists(known: &Attachment) -> Error {
    let Attachment { key, network, .. } = known;
    Error::new(Kind::Conflict, format!("attachment {key} exists, in network {network:?}: DEL it first"))
}

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "called off: by DEL, or because the plugin has gone")
}
