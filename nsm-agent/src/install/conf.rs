//! The derived configuration: written, kept as it is to be, moved when its original is another one.

use std::{
    fs,
    io::{self, Cursor},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nsm_cni_types::chained::{self, Derived, Entry, File, Reason};

use super::Outcome;
use crate::files;

/// What findings call it.
pub(super) const SUBJECT: &str = "CNI configuration";

/// Pauses before ours is restored once more, and how long it must have stayed for that to be forgotten.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));
const FORGOTTEN: Duration = Duration::from_mins(10);

/// The configuration directory of a runtime.
#[derive(Debug)]
pub(super) struct Conf {
    dir: PathBuf,
    entry: Entry,
    /// Where the plugins are to be that a configuration names.
    plugins: Option<PathBuf>,
    /// What was seen to be there.
    ours: Option<Derived>,
    contested: Contested,
}

/// How often somebody else has removed or changed ours.
#[derive(Debug, Default)]
struct Contested {
    times: u32,
    last: Option<Instant>,
}

impl Contested {
    /// Whether ours may be put back now.
    fn may_restore(&mut self, now: Instant) -> bool {
        let since = self.last.map_or(FORGOTTEN, |last| now.duration_since(last));
        if since >= FORGOTTEN {
            self.times = 0;
        }
        let pause = match self.times {
            0 => Duration::ZERO,
            times => (PAUSES.0 * 2_u32.saturating_pow(times - 1)).min(PAUSES.1),
        };
        if since < pause {
            return false;
        }
        self.times = self.times.saturating_add(1).min(16);
        self.last = Some(now);
        true
    }
}

impl Conf {
    pub(super) fn new(dir: PathBuf, entry: Entry, plugins: Option<PathBuf>) -> Self {
        Self { dir, entry, plugins, ours: None, contested: Contested::default() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Sees to it that it is there and as it is to be, unless something is `missing` for an ADD to be served.
    pub(super) fn install(&mut self, missing: Option<&str>) -> Outcome {
        let shown = self.dir.display();
        let files = match nsm_cni_dir::configurations(&self.dir) {
            Ok(files) => files,
            Err(error) => {
                return Outcome::Problem {
                    detail: format!("{shown}: {error}"),
                    fix: "--install-cni-conf must name the directory that the runtime reads".into(),
                };
            }
        };
        let derived = match chained::choose(&files, &self.entry) {
            Ok(derived) => derived,
            Err(reason) => return self.nothing_to_write(&reason, &files),
        };
        let there = files.iter().find(|file| file.name == derived.name).and_then(|file| file.content.as_ref().ok());
        if there.is_some_and(|there| *there == derived.text.as_bytes()) {
            self.tidy(&files, &derived);
            let done = Outcome::Done(format!("{shown}/{}, derived from {}", derived.name, derived.from));
            self.ours = Some(derived);
            return done;
        }
        if let Some(missing) = missing {
            return Outcome::Problem {
                detail: format!("{shown}/{} is not written until an ADD can be served: {missing}", derived.name),
                fix: "see to that first".into(),
            };
        }
        if let Err(problem) = self.check(&derived) {
            return problem;
        }
        if let Err(problem) = self.restore(&derived) {
            return problem;
        }
        self.write(derived, &files)
    }

    /// A configuration in a directory whose runtime has its plugins elsewhere would fail every pod of the node.
    fn check(&self, derived: &Derived) -> Result<(), Outcome> {
        let Some(plugins) = &self.plugins else { return Ok(()) };
        // Not what a link leads to: that of K3s leads to a folder that the agent's container does not have.
        let is_there = |kind: &String| fs::symlink_metadata(plugins.join(kind)).is_ok_and(|it| !it.is_dir());
        if derived.before.iter().any(is_there) {
            return Ok(());
        }
        Err(Outcome::Problem {
            detail: format!(
                "{} runs {}, and none of them is in {}: the runtime's plugins are elsewhere, and it would not find nsm-cni",
                self.dir.join(&derived.from).display(),
                derived.before.join(", "),
                plugins.display()
            ),
            fix: "--install-plugin must name the runtime's plugin directory (bin_dir of containerd, plugin_dirs of CRI-O)".into(),
        })
    }

    /// Whether what is not there any more, though it was, is put back now.
    fn restore(&mut self, derived: &Derived) -> Result<(), Outcome> {
        if self.ours.as_ref() != Some(derived) {
            return Ok(());
        }
        let backup = self.dir.join(format!("{}.cilium_bak", derived.name));
        let (who, fix) = if backup.exists() {
            ("Cilium", "set Cilium's cni.exclusive to false")
        } else {
            ("another program", "find out which program writes that directory")
        };
        if self.contested.may_restore(Instant::now()) {
            tracing::warn!(file = derived.name, "{who} has changed or removed it: put back; {fix}");
            return Ok(());
        }
        Err(Outcome::Problem {
            detail: format!("{who} changes or removes {} again and again", self.dir.join(&derived.name).display()),
            fix: fix.into(),
        })
    }

    fn write(&mut self, derived: Derived, files: &[File]) -> Outcome {
        let text = derived.text.as_bytes();
        if let Err(error) =
            files::replace_durably(&self.dir, &derived.name, self.mode(&derived), &mut Cursor::new(text))
        {
            return self.unwritten(&derived, &error);
        }
        self.tidy(files, &derived);
        let done = format!("{}/{}, derived from {}", self.dir.display(), derived.name, derived.from);
        self.ours = Some(derived);
        Outcome::Done(done)
    }

    /// The original's: who may not read that may not read ours either.
    fn mode(&self, derived: &Derived) -> u32 {
        fs::metadata(self.dir.join(&derived.from)).map_or(0o600, |file| file.mode() & 0o666)
    }

    fn unwritten(&self, derived: &Derived, error: &io::Error) -> Outcome {
        Outcome::Problem {
            detail: format!("{} cannot be written: {error}", self.dir.join(&derived.name).display()),
            fix: "the directory must be writable for the agent, and its disk have room".into(),
        }
    }

    /// Removes earlier ones of ours, when the one that counts is in place, and what an agent that was killed left of them.
    fn tidy(&self, files: &[File], derived: &Derived) {
        for name in chained::NAMES {
            if let Err(error) = files::remove_durably(&self.dir, &files::beside(name)) {
                tracing::error!(file = files::beside(name), %error, "cannot be removed");
            }
        }
        for file in files.iter().filter(|file| chained::is_ours(&file.name) && file.name != derived.name) {
            match files::remove_durably(&self.dir, &file.name) {
                Ok(()) => tracing::info!(file = file.name, "removed: {} is in its place", derived.name),
                Err(error) => tracing::error!(file = file.name, %error, "cannot be removed"),
            }
        }
    }

    fn nothing_to_write(&self, reason: &Reason, files: &[File]) -> Outcome {
        let ours = files.iter().find(|file| chained::is_ours(&file.name) && chained::usable(file).is_ok());
        let stays = ours.map_or_else(String::new, |ours| format!("; {} stays", ours.name));
        let detail = format!("{}: {reason}{stays}", self.dir.display());
        match reason {
            Reason::Chained { .. } => Outcome::Done(detail),
            Reason::NoOriginal | Reason::Broken { .. } | Reason::NoName { .. } => {
                Outcome::Problem { detail, fix: "see to the node's own network configuration".into() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_while_ours_is_contested_and_are_forgotten() {
        let mut contested = Contested::default();
        let start = Instant::now();
        let mut at = start;
        let mut restored = Vec::new();
        while at < start + Duration::from_mins(5) {
            if contested.may_restore(at) {
                restored.push(at.duration_since(start).as_secs());
            }
            at += Duration::from_millis(100);
        }
        assert_eq!(restored, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert!(contested.may_restore(at + FORGOTTEN));
        assert_eq!(contested.times, 1);
    }
}
