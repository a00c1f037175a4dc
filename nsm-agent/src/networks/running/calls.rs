//! Calls of the host's plugin about pods that run.
//!
//! Guarantees: what a call is to change is recorded before it is made, once nothing but the call itself is left to fail, and what it has
//! changed after it, so that there is nothing that nobody knows, whenever the agent is killed: what was begun is repeated, under the same
//! name, or detached. An edit that is taken back before its call was made has changed nothing. The commands are ours alone: another
//! meta-plugin that has come to lie under the name by now refuses them, where ADD, DEL or GC would be about whole pods.

use nsm_cni_types::code;
use nsm_npwg::{ATTACH, Annotations, Attach, DETACH, Detach, Selection};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ATTACHING, Place, Running};
use crate::{
    failpoint,
    host::{self, Ready},
    networks::{
        Settled,
        settled::{Made, Note},
    },
    pods::Reason,
    state::AttachmentKey,
};

/// Why a network is not changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unchanged {
    /// Nothing was begun: the annotation has been edited, the agent ends, or the pod has a network that was not known.
    Overtaken,
    /// It could not be.
    Failed(String),
}

impl From<String> for Unchanged {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

impl From<host::Error> for Unchanged {
    fn from(error: host::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Running {
    pub(super) async fn attach(
        &self,
        place: &Place,
        asked: &Annotations,
        selection: Selection,
        attach: Attach,
    ) -> Result<(), Unchanged> {
        let device = attach.resource_name.clone().zip(attach.device_id.clone());
        let coming = Made::coming(&attach, selection.clone(), device.clone());
        let note = Note::of(Some(selection), device).to_text();
        let attach = Attach { note, ..attach };
        let ifname = &attach.ifname;
        let ready = self.start("NSM_ATTACH", place, asked, (ATTACH, json!(attach))).await?;
        self.put(self.settled(place).with(coming)).await?;
        failpoint::hit("attach.recorded");
        let began = Instant::now();
        let answer = match ready.finish(ATTACHING).await {
            Ok(answer) => answer,
            Err(error) => {
                let is_taken = matches!(error, host::Error::Refused { code, .. } if code == u64::from(code::CONFLICT));
                // By this network's name no other one is ended, but told.
                if is_taken && self.detach(place, asked, ifname).await.is_ok() {
                    let now = self.settled(place);
                    if now.networks.iter().any(|one| one.ifname == *ifname) {
                        return Err(Unchanged::Overtaken);
                    }
                }
                return Err(error.into());
            }
        };
        failpoint::hit("attach.answered");
        let settled = self.record(place, ifname, &answer).await?;
        let made = settled.networks.iter().find(|one| one.ifname == *ifname);
        let made = made.ok_or_else(|| format!("nsm-cni answered without interface {ifname}"))?;
        let told = format!("Add {}", made.told());
        let duration_ms = crate::cni::milliseconds(began.elapsed());
        tracing::info!(
            pod = place.pod.name,
            namespace = place.pod.namespace,
            ifname = made.ifname,
            network = made.name,
            duration_ms,
            "network attached"
        );
        self.tell(place, Reason::AddedInterface, &told);
        Ok(())
    }

    pub(super) async fn detach(&self, place: &Place, asked: &Annotations, ifname: &str) -> Result<(), Unchanged> {
        let known = self.settled(place).networks.into_iter().find(|one| one.ifname == ifname);
        let detach = Detach { ifname: ifname.to_owned(), name: known.map(|one| one.name) };
        let ready = self.start("NSM_DETACH", place, asked, (DETACH, json!(detach))).await?;
        self.put(self.settled(place).without(ifname)).await?;
        failpoint::hit("detach.recorded");
        let answer = ready.finish(ATTACHING).await?;
        failpoint::hit("detach.answered");
        let (pod, namespace) = (&place.pod.name, &place.pod.namespace);
        match self.record(place, ifname, &answer).await?.networks.iter().find(|one| one.ifname == ifname) {
            None => tracing::info!(pod, namespace, ifname, "network detached"),
            Some(other) => {
                tracing::warn!(pod, namespace, ifname, network = other.name, "another network is there: it stays");
            }
        }
        Ok(())
    }

    /// What is known of a pod's networks.
    fn settled(&self, place: &Place) -> Settled {
        let known = self.networks.settled.get(&place.key).as_deref().cloned();
        known.unwrap_or_else(|| Settled::nothing(place.key.clone(), place.pod.clone()))
    }

    /// Records a pod's networks as the plugin tells them after it has changed this one.
    async fn record(&self, place: &Place, ifname: &str, answer: &str) -> Result<Settled, String> {
        let changed = serde_json::from_str(answer).map_err(|error| format!("nsm-cni answered no networks: {error}"))?;
        let settled = self.settled(place).after(ifname, &changed)?;
        self.put(settled.clone()).await?;
        Ok(settled)
    }

    async fn put(&self, settled: Settled) -> Result<(), String> {
        if self.networks.settled.get(&settled.key).as_deref() == Some(&settled) {
            return Ok(());
        }
        self.networks.settled.put(settled).await.map_err(|error| error.to_string())
    }

    /// Has the plugin started for a pod, if its annotation says the same still when there is a place for it.
    async fn start(
        &self,
        command: &str,
        place: &Place,
        asked: &Annotations,
        (key, value): (&str, Value),
    ) -> Result<Ready, Unchanged> {
        let unread = |error: serde_json::Error| format!("the pod's record: {error}");
        let mut stdin: Value = serde_json::from_str(&place.call.configuration).map_err(unread)?;
        stdin[key] = value;
        let AttachmentKey { container_id, ifname } = &place.key;
        let environment = vec![
            ("CNI_COMMAND", command.to_owned()),
            ("CNI_CONTAINERID", container_id.clone()),
            ("CNI_IFNAME", ifname.clone()),
            ("CNI_NETNS", place.sandbox.record.netns.display().to_string()),
            ("CNI_PATH", place.call.cni_path.clone()),
            ("CNI_ARGS", place.call.cni_args.clone()),
        ];
        let call = host::Call { plugin: place.call.plugin.clone(), environment, stdin: stdin.to_string() };
        let entered = tokio::select! {
            biased;
            () = self.stop.cancelled() => return Err(Unchanged::Overtaken),
            () = self.edited(place, asked) => return Err(Unchanged::Overtaken),
            entered = self.door.enter(&place.pod.namespace) => entered?,
        };
        Ok(entered.start(call).await?)
    }
}
