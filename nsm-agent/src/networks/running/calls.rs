//! Calls of the host's plugin about pods that run.
//!
//! Guarantees: what a call is to change is recorded before it is made, and what it has changed after it, so that there is nothing that
//! nobody knows, whenever the agent is killed: what was begun is repeated, under the same name, or detached. The commands are ours alone:
//! another meta-plugin that has come to lie under the name by now refuses them, where ADD, DEL or GC would be about whole pods.

use nsm_npwg::{ATTACH, Attach, DETACH, Detach, Selection};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{ATTACHING, Place, Running};
use crate::{
    failpoint, host,
    networks::{
        Settled,
        settled::{Made, Note},
    },
    pods::Reason,
    state::AttachmentKey,
};

impl Running {
    pub(super) async fn attach(&self, place: &Place, selection: Selection, attach: Attach) -> Result<(), String> {
        let device = attach.resource_name.clone().zip(attach.device_id.clone());
        let coming = Made::coming(&attach, selection.clone(), device.clone());
        let note = Note::of(Some(selection), device).to_text();
        let (ifname, attach) = (attach.ifname.clone(), Attach { note, ..attach });
        self.put(self.settled(place).with(coming)).await?;
        failpoint::hit("attach.recorded");
        let began = Instant::now();
        let answer = self.call("NSM_ATTACH", place, ATTACH, json!(attach)).await.map_err(|error| error.to_string())?;
        failpoint::hit("attach.answered");
        let settled = self.record(place, &ifname, &answer).await?;
        let made = settled.networks.iter().find(|one| one.ifname == ifname);
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

    pub(super) async fn detach(&self, place: &Place, ifname: &str) -> Result<(), String> {
        self.put(self.settled(place).without(ifname)).await?;
        failpoint::hit("detach.recorded");
        let detach = json!(Detach { ifname: ifname.to_owned() });
        let answer = self.call("NSM_DETACH", place, DETACH, detach).await.map_err(|error| error.to_string())?;
        failpoint::hit("detach.answered");
        tracing::info!(pod = place.pod.name, namespace = place.pod.namespace, ifname, "network detached");
        self.record(place, ifname, &answer).await.map(drop)
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

    /// Has the plugin called for a pod.
    async fn call(&self, command: &str, place: &Place, key: &str, value: Value) -> Result<String, host::Error> {
        let unread = |error: serde_json::Error| host::Error::NotCalled(format!("the pod's record: {error}"));
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
        let entered = self.stop.run_until_cancelled(self.door.enter(&place.pod.namespace)).await;
        let ending = || host::Error::NotCalled("the agent is ending".to_owned());
        entered.unwrap_or_else(|| Err(ending()))?.call(call, ATTACHING).await
    }
}
