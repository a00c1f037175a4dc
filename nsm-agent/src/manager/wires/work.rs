//! The part of a Request that blocks: plan the wire, record the plan, make it, record what was made.
//!
//! Guarantee: it comes to its end whoever waits for it; a wire that cannot be recorded is undone.

use std::sync::{Arc, Mutex, PoisonError};

use nsm_sdk::{Error, Kind};

use super::{ClientFault, Links};
use crate::{
    failpoint,
    forwarder::{self, Agreement, Fault, Forwarders, Wire},
    state::{self, Connected, Phase, Records},
};

/// What is done on a thread of its own, to its end whoever waits: plan, record, make.
pub(super) struct Work {
    pub(super) forwarders: Arc<Forwarders>,
    pub(super) connections: Records<Connected>,
    pub(super) links: Arc<Mutex<Links>>,
}

impl Work {
    pub(super) fn wire(
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
            // Taken away to be made anew: its interfaces are not missed.
            let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
            links.standing.retain(|_, id| *id != agreement.id);
            drop(links);
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
                tracing::error!(%error, "the wire of a failed connection stays; the next start of the agent removes it");
            }
        })
    }

    fn up(&self, record: Connected) -> Result<Connected, WorkError> {
        self.connections.put_blocking(record.clone())?;
        Ok(record)
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
            Fault::Client => Error::new(Kind::Conflict, ClientFault(described(&error))),
            Fault::Endpoint => Error::new(Kind::Refused, described(&error)),
            Fault::Node => Error::new(Kind::Internal, described(&error)),
        },
    }
}

fn described(error: &forwarder::Error) -> String {
    Error::new(Kind::Internal, std::io::Error::other(error.to_string())).to_string()
        + &std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default()
}

pub(super) fn recording(error: state::Error) -> Error {
    Error::new(if error.is_full() { Kind::Exhausted } else { Kind::Internal }, error)
}
