//! Another release of the product: the programs of `cargo xtask image`, which say another version.
//!
//! Guarantee: the agent and the plugin of the image really report that version and are other files than this release's, byte for byte.
//! What they do is the same: that the formats and the private API of another release are understood is for the tests with
//! frozen ones (`nsm-agent/tests/released.rs`, `nsm-proto-versions`).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use nsm_image::{Architecture, Build, PROGRAMS};

use crate::pods::image;

/// Programs that tell their version, each with the text that it follows.
const MARKED: [(&str, &str); 2] = [("nsm-agent", "nsm-agent version "), ("nsm-cni", "nsm-cni version ")];
/// This release's.
pub const OWN: &str = env!("CARGO_PKG_VERSION");

/// An image of another release.
#[derive(Debug, Clone)]
pub struct Other {
    /// Its version: the next minor one.
    pub version: String,
    /// What containerd calls it.
    pub name: String,
    /// Its archive.
    pub archive: PathBuf,
}

impl Other {
    /// Made of the programs beside this release's image.
    pub fn make() -> anyhow::Result<Self> {
        let version = next(OWN)?;
        let archive = image()?;
        let target = archive.parent().context("an image without a folder")?;
        let architecture = if cfg!(target_arch = "aarch64") { Architecture::Arm64 } else { Architecture::Amd64 };
        let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        let from = target.join(triple).join("image");
        let dir = from.with_file_name("image-of-another-version");
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        for name in PROGRAMS {
            fs::copy(from.join(name), dir.join(name)).with_context(|| from.join(name).display().to_string())?;
        }
        for (name, before) in MARKED {
            change(&dir.join(name), before, &version)?;
        }
        let archive = target.join("nsm-image-of-another-version.tar");
        nsm_image::write(&archive, "nsm", &version, &[Build { architecture, dir }])?;
        Ok(Self { name: format!("docker.io/library/nsm:{version}"), version, archive })
    }
}

/// The next minor version, as long as this one.
fn next(version: &str) -> anyhow::Result<String> {
    let mut parts = version.split('.');
    let (major, minor, patch) = (parts.next(), parts.next(), parts.next());
    let minor: u64 = minor.context("no minor version")?.parse()?;
    let next = format!("{}.{}.{}", major.context("no version")?, minor + 1, patch.context("no patch version")?);
    ensure!(next.len() == version.len(), "{next} does not fit in the place of {version}");
    Ok(next)
}

/// Writes another version into a program, which then says it.
fn change(program: &Path, before: &str, version: &str) -> anyhow::Result<()> {
    let mut bytes = fs::read(program)?;
    let marked = format!("{before}{OWN}");
    let found: Vec<usize> =
        bytes.windows(marked.len()).enumerate().filter(|(_, at)| *at == marked.as_bytes()).map(|(at, _)| at).collect();
    ensure!(!found.is_empty(), "{} has no {marked:?}: cargo xtask image --quick", program.display());
    for at in found {
        bytes[at + before.len()..at + marked.len()].copy_from_slice(version.as_bytes());
    }
    fs::write(program, bytes)?;
    let said = Command::new(program).arg("--version").output().context("--version")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.trim().ends_with(&format!(" {version}")), "{} says {said:?}", program.display());
    Ok(())
}
