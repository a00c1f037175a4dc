//! A container runtime's directory of network configurations, read as the runtime reads it.
//!
//! Guarantees: whatever lies there, reading it ends and takes bounded memory, and a file that cannot be read does not hide the
//! others: a runtime would stumble over it, so it is told. Blocking.
#![forbid(unsafe_code)]

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use nsm_cni_types::chained::{self, File};

/// Longest file that is read, in bytes: go-cni's own bound for a configuration.
pub const LONGEST: u64 = 2 << 20;

/// What a runtime sees in its directory, by name. Folders are none; a link to a file is one.
///
/// # Errors
/// The directory cannot be read, or is not there.
pub fn configurations(dir: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Not of the entry: a link to a file counts.
        if !chained::is_configuration(&name) || fs::metadata(entry.path()).is_ok_and(|it| it.is_dir()) {
            continue;
        }
        files.push(File { name, content: read(&entry.path()).map_err(|error| error.to_string()) });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

/// The content of a file of at most [`LONGEST`] bytes.
///
/// # Errors
/// It cannot be read, is longer, or is something else: a pipe would keep us for ever.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new().read(true).custom_flags(nix::libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut content = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_would_stumble_over_is_told_and_does_not_hide_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("30-good.conf"), "{}").unwrap();
        fs::write(path("40-long.json"), vec![b' '; usize::try_from(LONGEST).unwrap() + 1]).unwrap();
        nix::unistd::mkfifo(&path("20-pipe.conflist"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("30-good.conf", path("50-link.conf")).unwrap();
        std::os::unix::fs::symlink("none", path("10-dangling.conf")).unwrap();
        fs::create_dir(path("60-folder.conf")).unwrap();
        fs::write(path("README"), "").unwrap();
        let found: Vec<(String, bool)> = configurations(dir.path())
            .unwrap()
            .into_iter()
            .map(|file| (file.name, file.content.is_ok_and(|content| content == b"{}")))
            .collect();
        let expected = [
            ("10-dangling.conf", false),
            ("20-pipe.conflist", false),
            ("30-good.conf", true),
            ("40-long.json", false),
            ("50-link.conf", true),
        ];
        assert_eq!(found, expected.map(|(name, read)| (name.to_owned(), read)));
        assert_eq!(configurations(&path("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
