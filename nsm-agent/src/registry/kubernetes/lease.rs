//! This node's lease: one write every few seconds says for all its endpoints that they live.
//!
//! It is never deleted: an agent that restarts finds its endpoints alive, and one that does not come back loses them in time.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff,
};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Settings, names, nodes::RENEWALS};
use crate::kubernetes::{Failure, bounded, jitter};

/// Renews until the end; a renewal that fails is tried again sooner.
pub(super) async fn keep(leases: Api<Lease>, settings: Settings, stop: CancellationToken) {
    let renewal = settings.lease / RENEWALS;
    // Tells two agents that were given one node name from one that restarted.
    let holder = format!("{} {}", settings.node, uuid::Uuid::new_v4());
    let mut failed = false;
    loop {
        let pause = match renew(&leases, &settings, &holder).await {
            Ok(()) => {
                settings.rivals.renewed(&holder);
                if std::mem::take(&mut failed) {
                    tracing::info!("the node's lease is renewed again");
                }
                renewal
            }
            Err(failure) => {
                if !std::mem::replace(&mut failed, true) {
                    tracing::warn!(error = ?failure, "the node's lease cannot be renewed: other nodes will take its endpoints for gone");
                }
                renewal.min(Duration::from_secs(2))
            }
        };
        tokio::select! {
            () = tokio::time::sleep(jitter(pause)) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn renew(leases: &Api<Lease>, settings: &Settings, holder: &str) -> Result<(), Failure> {
    let name = names::of_lease(&settings.node);
    let seconds = i32::try_from(settings.lease.as_secs()).unwrap_or(i32::MAX);
    let spec = LeaseSpec {
        holder_identity: Some(holder.to_owned()),
        lease_duration_seconds: Some(seconds),
        renew_time: Some(MicroTime(jiff::Timestamp::now())),
        ..LeaseSpec::default()
    };
    let patch = json!({ "metadata": { "annotations": { names::HOLDER: holder } }, "spec": spec });
    match bounded(leases.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))).await {
        Err(Failure::Missing(_)) => {}
        done => return done.map(drop),
    }
    let metadata = ObjectMeta {
        name: Some(name),
        labels: Some([(names::AGENT.to_owned(), "true".to_owned())].into()),
        annotations: Some(
            [(names::NODE.to_owned(), settings.node.to_string()), (names::HOLDER.to_owned(), holder.to_owned())].into(),
        ),
        ..ObjectMeta::default()
    };
    bounded(leases.create(&PostParams::default(), &Lease { metadata, spec: Some(spec) })).await.map(drop)
}
