//! Writes what is made of `deploy/`, in the repository that is named. Made for `cargo xtask manifests`.
#![forbid(unsafe_code)]

use std::{fs, path::PathBuf};

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let root = PathBuf::from(std::env::args().nth(1).context("usage: nsm-manifests REPOSITORY")?);
    for nsm_manifests::Made { path, text } in nsm_manifests::make(&root)? {
        let to = root.join(&path);
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&to, text).with_context(|| format!("writing {}", to.display()))?;
        println!("{}", path.display());
    }
    Ok(())
}
