//! The plugin's file in the runtime's directory: replaced as a whole and only when it differs.
//!
//! One that runs goes on with the file that it was started from: a name is moved to another file, no file is written to.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nsm_cni_types::chained::TYPE;

use super::Outcome;
use crate::files;

/// What findings call it.
pub(super) const SUBJECT: &str = "installed plugin";

/// Anybody may run it; root alone may change it.
const MODE: u32 = 0o755;

/// Where the plugin is to be, and where it comes from.
#[derive(Debug)]
pub(super) struct Plugin {
    dir: PathBuf,
    from: PathBuf,
    /// The file that was seen to be the same.
    same: Option<Seen>,
}

/// What tells a file from a changed or another one.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    place: (u64, u64),
    length: u64,
    mode: u32,
    changed: (i64, i64),
}

impl Plugin {
    pub(super) fn new(dir: PathBuf, from: PathBuf) -> Self {
        Self { dir, from, same: None }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sees to it that it is there.
    pub(super) fn install(&mut self) -> Outcome {
        let place = self.dir.join(TYPE);
        match self.replace(&place) {
            Ok(()) => Outcome::Done(place.display().to_string()),
            Err((path, error)) => Outcome::Problem {
                detail: format!("{} is not the agent's: {}: {error}", place.display(), path.display()),
                fix: "--install-plugin must name the runtime's plugin directory, writable for the agent, and \
                      --install-plugin-from the nsm-cni to put there"
                    .into(),
            },
        }
    }

    fn replace(&mut self, place: &Path) -> Result<(), (PathBuf, io::Error)> {
        let seen = Seen::of(place);
        if seen.is_some() && seen == self.same {
            return Ok(());
        }
        let of_source = |error| (self.from.clone(), error);
        let mut source = File::open(&self.from).map_err(of_source)?;
        let same = seen.as_ref().is_some_and(|seen| seen.mode & 0o7777 == MODE)
            && File::open(place).is_ok_and(|there| equal(&source, &there).unwrap_or(false));
        if !same {
            io::Seek::rewind(&mut source).map_err(of_source)?;
            files::replace_durably(&self.dir, TYPE, MODE, &mut source).map_err(|error| (self.dir.clone(), error))?;
            tracing::info!(path = %place.display(), "nsm-cni installed");
        }
        self.same = Seen::of(place);
        Ok(())
    }
}

impl Seen {
    /// Of a file; `None` if there is none, or something else.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            place: (file.dev(), file.ino()),
            length: file.len(),
            mode: file.mode(),
            changed: (file.ctime(), file.ctime_nsec()),
        })
    }
}

/// Whether both have the same bytes.
fn equal(a: &File, b: &File) -> io::Result<bool> {
    if a.metadata()?.len() != b.metadata()?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (BufReader::with_capacity(1 << 16, a), BufReader::with_capacity(1 << 16, b));
    let (mut of_a, mut of_b) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let read = a.read(&mut of_a)?;
        if read == 0 {
            return Ok(b.read(&mut of_b)? == 0);
        }
        match b.read_exact(&mut of_b[..read]) {
            Ok(()) if of_a[..read] == of_b[..read] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}
