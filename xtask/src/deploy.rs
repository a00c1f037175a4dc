//! `crds` and `manifests`: write what is made of `deploy/`.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::place::{cargo, root};
use crate::run::run;

const MAKE: Duration = Duration::from_mins(30);

/// `deploy/crds.yaml` from the Rust types.
pub(crate) fn crds() -> anyhow::Result<bool> {
    let made = cargo(&["run", "--quiet", "-p", "nsm-crds"]).stderr(Stdio::inherit()).output().context("cargo")?;
    if !made.status.success() {
        bail!("nsm-crds failed");
    }
    let path = root().join("deploy/crds.yaml");
    std::fs::write(&path, made.stdout).with_context(|| path.display().to_string())?;
    Ok(true)
}

/// `deploy/nsm.yaml` and the chart's copies, from the chart's templates, the rights and the definitions.
pub(crate) fn manifests() -> anyhow::Result<bool> {
    run(cargo(&["run", "--quiet", "-p", "nsm-manifests", "--"]).arg(root()), MAKE)?;
    Ok(true)
}
