//! Locks of whole files, and the wait for one that somebody else holds.
//!
//! Guarantee: who waits sleeps until the kernel wakes it, and not longer than it says.

use std::{
    fs::{File, TryLockError},
    io,
    sync::mpsc,
    thread,
    time::Instant,
};

/// With whom a lock is shared.
#[derive(Debug, Clone, Copy)]
pub(super) enum Lock {
    /// With others that share it.
    Shared,
    /// With nobody.
    Alone,
}

impl Lock {
    /// Takes it; false: somebody else had it until then.
    pub(super) fn take(self, file: &File, until: Instant) -> io::Result<bool> {
        let tried = match self {
            Self::Shared => file.try_lock_shared(),
            Self::Alone => file.try_lock(),
        };
        match tried {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => self.wait(file, until),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Such a wait has no end of its own, so that a thread has it. One that is for nothing ends with this program, or, when it comes to the
    /// lock before, with the last file that has it.
    fn wait(self, file: &File, until: Instant) -> io::Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let (sender, taken) = mpsc::channel();
        let same = file.try_clone()?;
        thread::Builder::new().name("lock".to_owned()).spawn(move || {
            let waited = loop {
                let waited = match self {
                    Self::Shared => same.lock_shared(),
                    Self::Alone => same.lock(),
                };
                match waited {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    waited => break waited,
                }
            };
            drop(same);
            let _ = sender.send(waited);
        })?;
        taken.recv_timeout(left).map_or(Ok(false), |taken| taken.map(|()| true))
    }
}
