//! Calls of the host's plugin about pods that run.
//!
//! Guarantee: the commands are ours alone. Another meta-plugin that has come to lie under the name by now refuses them, where ADD, DEL or
//! GC would be about whole pods.

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
        let (plugin, of) = (place.call.plugin.clone(), place.pod.namespace.clone());
        let call = host::Call { plugin, environment, stdin: stdin.to_string(), of };
        self.door.call(call, Instant::now() + ATTACHING).await
    }
}
