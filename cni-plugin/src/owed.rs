//! Notes about DELs that the agent could not take: `<cniSocket>.owed/`, one file per attachment, JSON.
//!
//! Guarantees: a note appears whole or not at all (rename); the same attachment has the same name, so that a repeated DEL
//! replaces its note; nobody but this user writes the folder. The agent watches it and removes what it has done.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nsm_cni_types::Environment;
use serde_json::json;

/// Version of the notes' content.
const FORMAT: u32 = 1;
/// Longest part of a container id that a file name shows.
const SHOWN: usize = 100;

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

/// Different for different attachments: `@` and `~` are in no container id, and an interface name is escaped.
fn file_name(container_id: &str, ifname: &str) -> String {
    let mut name = container_id.get(..SHOWN).unwrap_or(container_id).to_owned();
    if name.len() < container_id.len() {
        let _ = write!(name, "~{:032x}", fnv(container_id.as_bytes()));
    }
    name.push('@');
    for byte in ifname.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            let _ = write!(name, "%{byte:02x}");
        }
    }
    name.push_str(".json");
    name
}

/// FNV-1a, 128 bits.
fn fnv(bytes: &[u8]) -> u128 {
    let start = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    bytes.iter().fold(start, |hash: u128, byte| (hash ^ u128::from(*byte)).wrapping_mul((1 << 88) + 0x13b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_fit() {
        assert_eq!(file_name("c-1", "eth0"), "c-1@eth0.json");
        let (a, b) = ("a".repeat(4000), "a".repeat(4001));
        assert_ne!(file_name(&a, "eth0"), file_name(&b, "eth0"));
        assert!(file_name(&a, "€€€€€").len() < 220);
        assert_ne!(file_name("c", "é"), file_name("c", "e"));
    }
}
