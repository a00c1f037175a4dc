//! The lock of an attachment: a file that is there while somebody works on it.
//!
//! Guarantees: at most one living call has it. What the plugins of a call have started has it too, so that of a call that was killed
//! nobody else works on the attachment before the last of them has ended, or for [`LEFT`]: one that is still there then (a daemon) keeps
//! nobody waiting any longer, which is told. After an orderly end the file is gone. Both kinds of locks are of one file: on a local file
//! system they do not see each other.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::lock::{self, With};
use crate::files;

/// How long one waits for what a call that was killed has started.
const LEFT: Duration = Duration::from_secs(8);
/// Age of a lock at which it is not waited for at all: no call takes that long.
const OLD: Duration = Duration::from_mins(5);

/// The lock, until it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    path: PathBuf,
    _own: File,
    _inherited: File,
}

impl Hold {
    /// Takes the lock; none: somebody had it until then.
    pub(super) fn take(path: &Path, until: Instant) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            files::folder(folder)?;
        }
        loop {
            let own = open(path)?;
            if !lock::own(&own, 0, With::Nobody, until)? {
                return Ok(None);
            }
            let inherited = open(path)?;
            // Who had it before may have removed the file meanwhile: another would be alone with a new one.
            if is_same(&own, &inherited)? {
                let began = Instant::now();
                if lock::inherited(&inherited, until.min(began + LEFT))? {
                    return Self::of(path, own, inherited).map(Some);
                }
                if began.elapsed() < LEFT && !is_old(&own) {
                    return Ok(None);
                }
                return Self::instead(path).map(Some);
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    fn of(path: &Path, own: File, inherited: File) -> io::Result<Self> {
        // It may be an old file: whoever finds what this call leaves looks at its age.
        own.set_modified(SystemTime::now())?;
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self { path: path.to_owned(), _own: own, _inherited: inherited })
    }

    /// With a new file in the place of one that nobody else but what a killed call left has: who waits for the old one finds the new.
    fn instead(path: &Path) -> io::Result<Self> {
        eprintln!(
            "nsm-cni: {}: the call before was killed, and what its plugins have started runs on: goes on beside it (fuser tells the \
             process)",
            path.display()
        );
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(format!(".{}.tmp", std::process::id()));
        let fresh = PathBuf::from(fresh);
        let (own, inherited) = (open(&fresh)?, open(&fresh)?);
        let taken = lock::own(&own, 0, With::Nobody, Instant::now())? && lock::inherited(&inherited, Instant::now())?;
        if !taken {
            return Err(io::Error::other(format!("{}: is another's: remove it", fresh.display())));
        }
        fs::rename(&fresh, path)?;
        Self::of(path, own, inherited)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

fn is_same(one: &File, other: &File) -> io::Result<bool> {
    let [one, other] = [one.metadata()?, other.metadata()?];
    Ok((one.dev(), one.ino()) == (other.dev(), other.ino()))
}

/// Of the file; not where that cannot be seen.
fn is_old(file: &File) -> bool {
    let made = file.metadata().and_then(|found| found.modified());
    made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age > OLD))
}
