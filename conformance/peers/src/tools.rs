//! Other people's programs: where they are, and how those of this repository's Go module are built.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The directory of the tools: `NSM_LAB_TOOLS`, else `tools/bin` of cargo's target directory.
pub fn dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = env::var_os("NSM_LAB_TOOLS") {
        return Ok(dir.into());
    }
    let exe = env::current_exe().context("path of this program")?;
    // target/PROFILE/PROGRAM, or target/PROFILE/deps/TEST.
    let profile = exe.ancestors().skip(1).find(|dir| dir.file_name().is_some_and(|name| name != "deps"));
    let target = profile.and_then(Path::parent).context("cargo's target directory")?;
    Ok(target.join("tools/bin"))
}

/// A tool that must be there.
pub fn tool(name: &str) -> anyhow::Result<PathBuf> {
    let path = dir()?.join(name);
    ensure!(path.is_file(), "{} is missing: `cargo xtask test` and `cargo xtask bench` install it", path.display());
    Ok(path)
}

/// Builds the Go peers. Needs the module proxy the first time, so not inside a lab.
pub fn build_go_peers() -> anyhow::Result<()> {
    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../go-peers");
    let mut path = env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/go/bin:/usr/lib/go/bin");
    let status = Command::new("go")
        .args(["build", "-o"])
        .arg(dir()?.join("go-peers"))
        .arg(".")
        .current_dir(module)
        .env("PATH", path)
        .env("CGO_ENABLED", "0")
        .status()
        .context("go, which builds the Go peers")?;
    ensure!(status.success(), "building the Go peers: {status}");
    Ok(())
}
