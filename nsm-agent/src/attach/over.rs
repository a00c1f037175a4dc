//! Calls of the CNI plugin that are over though no DEL came: the runtime knows them no more, or their namespace has gone.
//!
//! Guarantees: it is decided in the turn of the call's pod, and all that is recorded of the pod ends there together: attachments,
//! what it had of its namespace, an ADD that could not be undone, at last the sandbox. What has something else by then, or a call under
//! way, keeps it. Nobody waits for an ADD for longer than `by`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use nsm_sdk::{Error, Kind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Engine;
use crate::{
    manager::Ends,
    sandboxes::Sandbox,
    state::{Attachment, AttachmentKey, Source, blocking},
};

/// Pause between two looks at what is left of pods that ended without DEL.
const PRUNED: Duration = Duration::from_mins(5);

/// Why a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// The runtime does not know it any more.
    Forgotten,
    /// If its namespace has gone.
    IfGone,
}

impl Engine {
    /// The calls that have something in a network: attachments, or records of a pod whose sandbox names it.
    pub async fn calls_of(&self, network: &str) -> BTreeSet<AttachmentKey> {
        let attached = self.parts.manager.attachments.select(|attachment| attachment.network == network);
        let mut calls: BTreeSet<AttachmentKey> = attached.iter().map(|attachment| attachment.call_key()).collect();
        let recorded = self.recorded();
        if !recorded.is_empty() {
            let in_network = |sandbox: &Arc<Sandbox>| sandbox.record.network == network;
            let here: BTreeSet<_> =
                self.all_sandboxes().await.iter().filter(|one| in_network(one)).map(|one| one.call()).collect();
            calls.extend(recorded.into_iter().filter(|call| here.contains(call)));
        }
        calls
    }

    /// Ends what a call has in a network, if it is over. Answers the attachments that have ended.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] where another operation does not end by `by`; else why something could not be taken away.
    pub async fn collect(
        &self,
        call: &AttachmentKey,
        network: &str,
        over: Over,
        by: Instant,
    ) -> Result<Vec<AttachmentKey>, Error> {
        let slot = self.parts.manager.turns.at(call);
        let Ok(_turn) = tokio::time::timeout_at(by, slot.turn()).await else {
            return Err(Error::new(
                Kind::Unavailable,
                "another operation on it has not ended yet: the next GC looks again",
            ));
        };
        let of_call = |one: &Attachment| one.call_key() == *call && one.network == network;
        let all = self.parts.manager.attachments.select(of_call);
        let is_over = match over {
            Over::Forgotten => true,
            Over::IfGone => !all.is_empty() && self.have_gone(&all).await,
        };
        if !is_over {
            return Ok(Vec::new());
        }
        let (own, of_pod): (Vec<_>, Vec<_>) = all.iter().partition(|one| one.source == Source::Configuration);
        for one in own {
            self.end_one(&one.key).await?;
        }
        // The pod may have what another network's configuration gave its annotations.
        if !of_pod.is_empty() || self.of_pod(call).is_empty() {
            self.end_of_pod(call).await?;
        }
        self.ends.put(call);
        Ok(all.iter().map(|one| one.key.clone()).collect())
    }

    /// Looks at what is left of pods now and then, until `stop`.
    pub async fn keep_pruned(self, stop: CancellationToken) {
        let mut prune = tokio::time::interval(PRUNED);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = prune.tick() => self.prune().await,
            }
        }
    }

    /// Ends what is left of pods whose namespaces have gone. What has a call under way is left to it.
    pub async fn prune(&self) {
        let all = self.all_sandboxes().await;
        let seen = all.clone();
        let gone: Vec<_> = blocking(move || seen.into_iter().filter(|sandbox| sandbox.is_gone()).collect()).await;
        for sandbox in gone {
            let call = sandbox.call();
            let slot = self.parts.manager.turns.at(&call);
            let Some(_turn) = slot.try_turn() else { continue };
            // The runtime may have made it again, in another namespace.
            let made_again = |one: &Arc<Sandbox>| one.netns != sandbox.netns && one.call() == call;
            let lives = |one: &Attachment| one.call_key() == call && one.netns != sandbox.netns;
            let over = !all.iter().any(made_again) && self.parts.manager.attachments.find(lives).is_none();
            let (container, ifname) = (&call.container_id, &call.ifname);
            if over && let Err(error) = self.end(&call).await {
                tracing::error!(container, ifname, %error, "what a pod had that has gone without DEL stays until the next look");
                continue;
            }
            let (sandboxes, of) = (self.parts.sandboxes.clone(), sandbox.clone());
            if let Some(removed) = blocking(move || sandboxes.remove(&of)).await {
                let ok = removed.is_ok();
                tracing::info!(container, ok, "the sandbox of a pod has gone without DEL: its record is removed");
            }
        }
        self.forget_ended().await;
    }

    /// Forgets what is recorded of pods that have neither a sandbox nor anything else: the DEL of a pod that has no attachment does not
    /// come here.
    pub async fn forget_ended(&self) {
        // First, as an ADD leaves its record of the sandbox before the others.
        let recorded = self.recorded();
        if recorded.is_empty() {
            return;
        }
        for call in recorded.difference(&self.sandboxes_calls().await) {
            let slot = self.parts.manager.turns.at(call);
            let Some(_turn) = slot.try_turn() else { continue };
            if self.of_pod(call).is_empty()
                && !self.sandboxes_calls().await.contains(call)
                && let Err(error) = self.end_of_pod(call).await
            {
                let AttachmentKey { container_id, ifname } = call;
                tracing::warn!(container = container_id, ifname, %error, "a record of a pod that has gone stays");
            }
        }
    }

    /// The calls of pods of which something is recorded besides attachments.
    fn recorded(&self) -> BTreeSet<AttachmentKey> {
        let inherited = self.parts.inherited.all().into_iter().map(|one| one.key.clone());
        inherited.chain(self.parts.pod_adds.all().into_iter().map(|one| one.key.clone())).collect()
    }

    /// All that are recorded; a folder that cannot be read says of each pod that it is there.
    async fn sandboxes_calls(&self) -> BTreeSet<AttachmentKey> {
        let sandboxes = self.parts.sandboxes.clone();
        match blocking(move || sandboxes.all()).await {
            Ok(all) => all.iter().map(|sandbox| sandbox.call()).collect(),
            Err(_) => self.recorded(),
        }
    }

    async fn all_sandboxes(&self) -> Vec<Arc<Sandbox>> {
        let sandboxes = self.parts.sandboxes.clone();
        blocking(move || sandboxes.all()).await.unwrap_or_default()
    }

    async fn have_gone(&self, all: &[Arc<Attachment>]) -> bool {
        for attachment in all {
            if !self.parts.manager.pods_netns(attachment).await.is_gone() {
                return false;
            }
        }
        true
    }
}

#[async_trait]
impl Ends for Engine {
    async fn if_pod_is_gone(&self, key: &AttachmentKey) -> bool {
        let attachments = &self.parts.manager.attachments;
        let Some(call) = attachments.get(key).map(|attachment| attachment.call_key()) else { return true };
        let slot = self.parts.manager.turns.at(&call);
        let _turn = slot.turn().await;
        let Some(attachment) = attachments.get(key) else { return true };
        if !self.parts.manager.pods_netns(&attachment).await.is_gone() {
            return false;
        }
        let (container, ifname) = (&key.container_id, &key.ifname);
        tracing::info!(container, ifname, "the pod's namespace has gone without DEL: closed");
        if let Err(error) = self.end(&call).await {
            tracing::error!(container, ifname, %error, "the attachment of a pod that has gone stays until DEL");
        }
        true
    }
}
