//! What an ADD is about to make, on disk before it makes anything: `<cniDir>/nsm-cni/`, for each attachment its record and what its
//! networks have answered.
//!
//! Guarantees: a record is on disk before anything that it names is made. Who holds an attachment is alone with it ([`hold`]); a record
//! that cannot be read is set aside, and neither it nor an earlier one is overwritten. Results need no disk: after a reboot DEL does
//! without.

mod gate;
mod hold;
mod lock;

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use nix::sys::statfs::{NSFS_MAGIC, statfs};
use nsm_cni_types::{Environment, Error, Stdin, code, owed};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::hold::Hold;
use super::{defaults::Defaults, network::Network};
use crate::{files, netns::Netns};

/// After this time a runtime has ended what it knew of before.
const OLD: Duration = Duration::from_hours(24);
/// Newest format of a record that this version reads and the one that it writes.
const FORMAT: u32 = 1;
/// Where records are, below `cniDir`.
const FOLDER: &str = "nsm-cni";
/// Where the kernel says which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// An attachment and the networks that its ADD is to make, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    format: u32,
    /// CNI_CONTAINERID.
    pub(crate) container_id: String,
    /// CNI_IFNAME.
    pub(crate) ifname: String,
    /// `name` of the meta-plugin's configuration.
    pub(crate) network: String,
    /// CNI_NETNS.
    pub(crate) netns: String,
    /// Its device and inode.
    #[serde(default)]
    pub(crate) netns_id: String,
    /// The boot that the namespace is of.
    #[serde(default)]
    pub(crate) boot: String,
    /// `binDir`.
    pub(crate) bin_dir: PathBuf,
    /// The networks.
    pub(crate) networks: Vec<Network>,
}

/// What has been made of a record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Progress {
    /// The boot that this is about.
    pub(crate) boot: String,
    /// Whether ADD succeeded.
    pub(crate) complete: bool,
    /// Results, by interface name.
    pub(crate) results: Map<String, Value>,
    /// What became of default routes.
    pub(crate) defaults: Defaults,
    /// Interfaces whose networks are ended, of a record that still names them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended: Vec<String>,
    /// Interfaces whose networks a change of the running pod makes or ends, and has not yet come to its end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    changing: Vec<String>,
}

/// What is known of an attachment.
#[derive(Debug)]
pub(crate) enum Found {
    Nothing,
    /// A record that cannot be read, and why.
    Damaged(String),
    Record(Box<Record>, Progress),
}

/// The records of a host.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
}

/// An attachment's records, held: no other call works on it.
#[derive(Debug)]
pub(crate) struct Held {
    folder: PathBuf,
    name: String,
    lock: Option<Hold>,
}

impl Record {
    /// Of this call.
    ///
    /// # Errors
    /// Code 5: it is not known which boot this is, without which the pod would look like one of before.
    pub(crate) fn new(env: &Environment, stdin: &Stdin, netns: &Netns, bin_dir: &Path) -> Result<Self, Error> {
        let boot = boot().map_err(|error| Error::new(code::IO, format!("{BOOT_ID}: {error}: try again")))?;
        Ok(Self {
            format: FORMAT,
            container_id: env.container_id.clone(),
            ifname: env.ifname.clone(),
            network: stdin.name.clone(),
            netns: env.netns.clone(),
            netns_id: id_of(netns),
            boot,
            bin_dir: bin_dir.to_owned(),
            networks: Vec::new(),
        })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if let Some(format) = value["format"].as_u64().filter(|format| *format > u64::from(FORMAT)) {
            return Err(format!("format {format}, this version knows up to {FORMAT}"));
        }
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    /// The same with other networks.
    pub(crate) fn with(&self, networks: Vec<Network>) -> Self {
        Self { networks, ..self.clone() }
    }

    /// Whether it is about that namespace, as it is now.
    pub(crate) fn is_of(&self, netns: &Netns) -> bool {
        boot().is_ok_and(|boot| self.boot == boot) && self.netns_id == id_of(netns)
    }

    /// Whether its namespace is gone for certain; not where that cannot be seen.
    pub(crate) fn has_lost_its_namespace(&self) -> bool {
        let Ok(boot) = boot() else { return false };
        self.boot != boot || is_gone(Path::new(&self.netns)) || is_another(Path::new(&self.netns), &self.netns_id)
    }
}

impl Progress {
    /// Of a record, with nothing made.
    pub(crate) fn of(record: &Record) -> Self {
        Self { boot: record.boot.clone(), ..Self::default() }
    }

    /// A change of this interface's network begins.
    pub(crate) fn begin_change(&mut self, ifname: &str) {
        if !self.changing.iter().any(|one| one == ifname) {
            self.changing.push(ifname.to_owned());
        }
    }

    /// It has come to its end.
    pub(crate) fn end_change(&mut self, ifname: &str) {
        self.changing.retain(|one| one != ifname);
    }

    /// Whether this interface's network has been made, and nobody has begun to change that.
    pub(crate) fn is_made(&self, ifname: &str) -> bool {
        self.results.contains_key(ifname) && !self.changing.iter().any(|one| one == ifname)
    }

    /// The same, of a record whose end has begun.
    pub(crate) fn ending(&self, record: &Record) -> Self {
        Self { boot: record.boot.clone(), complete: false, ..self.clone() }
    }
}

fn id_of(netns: &Netns) -> String {
    format!("{}-{}", netns.id.dev, netns.id.ino)
}

fn boot() -> io::Result<String> {
    fs::read_to_string(BOOT_ID).map(|text| text.trim().to_owned())
}

/// Whether a file that names a namespace is gone for certain: where its folder is missing too, it may be another mount namespace's.
pub(crate) fn is_gone(path: &Path) -> bool {
    let missing = fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    missing && path.parent().is_some_and(Path::is_dir)
}

/// Whether another namespace has its name. A plain file is the place of one that is mounted elsewhere.
fn is_another(path: &Path, id: &str) -> bool {
    let is_namespace = statfs(path).is_ok_and(|found| found.filesystem_type() == NSFS_MAGIC);
    is_namespace && fs::metadata(path).is_ok_and(|now| format!("{}-{}", now.dev(), now.ino()) != id)
}

impl Store {
    /// Below `cniDir`.
    pub(crate) fn of(cni_dir: &Path) -> Self {
        Self { folder: cni_dir.join(FOLDER) }
    }

    /// Where they are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Holds an attachment, waiting for whoever works on it until then.
    ///
    /// # Errors
    /// Code 11: somebody else does for too long. Code 5: no lock can be made.
    pub(crate) fn hold(&self, env: &Environment, until: Instant) -> Result<Held, Error> {
        let began = Instant::now();
        let mut held = self.loose(env);
        match held.lock(until) {
            Ok(true) => Ok(held),
            Ok(false) => {
                let msg = format!(
                    "another call of container {} and interface {}, or what one that was killed has started, has been running for {} s: \
                     see what its plugins wait for (fuser {})",
                    env.container_id,
                    env.ifname,
                    began.elapsed().as_secs(),
                    held.lock_path().display()
                );
                Err(Error::new(code::TRY_AGAIN, msg))
            }
            Err(error) => {
                let msg = format!("{}: no lock: {error}: set cniDir to a folder of root's", self.folder.display());
                Err(Error::new(code::IO, msg))
            }
        }
    }

    /// An attachment without its lock, for a DEL where none can be had.
    pub(crate) fn loose(&self, env: &Environment) -> Held {
        Held { folder: self.folder.clone(), name: owed::file_name(&env.container_id, &env.ifname), lock: None }
    }

    /// All attachments that have a record and that nobody works on, one after the other, beginning elsewhere each time: those that take all
    /// of a call's time are not always the first.
    pub(crate) fn idle(&self) -> impl Iterator<Item = Held> {
        let mut names = self.names().unwrap_or_default();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let first = usize::try_from(now.subsec_micros()).unwrap_or_default() % names.len().max(1);
        names.rotate_left(first);
        names.into_iter().filter_map(|name| self.unless_busy(name))
    }

    /// An attachment that nobody works on, held.
    pub(crate) fn idle_one(&self, container_id: &str, ifname: &str) -> Option<Held> {
        self.unless_busy(owed::file_name(container_id, ifname))
    }

    fn unless_busy(&self, name: String) -> Option<Held> {
        let mut held = Held { folder: self.folder.clone(), name, lock: None };
        held.lock(Instant::now()).is_ok_and(|locked| locked).then_some(held)
    }

    /// All records that can be read, whoever works on them; and whether there are others. Those that were set aside are of containers that
    /// have ended, or have another record since.
    pub(crate) fn all(&self) -> (Vec<Record>, bool) {
        let names = self.names();
        let (mut records, mut unread) = (Vec::new(), names.is_err());
        for name in &names.unwrap_or_default() {
            let text = match fs::read(self.folder.join(name)) {
                Ok(text) => text,
                // A DEL was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(_) => {
                    unread = true;
                    continue;
                }
            };
            match Record::parse(&text) {
                Ok(record) => records.push(record),
                Err(_) => unread = true,
            }
        }
        (records, unread)
    }

    /// Removes what killed calls left beside records.
    pub(crate) fn sweep(&self) {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(hidden) = name.strip_prefix('.') else { continue };
            if let Some(lock) = hidden.strip_suffix(".lock") {
                // Whoever holds it removes it.
                let mut held = Held { folder: self.folder.clone(), name: format!("{lock}.json"), lock: None };
                let _ = held.lock(Instant::now());
            } else if let Some(process) = hidden.strip_suffix(".tmp").and_then(|rest| rest.rsplit('.').next())
                && !Path::new("/proc").join(process).exists()
            {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string().ok());
        }
        names.retain(|name| name.strip_suffix(".json").is_some_and(|rest| !rest.starts_with('.')));
        Ok(names)
    }
}

impl Held {
    /// Takes the lock; false: somebody had it until then.
    fn lock(&mut self, until: Instant) -> io::Result<bool> {
        self.lock = Hold::take(&self.lock_path(), until)?;
        Ok(self.lock.is_some())
    }

    /// What is known.
    pub(crate) fn load(&self) -> Found {
        let text = match fs::read(self.path()) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return Found::Damaged(error.to_string()),
        };
        match Record::parse(&text) {
            Ok(mut record) => {
                let progress = fs::read(self.results_path()).ok();
                let progress = progress.and_then(|text| serde_json::from_slice::<Progress>(&text).ok());
                // That of another ADD is not about this record.
                let progress = progress.filter(|progress| progress.boot == record.boot);
                let progress = progress.unwrap_or_default();
                record.networks.retain(|network| !progress.ended.contains(&network.ifname));
                Found::Record(Box::new(record), progress)
            }
            Err(why) => Found::Damaged(why),
        }
    }

    /// Writes the record; on return it outlives a power cut.
    pub(crate) fn put(&self, record: &Record) -> Result<(), Error> {
        let text = serde_json::to_vec(record).map_err(|error| Error::new(code::INTERNAL, error.to_string()))?;
        files::put_durably(&self.folder, &self.name, &text).map_err(|error| {
            Error::new(code::IO, format!("{}: the record cannot be written: {error}", self.path().display()))
        })
    }

    /// Writes what has been made. DEL does without where that fails.
    pub(crate) fn put_progress(&self, progress: &Progress) {
        let written = serde_json::to_vec(progress).map_err(io::Error::from).and_then(|text| {
            let path = self.results_path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            files::put(&self.folder, name, &text)
        });
        if let Err(error) = written {
            eprintln!("nsm-cni: {}: results are not recorded: {error}", self.results_path().display());
        }
    }

    /// Whether it was written so long ago that no runtime comes back to it.
    pub(crate) fn is_old(&self) -> bool {
        let written = fs::metadata(self.path()).and_then(|found| found.modified());
        written.is_ok_and(|written| written.elapsed().is_ok_and(|age| age > OLD))
    }

    /// Removes all of it.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        let _ = fs::remove_file(self.results_path());
        match fs::remove_file(self.path()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::new(code::IO, format!("{}: the record cannot be removed: {error}", self.path().display())))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Puts a record that cannot be read where it is in nobody's way. Where it is then.
    pub(crate) fn set_aside(&self) -> PathBuf {
        let first = self.folder.join(format!("{}.damaged", self.name));
        let others = (2..).map(|number| self.folder.join(format!("{}.damaged.{number}", self.name)));
        let mut free = std::iter::once(first).chain(others).filter(|aside| fs::symlink_metadata(aside).is_err());
        let aside = free.next().unwrap_or_else(|| self.path());
        let _ = fs::rename(self.path(), &aside);
        let _ = fs::remove_file(self.results_path());
        aside
    }

    fn path(&self) -> PathBuf {
        self.folder.join(&self.name)
    }

    fn results_path(&self) -> PathBuf {
        self.folder.join(format!("{}.results", self.name.trim_end_matches(".json")))
    }

    fn lock_path(&self) -> PathBuf {
        self.folder.join(format!(".{}.lock", self.name.trim_end_matches(".json")))
    }
}

#[cfg(test)]
mod tests;
