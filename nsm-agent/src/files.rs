//! Files that others read at any time, and folders that are the agent's alone: how they are written, and what is asked of them.
//!
//! Guarantees: whoever looks sees the old file or the new one, never half of one; of a write that failed nothing is left. What is
//! written durably is on the disk before it has its name.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

/// What `name` is called while it is written: nothing that others look into, with the extension `new`.
pub(crate) fn beside(name: &str) -> String {
    format!(".{name}.new")
}

/// Writes a file for this boot.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    in_one_step(path, |beside| File::create(beside)?.write_all(content))
}

/// Writes `name` in `dir` with that mode, durably.
pub(crate) fn replace_durably(dir: &Path, name: &str, mode: u32, content: &mut impl Read) -> io::Result<()> {
    in_one_step(&dir.join(name), |beside| {
        // What an earlier process left half-written.
        let _ = fs::remove_file(beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
        io::copy(content, &mut file)?;
        // Whatever the umask is.
        file.set_permissions(Permissions::from_mode(mode))?;
        file.sync_all()
    })?;
    sync(dir)
}

/// Removes a file, durably; one that is not there is fine.
pub(crate) fn remove_durably(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(dir),
    }
}

/// Makes a folder that is this user's alone.
///
/// # Errors
/// It cannot be made, or what is there is somebody else's.
pub(crate) fn own_folder(path: PathBuf) -> io::Result<PathBuf> {
    match DirBuilder::new().mode(0o700).recursive(true).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    let metadata = fs::symlink_metadata(&path)?;
    if !metadata.is_dir() || metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(io::Error::other(format!("{} is not a folder of the agent's own: remove it", path.display())));
    }
    if metadata.mode() & 0o077 != 0 {
        fs::set_permissions(&path, Permissions::from_mode(0o700))?;
    }
    Ok(path)
}

fn in_one_step(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let beside = path.with_file_name(beside(&name));
    let written = write(&beside).and_then(|()| fs::rename(&beside, path));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_fails_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        replace(&path, b"old").unwrap();
        replace_durably(dir.path(), "a.json", 0o640, &mut &b"new"[..]).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o640);
        // Nothing can take the name of a folder that has something in it.
        fs::create_dir(dir.path().join("taken")).unwrap();
        fs::write(dir.path().join("taken/x"), "").unwrap();
        replace(&dir.path().join("taken"), b"x").unwrap_err();
        remove_durably(dir.path(), "a.json").unwrap();
        remove_durably(dir.path(), "a.json").unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["taken"]);
    }

    #[test]
    fn a_folder_is_the_agents_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(fs::metadata(own_folder(path).unwrap()).unwrap().mode() & 0o777, 0o700);
        fs::write(dir.path().join("file"), "").unwrap();
        let refused = own_folder(dir.path().join("file")).unwrap_err().to_string();
        assert!(refused.contains("remove it"), "{refused}");
    }
}
