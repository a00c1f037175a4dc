//! In which control groups a peer runs: what tells a container from others of its network namespace.
//!
//! Guarantee: what is told is of the process that connected. It lived when its groups had been read, so that its number was not another's;
//! of one that has ended nothing is told.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, OnceLock},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Peer, sys};

/// Most bytes that are read: some 14 lines of paths, which the kernel bounds.
const MOST: u64 = 64 << 10;

/// What became of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// As proc_pid_cgroup(5) has them, seen from this process's own.
    Told(Box<str>),
    /// The process is not in this process's PID namespace.
    Unseen,
    /// It has ended: who has its socket now is not known.
    Ended,
    /// The system said no.
    Failed(Box<str>),
}

/// An answer that is kept. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Asked(Arc<OnceLock<Groups>>);

impl Peer {
    /// Asks, the first time, and keeps the answer. Blocking: the kernel may be at work on all groups.
    pub fn ask_groups(&self) -> &Groups {
        self.asked.0.get_or_init(|| self.read_groups())
    }

    /// The answer, if somebody has asked.
    pub fn groups(&self) -> Option<&Groups> {
        self.asked.0.get()
    }

    fn read_groups(&self) -> Groups {
        if self.pid <= 0 {
            return Groups::Unseen;
        }
        let failed = |error: io::Error| Groups::Failed(error.to_string().into());
        // Before Linux 6.5 the number is all there is: it could be another's if the process ended before this.
        let process = match &self.pidfd {
            Some(pidfd) => Ok(pidfd.clone()),
            None => sys::pidfd_open(self.pid).map(Arc::new),
        };
        let process = match process {
            Ok(process) => process,
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => return Groups::Ended,
            Err(error) => return failed(error),
        };
        let mut text = String::new();
        let read =
            File::open(format!("/proc/{}/cgroup", self.pid)).and_then(|file| file.take(MOST).read_to_string(&mut text));
        match (has_ended(&process), read) {
            (Ok(true), _) => Groups::Ended,
            (Ok(false), Ok(_)) => Groups::Told(text.into()),
            (Ok(false), Err(error)) | (Err(error), _) => failed(error),
        }
    }
}

fn has_ended(process: &OwnedFd) -> io::Result<bool> {
    let mut asked = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut asked, PollTimeout::ZERO)? > 0)
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn peer(pid: u32) -> Peer {
        let pid = i32::try_from(pid).unwrap();
        Peer { netns: None, pid, uid: 0, gid: 0, pidfd: None, asked: Asked::default() }
    }

    fn child() -> Child {
        Command::new("cat").stdin(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn of_a_living_process_they_are_told_once() {
        let mut child = child();
        let peer = peer(child.id());
        assert_eq!(peer.groups(), None);
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        assert_eq!(*peer.ask_groups(), Groups::Told(own.as_str().into()));
        drop(child.stdin.take());
        child.wait().unwrap();
        assert_eq!(peer.groups(), Some(&Groups::Told(own.into())));
    }

    #[test]
    fn of_one_that_has_ended_nothing_is_told() {
        let mut child = child();
        let held = Arc::new(sys::pidfd_open(i32::try_from(child.id()).unwrap()).unwrap());
        drop(child.stdin.take());
        // Its number may be another's soon: it must not be asked about by number.
        let mut waited = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
        poll(&mut waited, PollTimeout::NONE).unwrap();
        let unreaped = Peer { pidfd: Some(held.clone()), ..peer(child.id()) };
        assert_eq!(*unreaped.ask_groups(), Groups::Ended, "/proc still has it");
        child.wait().unwrap();
        let number_reused = Peer { pidfd: Some(held), ..peer(std::process::id()) };
        assert_eq!(*number_reused.ask_groups(), Groups::Ended);
        assert_eq!(*peer(child.id()).ask_groups(), Groups::Ended);
        assert_eq!(*peer(0).ask_groups(), Groups::Unseen);
    }
}
