//! In which control groups a peer runs: what tells a container from others of its network namespace.
//!
//! Guarantee: what is told is of the process that is held since the socket was accepted ([`Process`]). It lived when its groups had been
//! read, so that its number was not another's; of one that has ended nothing is told.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, OnceLock},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{Peer, Process};

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
        let process = match &self.process {
            Process::Proved(pidfd) | Process::Numbered(pidfd) => pidfd,
            Process::Ended => return Groups::Ended,
            Process::Unseen => return Groups::Unseen,
            Process::Failed(why) => return Groups::Failed(why.clone()),
        };
        let mut text = String::new();
        let read =
            File::open(format!("/proc/{}/cgroup", self.pid)).and_then(|file| file.take(MOST).read_to_string(&mut text));
        match (has_ended(process), read) {
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

    use nix::libc::{EINVAL, EMFILE, ENOPROTOOPT, ESRCH};

    use super::*;

    /// As a kernel before 6.5 tells it.
    fn peer(pid: u32) -> Peer {
        let pid = i32::try_from(pid).unwrap();
        let process = Process::of(Err(io::Error::from_raw_os_error(ENOPROTOOPT)), pid);
        Peer { netns: None, pid, uid: 0, gid: 0, process, asked: Asked::default() }
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
        // Held since then, before anybody asks: its number may be another's soon.
        let accepted = peer(child.id());
        let Process::Numbered(held) = accepted.process.clone() else { panic!("{:?}", accepted.process) };
        drop(child.stdin.take());
        let mut waited = [PollFd::new(held.as_fd(), PollFlags::POLLIN)];
        poll(&mut waited, PollTimeout::NONE).unwrap();
        assert_eq!(*accepted.ask_groups(), Groups::Ended, "/proc still has it");
        child.wait().unwrap();
        for process in [Process::Numbered(held.clone()), Process::Proved(held)] {
            let number_reused = Peer { process, ..peer(std::process::id()) };
            assert_eq!(*number_reused.ask_groups(), Groups::Ended);
        }
        assert_eq!(*peer(child.id()).ask_groups(), Groups::Ended);
        assert_eq!(*peer(0).ask_groups(), Groups::Unseen);
    }

    #[test]
    fn a_number_does_for_a_process_only_where_the_kernel_knows_no_better() {
        let own = i32::try_from(std::process::id()).unwrap();
        let of = |errno| Process::of(Err(io::Error::from_raw_os_error(errno)), own);
        assert!(matches!(of(ENOPROTOOPT), Process::Numbered(_)));
        // The number is another's by now.
        for ended in [ESRCH, EINVAL] {
            assert!(matches!(of(ended), Process::Ended));
        }
        let failed = Peer { process: of(EMFILE), ..peer(std::process::id()) };
        assert!(matches!(failed.ask_groups(), Groups::Failed(why) if why.contains("open files")));
    }
}
