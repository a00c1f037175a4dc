//! A plugin that makes nothing and writes down how it is called.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use nsm_kube::{BIN_DIR, Machine};
use serde_json::Value;

/// Command, interface and configuration, a line each.
const CALLS: &str = "/run/nsm/recorded";

/// Puts it where plugins are, with nothing written yet.
pub(super) fn install(machine: &Machine) -> anyhow::Result<()> {
    let script = format!(
        "#!/bin/sh\necho \"$CNI_COMMAND $CNI_IFNAME $(cat)\" >> {CALLS}\n\
         [ \"$CNI_COMMAND\" = ADD ] && echo '{{\"cniVersion\":\"1.0.0\"}}'\nexit 0\n"
    );
    machine.place().write(CALLS, "")?;
    machine.place().run(|| {
        let path = Path::new(BIN_DIR).join("recorder");
        fs::write(&path, script)?;
        fs::set_permissions(&path, Permissions::from_mode(0o755))
    })??;
    Ok(())
}

/// `COMMAND INTERFACE` and configuration of each call.
pub(super) fn calls(machine: &Machine) -> anyhow::Result<Vec<(String, Value)>> {
    let text = machine.place().read(CALLS)?;
    let call = |line: &str| {
        let (what, conf) = line.split_at(line.find('{').with_context(|| line.to_owned())?);
        Ok((what.trim().to_owned(), serde_json::from_str(conf).with_context(|| line.to_owned())?))
    };
    text.lines().map(call).collect()
}
