//! Notes about DELs that the agent could not take: `<cniSocket>.owed/`, one file per attachment, JSON.
//!
//! Guarantees: a note appears whole or not at all (rename); the same attachment has the same name, so that a repeated DEL
//! replaces its note; nobody but this user writes the folder. The agent watches it and removes what it has done.

use std::{
    ffi::OsString,
    io,
    path::{Path, PathBuf},
};

use nsm_cni_types::{Environment, owed::file_name};
use serde_json::json;

use crate::files;

/// Version of the notes' content.
const FORMAT: u32 = 1;

/// Leaves a note about the DEL of `env` beside the agent's socket.
pub(crate) fn leave(socket: &Path, env: &Environment, network: &str) -> Result<(), (PathBuf, io::Error)> {
    let folder = folder(socket);
    write(&folder, env, network).map_err(|error| (folder, error))
}

fn write(folder: &Path, env: &Environment, network: &str) -> io::Result<()> {
    let note = json!({
        "format": FORMAT,
        "containerId": env.container_id,
        "ifname": env.ifname,
        "network": network,
        "netns": env.netns,
    });
    files::put(folder, &file_name(&env.container_id, &env.ifname), note.to_string())
}

fn folder(socket: &Path) -> PathBuf {
    let mut path = OsString::from(socket);
    path.push(".owed");
    PathBuf::from(path)
}
