//! Files that the plugin leaves in folders of its user's own.
//!
//! Guarantees: a file appears whole or not at all (rename); nobody but this user writes the folder.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Writes a file, in place of one that is there. Makes the folder where it is missing.
pub(crate) fn put(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> io::Result<()> {
    self::folder(folder)?;
    let fresh = fresh(folder, name);
    let written = write(&fresh, text.as_ref()).and_then(|_| fs::rename(&fresh, folder.join(name)));
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// The same; never is a half of it seen, not even after a power cut.
pub(crate) fn put_durably(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    self::folder(folder)?;
    let fresh = fresh(folder, name);
    let written = write(&fresh, text)
        .and_then(|file| file.sync_data())
        .and_then(|()| fs::rename(&fresh, folder.join(name)))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&fresh);
    }
    written
}

/// Makes the folder where it is missing.
///
/// # Errors
/// Also where it is not this user's own.
pub(crate) fn folder(folder: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(folder)?;
            fs::symlink_metadata(folder)?
        }
        found => found?,
    };
    if !found.is_dir() || found.uid() != nix::unistd::geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("is not a folder of this user's own: remove it"));
    }
    Ok(())
}

fn fresh(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.{}.tmp", std::process::id()))
}

fn write(fresh: &Path, text: &[u8]) -> io::Result<File> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    file.write_all(text)?;
    Ok(file)
}

fn make(folder: &Path) -> io::Result<()> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::DirBuilder::new().mode(0o700).create(folder) {
        // Another plugin was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}
