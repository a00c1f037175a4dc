//! `dist`: the binaries as they are shipped.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use crate::place::{cargo, target};
use crate::run::run;

const BUILD: Duration = Duration::from_hours(1);
const SHIPPED: [&str; 5] = ["nsm-cni", "nsm-agent", "nsmctl", "nsc", "icmp-responder"];

pub(crate) fn dist() -> anyhow::Result<bool> {
    run(&mut cargo(&["build", "--release", "--workspace", "--bins"]), BUILD)?;
    plugin()?;
    let release = target().join("release");
    for name in SHIPPED {
        let size = fs::metadata(release.join(name)).with_context(|| format!("{name} was not built"))?.len();
        println!("{:<60} {:>8} KiB", release.join(name).display(), size.div_ceil(1024));
    }
    Ok(true)
}

/// The plugin once more: static, so that it runs on any host and starts in half the time, and small.
pub(crate) fn plugin() -> anyhow::Result<()> {
    // Static for this binary alone: as a general flag it would break proc macros.
    run(
        &mut cargo(&[
            "rustc",
            "--profile",
            "dist",
            "-p",
            "nsm-cni",
            "--bin",
            "nsm-cni",
            "--",
            "-C",
            "target-feature=+crt-static",
            // Relocations in their short form: a linker that does not know it says so and goes on.
            "-C",
            "link-arg=-Wl,-z,pack-relative-relocs",
        ]),
        BUILD,
    )?;
    let place = target().join("release/nsm-cni");
    // cargo's copy is a hard link into its cache: replace the name, not the file.
    fs::remove_file(&place).ok();
    fs::copy(target().join("dist/nsm-cni"), &place).with_context(|| format!("copying to {}", place.display()))?;
    Ok(())
}
