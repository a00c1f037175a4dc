//! Plugins called as a runtime calls them.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use nsm_kube::BIN_DIR;
use nsm_lab::Namespace;
use serde_json::Value;

/// What plugins are told of a pod beside their configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sandbox<'a> {
    /// Its name is the container's id.
    pub(crate) network: &'a Namespace,
    pub(crate) interface: &'a str,
    /// Of namespace `bench`.
    pub(crate) pod: &'a str,
    pub(crate) uid: &'a str,
}

impl Sandbox<'_> {
    /// Calls the plugin of a configuration; on a thread of the machine's.
    pub(crate) fn call(&self, verb: &str, conf: &Value, before: &Value) -> anyhow::Result<Value> {
        let mut conf = conf.clone();
        if !before.is_null() {
            conf["prevResult"] = before.clone();
        }
        let program = format!("{BIN_DIR}/{}", conf["type"].as_str().context("type")?);
        let mut command = Command::new(&program);
        command.env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("CNI_PATH", BIN_DIR);
        command.env("CNI_COMMAND", verb).env("CNI_CONTAINERID", self.network.name());
        command.env("CNI_IFNAME", self.interface).env("CNI_NETNS", self.network.path());
        let args =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME={};K8S_POD_UID={}", self.pod, self.uid);
        command.env("CNI_ARGS", args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| program.clone())?;
        child.stdin.take().context("stdin")?.write_all(conf.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{program} {verb}: {text}");
        if text.trim().is_empty() { Ok(Value::Null) } else { Ok(serde_json::from_str(&text)?) }
    }
}
