//! The control channel: whole messages over a unix socket, at most one file with each, nothing that blocks without a bound.
//!
//! Guarantees: a file that comes is owned before anything else is looked at; more than one, or one that was lost on the way, is
//! an error. Waiting ends at a deadline.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
        SendFlags, recvmsg, sendmsg,
    },
};

use crate::control::{MESSAGE_SIZE, Malformed, Message};

/// Why nothing more can be said or heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The peer has closed the socket.
    #[error("closed by the peer")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("{0} files with one message: expected at most one")]
    Files(usize),
    #[error("a file of the peer was lost on the way: this process may have too few descriptors left")]
    LostFile,
    #[error("socket: {0}")]
    Socket(#[from] io::Error),
}

/// A message and what came with it.
#[derive(Debug)]
pub(crate) struct Received {
    pub(crate) message: Message,
    pub(crate) file: Option<OwnedFd>,
}

/// One message, if one is there.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<Received>, Error> {
    // One byte more, or a longer message would look like a whole one.
    let mut bytes = [0; MESSAGE_SIZE + 1];
    // Room for more than is allowed: what does not fit here is lost without a trace. Credentials may come along.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    // The end of a peer that has not read everything is told before what it said last, and once.
    let mut reset = false;
    let received = loop {
        match recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut bytes)], &mut control, flags) {
            Ok(received) => break received,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            Err(rustix::io::Errno::CONNRESET) if !reset => reset = true,
            Err(rustix::io::Errno::CONNRESET) => return Err(Error::Closed),
            Err(error) => return Err(Error::Socket(error.into())),
        }
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    if received.bytes == 0 && files.is_empty() {
        return Err(Error::Closed);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Error::LostFile);
    }
    let file = files.pop();
    if !files.is_empty() {
        return Err(Error::Files(files.len() + 1));
    }
    let message = Message::parse(&bytes[..received.bytes.min(bytes.len())])?;
    Ok(Some(Received { message, file }))
}

/// Sends a message now. The queue of a peer that reads nothing is full at some time, which is an error: in this protocol nobody
/// sends before the other has answered.
pub(crate) fn send(socket: impl AsFd, message: &Message, file: Option<BorrowedFd<'_>>) -> Result<(), Error> {
    let bytes = message.encode();
    let files: Vec<BorrowedFd<'_>> = file.into_iter().collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&files));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match sendmsg(socket.as_fd(), &[IoSlice::new(&bytes)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET | rustix::io::Errno::NOTCONN) => {
                return Err(Error::Closed);
            }
            Err(error) => return Err(Error::Socket(error.into())),
        }
    }
}

/// When a time is over that begins now. One that is too long to be told ends in a year: nobody waits that long.
pub(crate) fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_hours(365 * 24))
}

/// What is left until then.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// What the kernel is told. A time that is too long would be refused, and nobody waits a year.
pub(crate) fn timespec(timeout: Duration) -> Timespec {
    let timeout = timeout.min(Duration::from_hours(24));
    Timespec { tv_sec: timeout.as_secs().cast_signed(), tv_nsec: i64::from(timeout.subsec_nanos()) }
}

/// Waits until one of the files can be read or has failed; false when the time is over before that.
pub(crate) fn wait(files: &mut [PollFd<'_>], timeout: Duration) -> io::Result<bool> {
    match poll(files, Some(&timespec(timeout))) {
        Ok(ready) => Ok(ready > 0),
        // Who waits looks again in any case.
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// One file that is waited for.
pub(crate) fn readable(file: &OwnedFd) -> PollFd<'_> {
    PollFd::new(file, PollFlags::IN)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use rustix::net::{AddressFamily, SocketFlags, SocketType, send as send_bytes, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn messages_and_files_arrive_whole() {
        let (near, far) = pair();
        assert!(receive(&far).unwrap().is_none());
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"x").unwrap();
        let message = Message::AddRegion { index: 0, size: 1 };
        send(&near, &message, Some(file.as_fd())).unwrap();
        send(&near, &Message::Ack, None).unwrap();
        let first = receive(&far).unwrap().unwrap();
        assert_eq!((first.message, first.file.is_some()), (message, true));
        let second = receive(&far).unwrap().unwrap();
        assert_eq!((second.message, second.file.is_none()), (Message::Ack, true));
        drop(near);
        assert!(matches!(receive(&far), Err(Error::Closed)));
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let (near, far) = pair();
        for size in [1, 127, 129, 4000] {
            send_bytes(&near, &vec![1; size], SendFlags::empty()).unwrap();
            let error = receive(&far).unwrap_err();
            assert!(matches!(error, Error::Malformed(Malformed::Size(_))), "{error}");
        }
        for count in [2, 3, 200] {
            let file = tempfile::tempfile().unwrap();
            let files = vec![file.as_fd(); count];
            let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
            let bytes = Message::Ack.encode();
            sendmsg(&near, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty()).unwrap();
            let error = receive(&far).unwrap_err();
            assert!(matches!(error, Error::Files(_) | Error::LostFile), "{error}");
        }
    }
}
