//! Puts `nsm-cni` and a configuration that chains it where the node's runtime looks, and keeps them there.
//!
//! Guarantees:
//! - The plugin's file and the configuration are whole or not there, whoever reads them and whenever this process ends; one that
//!   runs is never written to.
//! - A configuration is written when the plugin is in its place and an ADD can be served, not before; it follows its original
//!   within a second of its change, or at the next look, at most half a minute later, if the kernel did not tell.
//! - Nothing of others is changed or removed. When the original goes, ours stays: a node's last configuration is never taken away.
//! - Who removes or changes ours again and again is not fought at full speed: pauses grow to a minute.
//!
//! What is derived and when it is not is decided by [`nsm_cni_types::chained`].

mod conf;
mod plugin;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::StreamExt;
use inotify::{Inotify, WatchMask};
use nsm_cni_types::chained::Entry;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use crate::metrics::Part;
use crate::{selftest::SelfTest, state::blocking};
use conf::Conf;
use plugin::Plugin;

/// Looks are this far apart when nothing is heard: while all is well, and while something is amiss.
const LOOKS: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(5));
/// Least pause after a look that found something amiss: what it tried in vain is a change too.
const AMISS: Duration = Duration::from_millis(500);
/// Changes come in bursts: a look waits for this much quiet, and at most for that long.
const QUIET: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What is installed, and where.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The runtime's plugin directory, and the plugin to put there.
    pub plugin: Option<(PathBuf, PathBuf)>,
    /// The runtime's configuration directory.
    pub conf_dir: Option<PathBuf>,
    /// What the plugin is told.
    pub entry: Entry,
}

/// One thing that is installed, as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// In place.
    Done(String),
    /// Not, or not as it should be.
    Problem {
        /// What is wrong.
        detail: String,
        /// What to do.
        fix: String,
    },
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(detail) => f.write_str(detail),
            Self::Problem { detail, fix } => write!(f, "{detail}; {fix}"),
        }
    }
}

impl Part {
    /// What findings call it.
    pub fn subject(self) -> &'static str {
        match self {
            Self::Plugin => plugin::SUBJECT,
            Self::Configuration => conf::SUBJECT,
        }
    }
}

/// What the installer has reached. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Installed {
    shown: Arc<Mutex<Vec<(Part, Outcome)>>>,
}

impl Installed {
    /// Each thing with what became of it; empty when nothing is to be installed.
    pub fn all(&self) -> Vec<(Part, Outcome)> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is wrong, a line each.
    pub fn problems(&self) -> Vec<String> {
        let problem = |(part, outcome): &(Part, Outcome)| match outcome {
            Outcome::Done(_) => None,
            Outcome::Problem { .. } => Some(format!("{}: {outcome}", part.subject())),
        };
        self.all().iter().filter_map(problem).collect()
    }

    /// Shows it, and logs what has changed. Whether something is amiss.
    fn show(&self, found: Vec<(Part, Outcome)>) -> bool {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (part, outcome) in found.iter().filter(|one| !shown.contains(one)) {
            let subject = part.subject();
            match outcome {
                Outcome::Done(detail) => tracing::info!("{subject}: {detail}"),
                Outcome::Problem { detail, fix } => tracing::error!("{subject}: {detail}; {fix}"),
            }
        }
        let amiss = found.iter().any(|(_, outcome)| matches!(outcome, Outcome::Problem { .. }));
        *shown = found;
        amiss
    }
}

/// Installs, until it is stopped.
pub struct Installer {
    plugin: Option<Plugin>,
    conf: Option<Conf>,
    installed: Installed,
}

impl Installer {
    /// Nothing is done yet, and said to be so.
    pub fn new(settings: &Settings) -> Self {
        let plugin = settings.plugin.clone().map(|(dir, from)| Plugin::new(dir, from));
        let dirs = plugin.as_ref().map(|plugin| plugin.dir().to_owned());
        let conf = settings.conf_dir.clone().map(|dir| Conf::new(dir, settings.entry.clone(), dirs));
        let installed = Installed::default();
        let waiting = Outcome::Problem { detail: "not looked at yet".into(), fix: "wait for the agent's start".into() };
        let subjects = plugin.iter().map(|_| Part::Plugin).chain(conf.iter().map(|_| Part::Configuration));
        let found = subjects.map(|subject| (subject, waiting.clone())).collect();
        *installed.shown.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Self { plugin, conf, installed }
    }

    /// What it reaches, now and later.
    pub fn installed(&self) -> Installed {
        self.installed.clone()
    }

    /// Installs, and again after each change of the directories, until `stop`.
    pub async fn run(mut self, selftest: SelfTest, stop: CancellationToken) {
        if self.plugin.is_none() && self.conf.is_none() {
            return;
        }
        loop {
            // Before the look: what changes meanwhile is heard.
            let changes = self.changes();
            let problems = selftest.problems().await;
            let looked;
            (self, looked) = blocking(move || {
                let found = self.look(&problems);
                (self, found)
            })
            .await;
            let amiss = self.installed.show(looked);
            let again = sleep(if amiss { LOOKS.1 } else { LOOKS.0 });
            tokio::select! {
                () = stop.cancelled() => return,
                () = heard(changes, amiss) => {}
                () = again => {}
            }
        }
    }

    /// One look, and what it takes. Blocking.
    fn look(&mut self, problems: &[String]) -> Vec<(Part, Outcome)> {
        let mut found = Vec::new();
        let mut missing = problems.first().cloned();
        if let Some(plugin) = &mut self.plugin {
            let outcome = plugin.install();
            if matches!(outcome, Outcome::Problem { .. }) {
                missing.get_or_insert_with(|| "nsm-cni is not installed".into());
            }
            found.push((Part::Plugin, outcome));
        }
        if let Some(conf) = &mut self.conf {
            found.push((Part::Configuration, conf.install(missing.as_deref())));
        }
        found
    }

    /// Hears of changes in both directories from now on; those that are not there are looked at in time.
    fn changes(&self) -> io::Result<inotify::EventStream<[u8; 1024]>> {
        let inotify = Inotify::init()?;
        let mask = WatchMask::CREATE
            | WatchMask::CLOSE_WRITE
            | WatchMask::MOVE
            | WatchMask::DELETE
            | WatchMask::ATTRIB
            | WatchMask::ONLYDIR;
        let dirs = self.plugin.iter().map(Plugin::dir).chain(self.conf.iter().map(Conf::dir));
        for dir in dirs {
            // Without a watch there are looks.
            if let Err(error) = inotify.watches().add(dir, mask) {
                tracing::debug!(dir = %dir.display(), %error, "not watched");
            }
        }
        inotify.into_event_stream([0; 1024])
    }
}

/// Waits for a change, and for the quiet after it.
async fn heard(changes: io::Result<inotify::EventStream<[u8; 1024]>>, amiss: bool) {
    if amiss {
        sleep(AMISS).await;
    }
    let Ok(mut changes) = changes else { return std::future::pending().await };
    if changes.next().await.is_none() {
        return std::future::pending().await;
    }
    let quiet = async { while matches!(timeout(QUIET.0, changes.next()).await, Ok(Some(_))) {} };
    // At the bound the look comes all the same: what changes next is heard then.
    let _ = timeout(QUIET.1, quiet).await;
}

#[cfg(test)]
mod tests;
