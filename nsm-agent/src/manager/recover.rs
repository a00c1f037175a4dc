//! Start-up is recovery: records, kernel and endpoints are brought to agree.
//!
//! Guarantees: afterwards every attachment is whole or gone. What was half made is undone, what was half closed is closed, what
//! was whole is served again without a packet lost. An endpoint that knows of a connection which is gone here is told.

use std::{sync::Arc, time::Duration};

use nsm_proto::connection::{Connection, Mechanism};
use nsm_sdk::path;

use super::Manager;
use crate::{
    forwarder::Finding,
    netns::PodsNetns,
    state::{Attachment, Connected, Owner, Phase, blocking},
};

/// How long clients and endpoints have to come back after the agent was away, whatever has expired meanwhile. An endpoint that
/// does not is withdrawn after that time anyway.
const RETURN: Duration = Duration::from_mins(1);

/// What was found and done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Connections that are served again.
    pub whole: usize,
    /// Connections that were undone.
    pub undone: usize,
    /// Attachments without a connection, forgotten.
    pub forgotten: usize,
}

/// Brings a manager to where the agent before it was. Nothing else may use it yet.
pub async fn recover(manager: &Manager) -> Recovered {
    let mut recovered = Recovered::default();
    let owed = manager.owed.all();
    for record in manager.wires.connections.all() {
        let whole =
            record.phase == Phase::Up && !owed.iter().any(|owed| owed.ends(&record)) && stands(manager, &record).await;
        if whole {
            adopt(manager, &record);
            recovered.whole += 1;
        } else {
            recovered.undone += 1;
            if let Err(error) = manager.wires.end(&record.id, None).await {
                tracing::error!(connection = record.id, %error, "a connection that was not whole could not be undone");
            }
        }
    }
    for attachment in manager.wires.attachments.all() {
        let is_of_it = |record: &Connected| matches!(&record.owner, Owner::Attachment(key) if *key == attachment.key);
        // One whose connection could not be undone stays, so that DEL finds it.
        let held = manager.wires.connections.find(is_of_it).is_some();
        if manager.attached.last(&attachment.client_id).is_none() && !held {
            recovered.forgotten += 1;
            if let Err(error) = manager.wires.attachments.remove(&attachment.key).await {
                tracing::error!(container = attachment.key.container_id, %error, "the record of an attachment stays");
            }
        }
    }
    recovered
}

/// Whether the wire is there, and for whom it was made.
async fn stands(manager: &Manager, record: &Arc<Connected>) -> bool {
    let client = match attachment(manager, record) {
        Ok(Some(attachment)) => {
            match manager.pods_netns(&attachment).await {
                PodsNetns::Here(netns) => Some(netns),
                PodsNetns::Gone => return false,
                PodsNetns::Unseen(error) => {
                    // The wire itself tells.
                    tracing::warn!(connection = record.id, %error, "the pod's namespace cannot be seen");
                    None
                }
            }
        }
        Ok(None) => None,
        Err(()) => return false,
    };
    let Some(wire) = record.wire.clone() else { return false };
    let forwarders = manager.wires.forwarders.clone();
    match blocking(move || forwarders.of(&wire).inspect(&wire, client.as_ref())).await {
        Ok(findings) if findings.is_empty() => true,
        Ok(findings) => {
            let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
            tracing::warn!(connection = record.id, findings = said.join("; "), "found at start");
            !findings.iter().any(Finding::is_gone)
        }
        Err(error) => {
            tracing::error!(connection = record.id, %error, "cannot be looked at");
            true
        }
    }
}

/// `Err`: it belongs to an attachment that is not known any more.
fn attachment(manager: &Manager, record: &Connected) -> Result<Option<Arc<Attachment>>, ()> {
    match &record.owner {
        Owner::Attachment(key) => manager.wires.attachments.get(key).map(Some).ok_or(()),
        Owner::Pod(_) | Owner::Host { .. } => Ok(None),
    }
}

fn adopt(manager: &Manager, record: &Arc<Connected>) {
    let connection = record.client_side.decoded();
    let preferences: Vec<Mechanism> = connection.mechanism.iter().cloned().collect();
    let events = manager.begin.adopt(connection.clone(), preferences.clone(), &manager.behind_begin);
    manager.expiry.adopt(&events, &connection, RETURN);
    manager.monitor.adopt(connection.clone());
    if let Ok(Some(_)) = attachment(manager, record)
        && let Some(at_client) = at_client(connection)
    {
        let events = manager.attached.adopt(at_client.clone(), preferences, &manager.behind_attached);
        manager.refresh.adopt(&events, &at_client);
    }
    manager.wires.adopt(record);
}

/// The same connection one hop back.
fn at_client(mut connection: Connection) -> Option<Connection> {
    let id = path::previous(&connection)?.id.clone();
    connection.path.as_mut()?.index -= 1;
    connection.id = id;
    Some(connection)
}
