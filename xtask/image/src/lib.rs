//! An OCI image archive (image-spec 1.1: an image layout in one tar file) of static programs and nothing else.
//!
//! Guarantees: the same programs make the same bytes, whenever and wherever; a program that needs a loader or is of another
//! processor is refused, as it could not start in an image that has nothing else; the archive is whole or not there.
#![forbid(unsafe_code)]

mod elf;
mod layout;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::layout::{Blob, Layout, layer};

/// What the image has in `/usr/bin`.
pub const PROGRAMS: [&str; 5] = ["nsm-agent", "nsm-cni", "nsmctl", "nsc", "icmp-responder"];

/// Runtimes name pods' network namespaces `/var/run/netns/NAME`: an agent that starts again must find them by that name.
const LINKS: [(&str, &str); 1] = [("var/run", "/run")];

/// Nobody's user: what an image runs as that says nothing else. The agent's manifest names root.
const USER: &str = "65532:65532";
/// There is no clock in a reproducible build.
const CREATED: &str = "1970-01-01T00:00:00Z";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A processor, as Go and OCI call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Architecture {
    /// As OCI calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }

    /// By its OCI name.
    pub fn parse(name: &str) -> anyhow::Result<Self> {
        match name {
            "amd64" => Ok(Self::Amd64),
            "arm64" => Ok(Self::Arm64),
            other => bail!("architecture {other:?}: expected amd64 or arm64"),
        }
    }
}

/// The programs of one processor.
#[derive(Debug, Clone)]
pub struct Build {
    /// Which.
    pub architecture: Architecture,
    /// Where each of [`PROGRAMS`] is.
    pub dir: PathBuf,
}

/// Writes the archive `to`, of an image called `name:version`, and returns its digest.
pub fn write(to: &Path, name: &str, version: &str, builds: &[Build]) -> anyhow::Result<String> {
    ensure!(!builds.is_empty(), "an image of no architecture: name one");
    let mut layout = Layout::default();
    let manifests = builds.iter().map(|build| manifest(&mut layout, build, version)).collect::<Result<Vec<_>, _>>()?;
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
    let index = layout.add(Blob::json(INDEX, &index)?);
    let mut top = index.clone();
    top["annotations"] = json!({
        // What containerd calls the image, and kubelet too when a pod says `name:version`.
        "io.containerd.image.name": format!("docker.io/library/{name}:{version}"),
        "org.opencontainers.image.ref.name": version,
    });
    let beside = to.with_extension("new");
    layout
        .write(&beside, &json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [top] }))
        .with_context(|| format!("writing {}", beside.display()))?;
    fs::rename(&beside, to).with_context(|| format!("renaming to {}", to.display()))?;
    Ok(index["digest"].as_str().unwrap_or_default().to_owned())
}

fn manifest(layout: &mut Layout, build: &Build, version: &str) -> anyhow::Result<Value> {
    let mut files = Vec::new();
    for name in PROGRAMS {
        let path = build.dir.join(name);
        let program = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        elf::check(&program, build.architecture).with_context(|| path.display().to_string())?;
        files.push((format!("usr/bin/{name}"), program));
    }
    let layer = Blob::new(LAYER, layer(&["usr", "usr/bin", "run", "var"], &LINKS, &files)?);
    let config = json!({
        "created": CREATED,
        "architecture": build.architecture.name(),
        "os": "linux",
        "config": {
            "User": USER,
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": "nsm",
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": env!("CARGO_PKG_LICENSE"),
                "org.opencontainers.image.source": env!("CARGO_PKG_REPOSITORY"),
            },
        },
        // The layer is not compressed: it is its own content.
        "rootfs": { "type": "layers", "diff_ids": [layer.digest()] },
        "history": [{ "created": CREATED, "created_by": "cargo xtask image" }],
    });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": layout.add(Blob::json(CONFIG, &config)?),
        "layers": [layout.add(layer)],
    });
    let mut described = layout.add(Blob::json(MANIFEST, &manifest)?);
    described["platform"] = json!({ "architecture": build.architecture.name(), "os": "linux" });
    Ok(described)
}

#[cfg(test)]
mod tests;
