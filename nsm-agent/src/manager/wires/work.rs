//! The part of a Request that blocks: plan the wire, record the plan, make it, record what was made.
//!
//! Guarantees: it comes to its end whoever waits for it. A wire that cannot be recorded is undone, and so is a new one that
//! nobody waits for any more when it is made.

use std::sync::Arc;

use nsm_netlink::Netns;
use nsm_sdk::{Error, Kind};

use super::{
    ends::ClientFault,
    links::{Links, Working},
};
use crate::{
    failpoint,
    forwarder::{self, Agreement, Fault, Forwarders, Wire},
    state::{self, Connected, Phase, Records},
};

/// What is done on a thread of its own, to its end whoever waits: plan, record, make.
#[derive(Clone)]
pub(super) struct Work {
    pub(super) forwarders: Arc<Forwarders>,
    pub(super) connections: Records<Connected>,
    pub(super) links: Links,
}

/// The wire of a new connection, until whoever asked for it has taken it: else it is undone.
pub(super) struct Made {
    work: Work,
    record: Option<Connected>,
    client: Option<Netns>,
    /// Ends with the undoing.
    working: Option<Working>,
}

impl Made {
    /// It is somebody's now.
    pub(super) fn taken(mut self) -> Connected {
        self.record.take().expect("a wire is taken once, or dropped")
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let Some(record) = self.record.take() else { return };
        let (work, client, working) = (self.work.clone(), self.client.take(), self.working.take());
        let undo = move || {
            work.take_back(&record, client.as_ref());
            drop(working);
        };
        // Dropped by a task that gave up, or as the result that no task waited for.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(undo)),
            Err(_) => undo(),
        }
    }
}

impl Work {
    /// The wire of a new connection. Blocking.
    pub(super) fn make(&self, agreement: &Agreement, record: Connected, working: Working) -> Result<Made, WorkError> {
        let record = self.wire(agreement, None, record)?;
        let client = agreement.client.netns.clone();
        Ok(Made { work: self.clone(), record: Some(record), client, working: Some(working) })
    }

    /// The wire of a connection that stands, changed or made anew. Blocking.
    pub(super) fn remake(
        &self,
        agreement: &Agreement,
        before: &Wire,
        record: Connected,
        _working: Working,
    ) -> Result<Connected, WorkError> {
        self.wire(agreement, Some(before), record)
    }

    fn wire(
        &self,
        agreement: &Agreement,
        before: Option<&Wire>,
        mut record: Connected,
    ) -> Result<Connected, WorkError> {
        let forwarder =
            self.forwarders.joining(&agreement.client.mechanism.r#type, &agreement.endpoint.mechanism.r#type)?;
        let plan = forwarder.plan(agreement)?;
        if let Some(old) = before {
            if let Some(same) = self.forwarders.of(old).change(old, &plan, agreement)? {
                record.wire = Some(same);
                return self.up(record);
            }
            self.links.unwatch(&agreement.id);
            self.forwarders.of(old).undo(old, agreement.client.netns.as_ref())?;
        }
        record.phase = Phase::Adding;
        record.wire = Some(plan.clone());
        self.connections.put_blocking(record.clone())?;
        failpoint::hit("add.wire-recorded");
        let made = forwarder.apply(&plan, agreement)?;
        record.phase = Phase::Up;
        record.wire = Some(made.clone());
        self.up(record).inspect_err(|_| {
            if let Err(error) = forwarder.undo(&made, agreement.client.netns.as_ref()) {
                tracing::error!(connection = agreement.id, %error, "the wire of a failed connection stays for now");
            }
        })
    }

    fn up(&self, record: Connected) -> Result<Connected, WorkError> {
        self.connections.put_blocking(record.clone())?;
        self.links.stands(&record);
        Ok(record)
    }

    /// Takes away what a record says, and the record. Blocking.
    pub(super) fn take_back(&self, record: &Connected, client: Option<&Netns>) {
        let _ending = self.links.end(&record.id);
        if let Some(wire) = &record.wire
            && let Err(error) = self.forwarders.of(wire).undo(wire, client)
        {
            tracing::error!(connection = record.id, %error, "the wire of a failed connection stays: tried again soon");
            self.links.left(record);
            return;
        }
        self.links.unwatch(&record.id);
        if let Err(error) = self.connections.remove_blocking(&record.id) {
            tracing::error!(connection = record.id, %error, "the record of a failed connection stays");
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error(transparent)]
    Wire(#[from] forwarder::Error),
    #[error(transparent)]
    Record(#[from] state::Error),
}

pub(super) fn failed(error: WorkError) -> Error {
    match error {
        WorkError::Record(error) => recording(error),
        WorkError::Wire(error) => match error.fault {
            Fault::Client => {
                let described = Error::new(Kind::Conflict, error).to_string();
                Error::new(Kind::Conflict, ClientFault(described))
            }
            Fault::Endpoint => Error::new(Kind::Refused, error),
            Fault::Node => Error::new(Kind::Internal, error),
        },
    }
}

pub(super) fn recording(error: state::Error) -> Error {
    Error::new(if error.is_full() { Kind::Exhausted } else { Kind::Internal }, error)
}
