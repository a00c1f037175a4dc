//! Files on their way: received and not yet claimed, queued and not yet sent.

use std::{
    collections::{HashMap, VecDeque},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::InodeId;

/// Most files that wait on one socket in one direction; the Go side keeps as many.
pub const MAX_FILES: usize = 64;

/// More files than one socket may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_FILES} files wait on one socket")]
pub struct TooMany;

/// Files that came on one socket and that no call has claimed. Clones share them; they are closed with the socket.
#[derive(Clone, Debug, Default)]
pub struct Inbox(Arc<Mutex<HashMap<InodeId, Vec<OwnedFd>>>>);

impl Inbox {
    /// Claims a file. One that was passed several times, for several calls, can be claimed as often.
    pub fn take(&self, id: InodeId) -> Option<OwnedFd> {
        let mut files = lock(&self.0);
        let of_id = files.get_mut(&id)?;
        let file = of_id.pop();
        if of_id.is_empty() {
            files.remove(&id);
        }
        file
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        lock(&self.0).values().map(Vec::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes what nobody has claimed.
    pub(crate) fn clear(&self) {
        lock(&self.0).clear();
    }

    pub(crate) fn put(&self, file: OwnedFd) -> Result<(), TooMany> {
        let Ok(id) = InodeId::of(&file) else { return Ok(()) };
        let mut files = lock(&self.0);
        if files.values().map(Vec::len).sum::<usize>() >= MAX_FILES {
            return Err(TooMany);
        }
        files.entry(id).or_default().push(file);
        Ok(())
    }
}

/// Files that go out ahead of the next bytes of one socket. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Mutex<VecDeque<Arc<OwnedFd>>>>);

impl Outbox {
    /// Queues a file: call this before the message that names it is handed to gRPC.
    pub fn send(&self, file: Arc<OwnedFd>) -> Result<(), TooMany> {
        let mut queue = lock(&self.0);
        if queue.len() >= MAX_FILES {
            return Err(TooMany);
        }
        queue.push_back(file);
        Ok(())
    }

    pub(crate) fn next(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.0).front().cloned()
    }

    pub(crate) fn sent(&self) {
        lock(&self.0).pop_front();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
