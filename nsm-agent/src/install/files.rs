//! Files that others read at any time: replaced as a whole, and on the disk before they have their name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

/// What `name` is called while it is written: nothing that a runtime looks into.
pub(super) fn beside(name: &str) -> String {
    format!(".{name}.new")
}

/// Writes `name` in `dir` with that mode, in one step for whoever looks.
pub(super) fn replace(dir: &Path, name: &str, mode: u32, content: &mut impl Read) -> io::Result<()> {
    let beside = dir.join(beside(name));
    let mut write = || {
        // What an earlier process left half-written.
        let _ = fs::remove_file(&beside);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        io::copy(content, &mut file)?;
        // Whatever the umask is.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        drop(file);
        fs::rename(&beside, dir.join(name))?;
        sync(dir)
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Removes a file, for good; one that is not there is fine.
pub(super) fn remove(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(dir.join(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(dir),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
