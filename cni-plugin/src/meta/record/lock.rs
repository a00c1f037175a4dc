//! Locks of files, and the wait for one that somebody else holds.
//!
//! Guarantee: who waits sleeps until the kernel wakes it, and not longer than it says.
//!
//! Two kinds that do not see each other. What is locked by [`inherited`] is held by whoever has the file, so also by processes that this
//! program starts, if they are let. What is locked by [`own`] ends with this program in any way, as nobody else gets its descriptor.

use std::{
    fs::{File, TryLockError},
    io,
    sync::mpsc,
    thread,
    time::Instant,
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// With whom a lock is shared.
#[derive(Debug, Clone, Copy)]
pub(super) enum With {
    /// With others that share it.
    Others,
    /// With nobody.
    Nobody,
}

/// Locks the file, alone, for all that have it (flock(2)); false: somebody else had it until then.
pub(super) fn inherited(file: &File, until: Instant) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => wait(file, until, File::lock),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Locks a place of the file, whether there is a byte or not, for this program (fcntl_locking(2), open file description locks); false:
/// somebody else had it until then.
#[expect(clippy::cast_possible_truncation, reason = "constants that the kernel wants in a short")]
pub(super) fn own(file: &File, place: u32, with: With, until: Instant) -> io::Result<bool> {
    let lock = libc::flock {
        l_type: match with {
            With::Others => libc::F_RDLCK,
            With::Nobody => libc::F_WRLCK,
        } as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: place.into(),
        l_len: 1,
        // As the kernel wants it of these.
        l_pid: 0,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => {
            wait(file, until, move |file| fcntl(file, FcntlArg::F_OFD_SETLKW(&lock)).map(drop).map_err(io::Error::from))
        }
        Err(error) => Err(error.into()),
    }
}

/// Such a wait has no end of its own, so that a thread has it. One that is for nothing ends with this program, or, when it comes to the
/// lock before, with the last file that has it.
fn wait(file: &File, until: Instant, take: impl Fn(&File) -> io::Result<()> + Send + 'static) -> io::Result<bool> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Ok(false);
    }
    let (sender, taken) = mpsc::channel();
    let same = file.try_clone()?;
    thread::Builder::new().name("lock".to_owned()).spawn(move || {
        let waited = loop {
            match take(&same) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                waited => break waited,
            }
        };
        drop(same);
        let _ = sender.send(waited);
    })?;
    taken.recv_timeout(left).map_or(Ok(false), |taken| taken.map(|()| true))
}
