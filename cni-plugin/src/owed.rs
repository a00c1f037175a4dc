//! Notes about DELs that the agent could not take: `<cniSocket>.owed/`, one file per attachment, JSON.
//!
//! Guarantees: a note appears whole or not at all (rename); the same attachment has the same name, so that a repeated DEL
//! replaces its note; nobody but this user writes the folder. The agent watches it and removes what it has done.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nsm_cni_types::{Environment, owed::file_name};
use serde_json::json;

/// Version of the notes' content.
const FORMAT: u32 = 1;

/// Leaves a note about the DEL of `env` beside the agent's socket.
pub(crate) fn leave(socket: &Path, env: &Environment, network: &str) -> Result<(), (PathBuf, io::Error)> {
    let folder = folder(socket);
    write(&folder, env, network).map_err(|error| (folder, error))
}

fn write(folder: &Path, env: &Environment, network: &str) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(folder)?;
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("is not a folder of this user's own: remove it"));
    }
    let note = json!({
        "format": FORMAT,
        "containerId": env.container_id,
        "ifname": env.ifname,
        "network": network,
        "netns": env.netns,
    });
    let name = file_name(&env.container_id, &env.ifname);
    let fresh = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(note.to_string().as_bytes()))
        .and_then(|()| fs::rename(&fresh, folder.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

fn folder(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".owed");
    PathBuf::from(path)
}
