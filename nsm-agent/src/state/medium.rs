//! Whether files lie in memory, and which threads work with them.
//!
//! Guarantee: what may wait for a disk is never done on a thread that serves calls. What lies in memory takes some microseconds,
//! less than the way to another thread and back, which an ADD would go six times.

use std::path::Path;

use nix::sys::statfs::{TMPFS_MAGIC, statfs};

use super::blocking;

/// Where the files of a folder lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A file system in memory, as `/run` is: nothing waits there.
    Memory,
    /// Anything else.
    Disk,
}

impl Medium {
    /// That of a folder; what cannot be told is a disk. Blocking.
    pub fn of(folder: &Path) -> Self {
        match statfs(folder) {
            Ok(found) if found.filesystem_type() == TMPFS_MAGIC => Self::Memory,
            Ok(_) | Err(_) => Self::Disk,
        }
    }

    /// Does short work with files there, and with nothing else that may block: on a thread of its own unless they lie in memory.
    pub async fn work<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> T {
        match self {
            Self::Memory => work(),
            Self::Disk => blocking(work).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_lies_in_memory_is_known() {
        assert_eq!(Medium::of(Path::new("/dev/shm")), Medium::Memory);
        assert_eq!(Medium::of(Path::new("/proc")), Medium::Disk);
        assert_eq!(Medium::of(Path::new("/does/not/exist")), Medium::Disk);
    }

    #[tokio::test]
    async fn who_may_wait_has_a_thread() {
        let here = thread::current().id();
        assert_eq!(Medium::Memory.work(|| thread::current().id()).await, here);
        assert_ne!(Medium::Disk.work(|| thread::current().id()).await, here);
    }
}
