//! Files on their way: received and not yet claimed, queued and not yet sent.

use std::{
    collections::VecDeque,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::InodeId;

/// Most files that wait on one socket in one direction; the Go side keeps as many.
pub const MAX_FILES: usize = 64;

/// More files than one socket may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_FILES} files wait on one socket")]
pub struct TooMany;

/// Files that came on one socket and that no call has claimed. Clones share them; they are closed with the socket.
///
/// Of an accepted socket too many end the connection. Of one that we connected, the oldest are closed: an answer may bring files
/// that its caller has no use for, such as those of all endpoints found.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    files: Arc<Mutex<VecDeque<Waiting>>>,
    /// What all sockets of the peer share; `None` for a socket that we connected.
    room: Option<Arc<Semaphore>>,
}

#[derive(Debug)]
struct Waiting {
    id: InodeId,
    file: OwnedFd,
    _room: Option<OwnedSemaphorePermit>,
}

impl Inbox {
    /// One of several accepted sockets that have this room together.
    pub(crate) fn sharing(room: Arc<Semaphore>) -> Self {
        Self { files: Arc::default(), room: Some(room) }
    }

    /// Claims a file. One that was passed several times, for several calls, can be claimed as often.
    pub fn take(&self, id: InodeId) -> Option<OwnedFd> {
        let mut files = lock(&self.files);
        let place = files.iter().position(|waiting| waiting.id == id)?;
        files.remove(place).map(|waiting| waiting.file)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        lock(&self.files).len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Closes what nobody has claimed.
    pub(crate) fn clear(&self) {
        lock(&self.files).clear();
    }

    pub(crate) fn put(&self, file: OwnedFd) -> Result<(), TooMany> {
        let Ok(id) = InodeId::of(&file) else { return Ok(()) };
        let room = self.room.clone().map(Semaphore::try_acquire_owned).transpose().map_err(|_| TooMany)?;
        let mut files = lock(&self.files);
        if files.len() >= MAX_FILES {
            if self.room.is_some() {
                return Err(TooMany);
            }
            files.pop_front();
        }
        files.push_back(Waiting { id, file, _room: room });
        Ok(())
    }
}

/// Files that go out ahead of the next bytes of one socket. Clones share the queue.
#[derive(Clone, Debug, Default)]
pub struct Outbox(Arc<Queue>);

#[derive(Debug, Default)]
struct Queue {
    files: Mutex<VecDeque<Arc<OwnedFd>>>,
    left: Notify,
}

impl Outbox {
    /// Queues a file: call this before the message that names it is handed to gRPC.
    pub fn send(&self, file: Arc<OwnedFd>) -> Result<(), TooMany> {
        let mut queue = lock(&self.0.files);
        if queue.len() >= MAX_FILES {
            return Err(TooMany);
        }
        queue.push_back(file);
        Ok(())
    }

    /// The same for a message of a stream: waits for room. The files before it leave with the messages before it, so hand those
    /// to gRPC as they come.
    pub async fn send_when_room(&self, file: Arc<OwnedFd>) {
        let mut left = std::pin::pin!(self.0.left.notified());
        loop {
            left.as_mut().enable();
            if self.send(file.clone()).is_ok() {
                return;
            }
            left.as_mut().await;
            left.set(self.0.left.notified());
        }
    }

    pub(crate) fn next(&self) -> Option<Arc<OwnedFd>> {
        lock(&self.0.files).front().cloned()
    }

    pub(crate) fn sent(&self) {
        lock(&self.0.files).pop_front();
        self.0.left.notify_waiters();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Waker};

    use super::*;

    fn file() -> OwnedFd {
        tempfile::tempfile().unwrap().into()
    }

    #[test]
    fn who_has_many_files_to_pass_waits_for_room() {
        let (outbox, file) = (Outbox::default(), Arc::new(file()));
        for _ in 0..MAX_FILES {
            outbox.send(file.clone()).unwrap();
        }
        let mut context = Context::from_waker(Waker::noop());
        let mut waits = std::pin::pin!(outbox.send_when_room(file.clone()));
        assert!(waits.as_mut().poll(&mut context).is_pending());
        outbox.sent();
        assert!(waits.poll(&mut context).is_ready());
        assert_eq!(outbox.send(file), Err(TooMany));
    }

    #[test]
    fn claimed_files_take_no_room() {
        let room = Arc::new(Semaphore::new(1));
        let (one, other) = (Inbox::sharing(room.clone()), Inbox::sharing(room));
        let first = file();
        let id = InodeId::of(&first).unwrap();
        one.put(first).unwrap();
        assert_eq!(other.put(file()), Err(TooMany));
        drop(one.take(id));
        other.put(file()).unwrap();
    }

    #[test]
    fn of_the_files_of_answers_the_latest_stay() {
        let inbox = Inbox::default();
        let ids: Vec<InodeId> = (0..=MAX_FILES)
            .map(|_| {
                let file = file();
                let id = InodeId::of(&file).unwrap();
                inbox.put(file).unwrap();
                id
            })
            .collect();
        assert_eq!(inbox.len(), MAX_FILES);
        assert!(inbox.take(ids[0]).is_none());
        assert!(ids[1..].iter().all(|id| inbox.take(*id).is_some()));
    }
}
