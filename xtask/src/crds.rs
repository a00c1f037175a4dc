//! `crds`: writes `deploy/crds.yaml` from the Rust types.

use std::process::Stdio;

use anyhow::{Context, bail};

use crate::place::{cargo, root};

pub(crate) fn crds() -> anyhow::Result<bool> {
    let made = cargo(&["run", "--quiet", "-p", "nsm-crds"]).stderr(Stdio::inherit()).output().context("cargo")?;
    if !made.status.success() {
        bail!("nsm-crds failed");
    }
    let path = root().join("deploy/crds.yaml");
    std::fs::write(&path, made.stdout).with_context(|| path.display().to_string())?;
    Ok(true)
}
