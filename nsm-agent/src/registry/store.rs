//! The embedded registry's database, on a thread of its own.
//!
//! Guarantees: [`Store::write`] answers after fsync; writers that wait at the same time share one. A write that fails leaves
//! what was there before. What is [`Store::put_off`] (renewals, expiries) reaches the disk with the next write, or within
//! [`PUT_OFF`]. A damaged file is set aside under a name that says so; a file of a newer format is left alone.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use redb::{Database, DatabaseError, Durability, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use super::Error;

/// The format that this version writes.
const FORMAT: u32 = 1;
/// Longest time that a renewal waits for its place on the disk.
pub(super) const PUT_OFF: Duration = Duration::from_secs(10);
/// The registry is small and read once: redb's own default would let it grow to a gibibyte.
const CACHE_BYTES: usize = 1024 * 1024;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const SERVICES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("services");
const ENDPOINTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("endpoints");

/// Why the registry cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Written by a newer version.
    #[error(
        "the registry's database {path} has format {found}, this version knows {known}: start the newer nsm-agent, or move \
         the file away to begin with an empty registry"
    )]
    Newer {
        /// The database file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one that is known here.
        known: u32,
    },
    /// Another process has it.
    #[error("the registry's database {0} is in use by another process: give each nsm-agent its own --state-dir")]
    InUse(PathBuf),
    /// The disk.
    #[error("the registry's database {path} cannot be opened: {cause}; check --state-dir and the disk")]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// What the disk said.
        cause: String,
    },
}

/// A kind of record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Table {
    /// Network services.
    Services,
    /// Endpoints.
    Endpoints,
}

/// Name and bytes of each record.
pub(super) type Records = Vec<(String, Vec<u8>)>;

/// What was in the database.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Network services.
    pub(super) services: Records,
    /// Endpoints.
    pub(super) endpoints: Records,
}

type Key = (Table, String);
type Pending = HashMap<Key, Option<Vec<u8>>>;
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

struct Write {
    key: Key,
    value: Option<Vec<u8>>,
    /// What stands there until this write succeeds.
    before: Option<Vec<u8>>,
    done: oneshot::Sender<Result<(), Failure>>,
}

enum Job {
    Write(Write),
    Pending,
    End,
}

#[derive(Debug, Clone)]
enum Failure {
    Full,
    Other(String),
}

/// The way to the thread.
pub(super) struct Store {
    path: PathBuf,
    jobs: mpsc::Sender<Job>,
    pending: Arc<Mutex<Pending>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Store {
    /// Opens or makes the database in `dir`. Blocks.
    pub(super) fn open(dir: &Path) -> Result<(Self, Contents), OpenError> {
        let path = dir.join("registry.redb");
        std::fs::create_dir_all(dir)
            .map_err(|error| OpenError::Unusable { path: path.clone(), cause: error.to_string() })?;
        let file = path.clone();
        let open: Opener = Box::new(move || Database::builder().set_cache_size(CACHE_BYTES).create(&file));
        Self::open_with(path, open)
    }

    pub(super) fn open_with(path: PathBuf, open: Opener) -> Result<(Self, Contents), OpenError> {
        let (database, contents) = match load(&path, &open) {
            Err(Trouble::Damaged(cause)) => {
                let aside = set_aside(&path)
                    .map_err(|error| OpenError::Unusable { path: path.clone(), cause: error.to_string() })?;
                tracing::error!(path = %path.display(), aside = %aside.display(), error = cause,
                    "the registry's database is damaged: set aside, beginning with an empty registry");
                load(&path, &open)
            }
            loaded => loaded,
        }
        .map_err(|trouble| trouble.at(&path))?;
        let (jobs, queue) = mpsc::channel();
        let pending = Arc::new(Mutex::new(Pending::new()));
        let writer = Writer { open, database: Some(database), pending: pending.clone(), repair: Pending::new() };
        let thread = std::thread::Builder::new().name("registry-disk".into()).spawn(move || writer.run(&queue));
        let thread = thread.map_err(|error| OpenError::Unusable { path: path.clone(), cause: error.to_string() })?;
        Ok((Self { path, jobs, pending, thread: Mutex::new(Some(thread)) }, contents))
    }

    /// Writes (`None`: removes) a record durably. On failure `before` stands.
    pub(super) async fn write(
        &self,
        table: Table,
        name: &str,
        value: Option<Vec<u8>>,
        before: Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let write = Write { key: (table, name.to_owned()), value, before, done };
        self.jobs.send(Job::Write(write)).map_err(|_| Error::ShuttingDown)?;
        let path = self.path.display().to_string();
        match answer.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Failure::Full)) => Err(Error::DiskFull { path }),
            Ok(Err(Failure::Other(cause))) => Err(Error::Disk { path, cause }),
            Err(_) => Err(Error::ShuttingDown),
        }
    }

    /// Writes or removes a record some time soon.
    pub(super) fn put_off(&self, table: Table, name: &str, value: Option<Vec<u8>>) {
        let mut pending = lock(&self.pending);
        let first = pending.is_empty();
        pending.insert((table, name.to_owned()), value);
        if first {
            // The thread is gone only after `end`, when nothing is renewed any more.
            let _ = self.jobs.send(Job::Pending);
        }
    }

    /// Writes what was put off and ends the thread. Blocks.
    pub(super) fn end(&self) {
        let _ = self.jobs.send(Job::End);
        if let Some(thread) = lock(&self.thread).take() {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

enum Trouble {
    Damaged(String),
    Newer(u32),
    InUse,
    Disk(String),
}

impl Trouble {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            Self::Newer(found) => OpenError::Newer { path, found, known: FORMAT },
            Self::InUse => OpenError::InUse(path),
            Self::Damaged(cause) | Self::Disk(cause) => OpenError::Unusable { path, cause },
        }
    }
}

impl From<redb::Error> for Trouble {
    fn from(error: redb::Error) -> Self {
        match &error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            redb::Error::Io(io) if !matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) => {
                Self::Disk(error.to_string())
            }
            _ => Self::Damaged(error.to_string()),
        }
    }
}

/// Opens, checks every checksum and reads all. redb may panic on a file that somebody else changed: that is damage too.
fn load(path: &Path, open: &Opener) -> Result<(Database, Contents), Trouble> {
    let attempt = || -> Result<(Database, Contents), Trouble> {
        let fresh = std::fs::metadata(path).map_or(0, |file| file.len()) == 0;
        let mut database = open().map_err(redb::Error::from)?;
        if !fresh {
            database.check_integrity().map_err(redb::Error::from)?;
        }
        let contents = read(&database)?;
        Ok((database, contents))
    };
    catch_unwind(AssertUnwindSafe(attempt))
        .unwrap_or_else(|_| Err(Trouble::Damaged("its pages are inconsistent".into())))
}

fn read(database: &Database) -> Result<Contents, Trouble> {
    let transaction = database.begin_write().map_err(redb::Error::from)?;
    let mut contents = Contents::default();
    {
        let mut meta = transaction.open_table(META).map_err(redb::Error::from)?;
        let found = meta.get("format").map_err(redb::Error::from)?.map(|format| format.value());
        match found {
            Some(found) if found > FORMAT => return Err(Trouble::Newer(found)),
            Some(_) => {}
            None => {
                meta.insert("format", FORMAT).map_err(redb::Error::from)?;
            }
        }
        for (table, records) in [(SERVICES, &mut contents.services), (ENDPOINTS, &mut contents.endpoints)] {
            let table = transaction.open_table(table).map_err(redb::Error::from)?;
            for record in table.iter().map_err(redb::Error::from)? {
                let (name, bytes) = record.map_err(redb::Error::from)?;
                records.push((name.value().to_owned(), bytes.value().to_vec()));
            }
        }
    }
    transaction.commit().map_err(redb::Error::from)?;
    Ok(contents)
}

fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let aside = path.with_extension(format!("redb.damaged-{seconds}"));
    std::fs::rename(path, &aside)?;
    Ok(aside)
}

/// The thread's side.
struct Writer {
    open: Opener,
    /// `None` after a failure of the disk: redb wants to be opened anew.
    database: Option<Database>,
    pending: Arc<Mutex<Pending>>,
    /// What failed writes may have left half done: written again with the next one.
    repair: Pending,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        let mut due: Option<Instant> = None;
        loop {
            let job = match due {
                Some(due) => queue.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => queue.recv().map_err(mpsc::RecvTimeoutError::from),
            };
            let mut writes = Vec::new();
            let mut ended = false;
            let mut flush = false;
            match job {
                Ok(Job::Write(write)) => writes.push(write),
                Ok(Job::Pending) => {
                    due.get_or_insert_with(|| Instant::now() + PUT_OFF);
                }
                Ok(Job::End) | Err(mpsc::RecvTimeoutError::Disconnected) => ended = true,
                Err(mpsc::RecvTimeoutError::Timeout) => flush = true,
            }
            for job in queue.try_iter() {
                match job {
                    Job::Write(write) => writes.push(write),
                    Job::Pending => {
                        due.get_or_insert_with(|| Instant::now() + PUT_OFF);
                    }
                    Job::End => ended = true,
                }
            }
            if !writes.is_empty() || ended || flush {
                due = self.commit(writes).then(|| Instant::now() + PUT_OFF);
            }
            if ended {
                return;
            }
        }
    }

    /// Writes what was put off, then `writes`; `true` when something is left to be done later.
    fn commit(&mut self, writes: Vec<Write>) -> bool {
        let put_off = std::mem::take(&mut *lock(&self.pending));
        if writes.is_empty() && put_off.is_empty() && self.repair.is_empty() {
            return false;
        }
        let changes = self.repair.iter().chain(&put_off).map(|(key, value)| (key, value.as_deref()));
        let changes = changes.chain(writes.iter().map(|write| (&write.key, write.value.as_deref())));
        let result = write_all(&mut self.database, &self.open, changes);
        match &result {
            Ok(()) => self.repair.clear(),
            Err(failure) => {
                tracing::error!(error = ?failure, writes = writes.len(), "the registry's database was not written");
                self.database = None;
                self.repair.extend(put_off);
                self.repair.extend(writes.iter().map(|write| (write.key.clone(), write.before.clone())));
            }
        }
        for write in writes {
            // Who does not wait any more needs no answer.
            let _ = write.done.send(result.clone());
        }
        result.is_err()
    }
}

fn write_all<'a>(
    database: &mut Option<Database>,
    open: &Opener,
    changes: impl Iterator<Item = (&'a Key, Option<&'a [u8]>)>,
) -> Result<(), Failure> {
    let attempt = || -> Result<(), redb::Error> {
        let database = match database {
            Some(database) => database,
            None => database.insert(open()?),
        };
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut services = transaction.open_table(SERVICES)?;
            let mut endpoints = transaction.open_table(ENDPOINTS)?;
            for ((table, name), value) in changes {
                let table = match table {
                    Table::Services => &mut services,
                    Table::Endpoints => &mut endpoints,
                };
                match value {
                    Some(value) => table.insert(name.as_str(), value)?,
                    None => table.remove(name.as_str())?,
                };
            }
        }
        transaction.commit()?;
        Ok(())
    };
    match catch_unwind(AssertUnwindSafe(attempt)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(redb::Error::Io(error))) if is_full(&error) => Err(Failure::Full),
        Ok(Err(error)) => Err(Failure::Other(error.to_string())),
        Err(_) => Err(Failure::Other("its pages are inconsistent".into())),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
