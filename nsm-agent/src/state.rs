//! What the agent must know again after SIGKILL: one file per record, in the run directory.
//!
//! Guarantees: [`Records::put`] returns after the record is complete under its name (written beside it, then renamed), so a
//! reader sees the old or the new record, never half of one. Nothing is fsynced: a reboot ends the namespaces that the records
//! are about, and the boot id in each file tells. A damaged file is set aside and reported, the rest load; a file of a newer
//! format stops the start. File work is done on blocking threads, unless the files lie in memory ([`Medium`]).

mod hold;
mod medium;
mod record;

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::watch;

use crate::files;

pub use hold::Hold;
pub use medium::Medium;
pub use record::{
    Attachment, AttachmentKey, ChosenBy, Connected, ConnectionId, Encoded, Inherited, Owner, Phase, Pod, PodAdd, Proof,
    RoutePolicy, Source,
};

/// Version of the files' format. A newer agent reads older ones; an older one refuses newer ones.
pub const FORMAT: u32 = 1;

/// Something that has a file of its own.
pub trait Record: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// What finds it.
    type Key: Clone + Eq + std::hash::Hash + Send + Sync;
    /// Folder below the run directory.
    const FOLDER: &'static str;
    /// Its key.
    fn key(&self) -> Self::Key;
    /// The key as a file name of at most 200 bytes, without `/`, unique per key.
    fn file_name(key: &Self::Key) -> String;
}

/// Why records cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A folder or file operation failed.
    #[error("cannot {action} {}: {source}; the run directory needs free space and must belong to the agent", path.display())]
    Io {
        /// E.g. `write`.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent works with the directory.
    #[error("the run directory {} is in use by another process: give each nsm-agent its own --run-dir", path.display())]
    Held {
        /// The directory.
        path: PathBuf,
    },
    /// Written by a newer agent.
    #[error(
        "{} has format {found}, this agent knows up to {FORMAT}: run the newer agent again, or remove the run directory when no pod of this node uses a network service",
        path.display()
    )]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
}

impl Error {
    /// Whether the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded)
    }
}

/// The records of one kind: all in memory, each also in its file.
#[derive(Clone)]
pub struct Records<R: Record> {
    inner: Arc<Inner<R>>,
}

struct Inner<R: Record> {
    folder: PathBuf,
    medium: Medium,
    boot_id: String,
    live: Mutex<HashMap<R::Key, Arc<R>>>,
    changes: watch::Sender<u64>,
}

/// What was found at start besides good records.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// Files that could not be read, under their new names.
    pub damaged: Vec<PathBuf>,
    /// Records of an earlier boot, removed.
    pub earlier_boot: usize,
}

#[derive(Serialize, Deserialize)]
struct Envelope<R> {
    format: u32,
    boot_id: String,
    record: R,
}

/// The part of an envelope that every format has.
#[derive(Deserialize)]
struct Header {
    format: u32,
    boot_id: String,
}

impl<R: Record> Records<R> {
    /// Reads the folder. Blocking.
    pub fn open(run_dir: &Path, boot_id: &str) -> Result<(Self, Found), Error> {
        let folder = run_dir.join(R::FOLDER);
        fs::create_dir_all(&folder).map_err(|source| Error::Io { action: "create", path: folder.clone(), source })?;
        let mut live = HashMap::new();
        let mut found = Found::default();
        let entries =
            fs::read_dir(&folder).map_err(|source| Error::Io { action: "read", path: folder.clone(), source })?;
        for entry in entries {
            let path = entry.map_err(|source| Error::Io { action: "read", path: folder.clone(), source })?.path();
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => {}
                // Left by a write that was cut short; its record is the one that was there before.
                Some("new") => {
                    let _ = fs::remove_file(&path);
                    continue;
                }
                _ => continue,
            }
            match Self::load(&path, boot_id)? {
                Loaded::Good(record) => drop(live.insert(record.key(), Arc::new(record))),
                Loaded::EarlierBoot => {
                    let _ = fs::remove_file(&path);
                    found.earlier_boot += 1;
                }
                Loaded::Damaged => {
                    let aside = path.with_extension("damaged");
                    fs::rename(&path, &aside).map_err(|source| Error::Io { action: "set aside", path, source })?;
                    found.damaged.push(aside);
                }
            }
        }
        let (medium, boot_id) = (Medium::of(&folder), boot_id.to_owned());
        let inner = Inner { folder, medium, boot_id, live: Mutex::new(live), changes: watch::Sender::new(0) };
        Ok((Self { inner: Arc::new(inner) }, found))
    }

    fn load(path: &Path, boot_id: &str) -> Result<Loaded<R>, Error> {
        let text = fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
        Self::read(&text, path, boot_id)
    }

    /// What the text of the file at `path` is.
    pub(crate) fn read(text: &[u8], path: &Path, boot_id: &str) -> Result<Loaded<R>, Error> {
        let Ok(header) = serde_json::from_slice::<Header>(text) else { return Ok(Loaded::Damaged) };
        if header.format > FORMAT {
            return Err(Error::Newer { path: path.to_owned(), found: header.format });
        }
        if header.boot_id != boot_id {
            return Ok(Loaded::EarlierBoot);
        }
        Ok(match serde_json::from_slice::<Envelope<R>>(text) {
            Ok(envelope) => Loaded::Good(envelope.record),
            Err(_) => Loaded::Damaged,
        })
    }

    /// Writes a record, new or changed. Blocking.
    pub fn put_blocking(&self, record: R) -> Result<(), Error> {
        let key = record.key();
        let path = self.path(&key);
        let envelope = Envelope { format: FORMAT, boot_id: self.inner.boot_id.clone(), record: &record };
        let written = serde_json::to_vec(&envelope).map_err(io::Error::other);
        if let Err(source) = written.and_then(|text| files::replace(&path, &text)) {
            return Err(Error::Io { action: "write", path, source });
        }
        self.lock().insert(key, Arc::new(record));
        self.inner.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Writes a record, new or changed.
    pub async fn put(&self, record: R) -> Result<(), Error> {
        let records = self.clone();
        self.inner.medium.work(move || records.put_blocking(record)).await
    }

    /// Forgets a record; one that is not there is fine. Blocking.
    pub fn remove_blocking(&self, key: &R::Key) -> Result<(), Error> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Io { action: "remove", path, source });
            }
            _ => {}
        }
        self.lock().remove(key);
        self.inner.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Forgets a record; one that is not there is fine.
    pub async fn remove(&self, key: &R::Key) -> Result<(), Error> {
        let (records, key) = (self.clone(), key.clone());
        self.inner.medium.work(move || records.remove_blocking(&key)).await
    }

    /// The record of that key.
    pub fn get(&self, key: &R::Key) -> Option<Arc<R>> {
        self.lock().get(key).cloned()
    }

    /// The first record that fits.
    pub fn find(&self, fits: impl Fn(&R) -> bool) -> Option<Arc<R>> {
        self.lock().values().find(|record| fits(record)).cloned()
    }

    /// The records that fit.
    pub fn select(&self, fits: impl Fn(&R) -> bool) -> Vec<Arc<R>> {
        self.lock().values().filter(|record| fits(record)).cloned().collect()
    }

    /// How many fit.
    pub fn count(&self, fits: impl Fn(&R) -> bool) -> usize {
        self.lock().values().filter(|record| fits(record)).count()
    }

    /// All records.
    pub fn all(&self) -> Vec<Arc<R>> {
        self.lock().values().cloned().collect()
    }

    /// A number that moves with each change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes.subscribe()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn path(&self, key: &R::Key) -> PathBuf {
        self.inner.folder.join(format!("{}.json", R::file_name(key)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<R::Key, Arc<R>>> {
        self.inner.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record's file turned out to be.
pub(crate) enum Loaded<R> {
    Good(R),
    EarlierBoot,
    Damaged,
}

/// Runs blocking work on a thread of its own; a panic there goes on here.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and so does whoever waits.
            Err(_) => std::future::pending().await,
        },
    }
}

/// What tells one boot from the next (random since boot, proc(5)).
pub fn boot_id() -> Result<String, Error> {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    match fs::read_to_string(&path) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

#[cfg(test)]
mod tests;
