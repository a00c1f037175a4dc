//! Files that others read at any time: replaced as a whole, and on the disk before they have their name.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nsm_cni_types::chained;

/// Longest configuration that is read, in bytes: go-cni's own bound.
const LONGEST: u64 = 2 << 20;

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

/// What a runtime sees in its configuration directory.
pub(super) fn configurations(dir: &Path) -> io::Result<Vec<chained::File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Not of the entry: a link to a file counts.
        if !chained::is_configuration(&name) || fs::metadata(entry.path()).is_ok_and(|it| it.is_dir()) {
            continue;
        }
        files.push(chained::File { name, content: read(&entry.path()) });
    }
    Ok(files)
}

/// The content, or why it cannot be told.
fn read(path: &PathBuf) -> Result<Vec<u8>, String> {
    // A pipe would keep us for ever.
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path);
    let read = file.and_then(|file| {
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut content = Vec::new();
        file.take(LONGEST + 1).read_to_end(&mut content)?;
        Ok(content)
    });
    match read {
        Ok(content) if content.len() as u64 > LONGEST => Err(format!("it is longer than {LONGEST} bytes")),
        Ok(content) => Ok(content),
        Err(error) => Err(error.to_string()),
    }
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
