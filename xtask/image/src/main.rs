//! `nsm-image OUT NAME VERSION ARCHITECTURE=DIR…`: packs the programs of each DIR. Made for `cargo xtask image`.
#![forbid(unsafe_code)]

use std::path::Path;

use anyhow::{Context, bail};
use nsm_image::{Architecture, Build};

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, name, version, builds @ ..] = args.as_slice() else {
        bail!("usage: nsm-image OUT NAME VERSION ARCHITECTURE=DIR…");
    };
    let builds = builds
        .iter()
        .map(|build| {
            let (architecture, dir) =
                build.split_once('=').with_context(|| format!("{build:?}: expected ARCHITECTURE=DIR"))?;
            Ok(Build { architecture: Architecture::parse(architecture)?, dir: dir.into() })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let digest = nsm_image::write(Path::new(out), name, version, &builds)?;
    println!("{out}: {name}:{version}, {digest}");
    Ok(())
}
