//! Calls of the host's plugin about pods that run, and about those that have gone.
//!
//! Guarantee: the commands are ours alone. Another meta-plugin that has come to lie under the name by now refuses them, where ADD, DEL or
//! GC would be about whole pods.

use std::time::SystemTime;

use serde_json::Value;
use tokio::time::Instant;

use super::{ATTACHING, Place, Running};
use crate::{host, state::AttachmentKey};

impl Running {
    /// Has the plugin called for a pod.
    pub(super) async fn call(
        &self,
        command: &str,
        place: &Place,
        key: &str,
        value: Value,
    ) -> Result<String, host::Error> {
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
        self.door.call(call, Instant::now() + ATTACHING).await
    }

    /// Frees what is left of pods that ended without DEL, where the runtime does not: the plugin knows which sandboxes have gone, and
    /// leaves alone whose lock somebody holds.
    pub(super) async fn collect(&self) {
        if self.door.is_shut() {
            return;
        }
        let places = self.places().await;
        let newest = places.into_iter().max_by_key(|place| place.sandbox.since);
        let Some(place) = newest.filter(|place| place.sandbox.since <= SystemTime::now()) else { return };
        let Ok(mut stdin) = serde_json::from_str::<Value>(&place.call.configuration) else { return };
        // Since when there is GC.
        stdin["cniVersion"] = "1.1.0".into();
        let environment = vec![("CNI_COMMAND", "NSM_COLLECT".to_owned()), ("CNI_PATH", place.call.cni_path.clone())];
        let call = host::Call { plugin: place.call.plugin, environment, stdin: stdin.to_string() };
        if let Err(error) = self.door.call(call, Instant::now() + ATTACHING).await {
            tracing::warn!(%error, "what is left of networks of pods that ended without DEL cannot be freed yet");
        }
    }
}
