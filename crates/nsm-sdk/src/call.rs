//! What travels with a Request or a Close besides the message: deadline, caller, files, and what elements tell each other.

use std::{
    any::{Any, TypeId},
    collections::{BTreeMap, HashMap},
    fmt,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nsm_fdpass::InodeId;
use nsm_proto::connection::Mechanism;
use tokio::time::Instant;

use crate::{Error, Kind};

/// Time that a call gets when its caller named none (`NSM_REQUEST_TIMEOUT` of the Go programs).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// The circumstances of one call. Elements read and add; the same `Call` goes down the whole chain.
#[derive(Clone)]
pub struct Call {
    /// When the caller gives up.
    pub deadline: Instant,
    /// Files that came with the request, or come back with the answer, by the identity that messages name.
    pub files: Files,
    notes: Notes,
}

impl Call {
    /// A call that ends after `timeout`.
    pub fn new(timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, files: Files::default(), notes: Notes::default() }
    }

    /// Leaves a value for the elements further down (and for the caller). One value per type.
    pub fn note<T: Any + Clone + Send + Sync>(&self, value: T) {
        self.notes.lock().insert(TypeId::of::<T>(), Box::new(value));
    }

    /// What was noted of this type.
    pub fn noted<T: Any + Clone + Send + Sync>(&self) -> Option<T> {
        self.notes.lock().get(&TypeId::of::<T>()).and_then(|value| value.downcast_ref()).cloned()
    }

    /// Time left; zero when the deadline has passed.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The same caller and notes with files and deadline of its own, for a call that this one causes.
    #[must_use]
    pub fn derive(&self, timeout: Duration) -> Self {
        Self { deadline: Instant::now() + timeout, files: Files::default(), notes: self.notes.clone() }
    }
}

impl Default for Call {
    fn default() -> Self {
        Self::new(DEFAULT_TIMEOUT)
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("remaining", &self.remaining()).field("files", &self.files).finish_non_exhaustive()
    }
}

type AnyValue = Box<dyn Any + Send + Sync>;

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<HashMap<TypeId, AnyValue>>>);

impl Notes {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<TypeId, AnyValue>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Open files of one call, by the identity that `inode://DEV/INO` names. Inside a process a mechanism keeps that URL;
/// the transport sends and receives the descriptors. Clones share the set.
#[derive(Clone, Default)]
pub struct Files(Arc<Mutex<BTreeMap<InodeId, Arc<OwnedFd>>>>);

impl Files {
    /// Most files that one call may carry; the Go side keeps as many per socket.
    pub const MAX: usize = 64;

    /// Adds a file; the same file twice is one.
    ///
    /// # Errors
    /// [`Kind::Exhausted`] at [`Files::MAX`]; [`Kind::Internal`] when fstat(2) fails.
    pub fn add(&self, file: impl Into<Arc<OwnedFd>>) -> Result<InodeId, Error> {
        let file = file.into();
        let id = InodeId::of(&*file).map_err(|error| Error::new(Kind::Internal, error))?;
        let mut files = self.lock();
        if files.len() >= Self::MAX && !files.contains_key(&id) {
            return Err(Error::new(Kind::Exhausted, format!("more than {} files in one call", Self::MAX)));
        }
        files.entry(id).or_insert(file);
        Ok(id)
    }

    /// The same files in a set of its own: what is added there is not seen here.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    /// The identities of all of them.
    pub fn ids(&self) -> std::collections::BTreeSet<InodeId> {
        self.lock().keys().copied().collect()
    }

    /// The file of that identity.
    pub fn get(&self, id: InodeId) -> Option<Arc<OwnedFd>> {
        self.lock().get(&id).cloned()
    }

    /// The file that a mechanism's `inodeURL` names; `None` when the mechanism names none.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the URL is no `inode://`, or the file was never passed.
    pub fn of(&self, mechanism: &Mechanism) -> Result<Option<Arc<OwnedFd>>, Error> {
        let Some(url) = mechanism.parameters.get(nsm_proto::mechanism::INODE_URL).filter(|url| !url.is_empty()) else {
            return Ok(None);
        };
        let id = url.parse().map_err(|error: nsm_fdpass::NotAnInode| Error::new(Kind::Invalid, error))?;
        match self.get(id) {
            Some(file) => Ok(Some(file)),
            None => Err(Error::new(
                Kind::Invalid,
                format!("mechanism {} names the file {url}, which was not passed on this socket", mechanism.r#type),
            )),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<InodeId, Arc<OwnedFd>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.lock().keys().map(ToString::to_string)).finish()
    }
}
